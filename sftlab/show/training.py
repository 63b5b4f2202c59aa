"""Pictures of training: scores against rates and losses, losses by step, batches."""

from collections.abc import Mapping, Sequence
from textwrap import fill

import pandas as pd
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from sftlab.measure import Estimate, percent
from sftlab.show.plots import COLOURS, GREY, TITLE, Picture, _axes

SOFT = "#444444"


def plot_band(
    series: Mapping[str, Mapping[float, Estimate]],
    *,
    title: str,
    axis: str = "learning rate",
    marked: Sequence[float] = (),
) -> Picture:
    """Shares against a rate, on a logarithmic axis.

    `series` maps a name to an estimate for each rate. A thick line is the mean of the seeds, each
    dot is a seed, and the band reaches from the lowest seed to the highest. `marked` rates get a
    dotted line.
    """
    figure, (ax,) = _axes(7.2, 3.4)
    told = []
    for n, (name, points) in enumerate(series.items()):
        rates = list(points)
        seeds = [points[rate].by_seed for rate in rates]
        ax.fill_between(rates, [min(s) for s in seeds], [max(s) for s in seeds],
                        color=COLOURS[n], alpha=0.22, linewidth=0)  # fmt: skip
        ax.plot(rates, [points[rate].value for rate in rates], color=COLOURS[n], linewidth=2.2,
                label=name)  # fmt: skip
        for rate, values in zip(rates, seeds, strict=True):
            # Beside each other: equal seeds would hide one another.
            places = [rate * 1.04 ** (k - (len(values) - 1) / 2) for k in range(len(values))]
            ax.scatter(places, values, s=9, color="white", edgecolor=COLOURS[n], linewidth=0.9,
                       zorder=3)  # fmt: skip
            told.append(f"{name} at {rate:.2g} {percent(points[rate].value)}")
    for rate in marked:
        ax.axvline(rate, color=GREY, linewidth=1, linestyle=":")
    every = list(dict.fromkeys(rate for points in series.values() for rate in points))
    ax.set_xscale("log")
    ax.set_xticks(every, [f"{rate:.2g}" for rate in every], fontsize=9)
    ax.minorticks_off()
    ax.set_ylim(-0.03, 1.05)
    ax.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0%", "25%", "50%", "75%", "100%"], fontsize=9)
    ax.set_xlabel(f"{axis} (line: mean; dots: seeds; band: all seeds)", fontsize=9, color=SOFT)
    ax.set_title(fill(title, TITLE), loc="left", fontsize=11, pad=24)
    ax.legend(frameon=False, fontsize=9, loc="lower left", bbox_to_anchor=(0, 1), ncols=5,
              borderaxespad=0.1)  # fmt: skip
    return Picture(figure, alt=f"{title}: {'; '.join(told)}.")


def plot_steps(
    frame: pd.DataFrame,
    *,
    title: str,
    value: str = "nats",
    axis: str = "loss, nats a supervised token",
    logarithmic: bool = False,
) -> Picture:
    """A value by step for several arms: a thin line for each seed, a thick one for their mean.

    `frame` has the columns arm, seed, step and `value`.
    """
    figure, (ax,) = _axes(7.2, 3.2)
    told = []
    for n, (arm, rows) in enumerate(frame.groupby("arm", sort=False)):
        for _, one in rows.groupby("seed"):
            ax.plot(one["step"], one[value], color=COLOURS[n], linewidth=0.7, alpha=0.45)
        mean = rows.groupby("step")[value].mean()
        ax.plot(mean.index, mean, color=COLOURS[n], linewidth=2.2, label=arm)
        told.append(f"{arm} from {mean.iloc[0]:.2g} to {mean.iloc[-1]:.2g}")
    if logarithmic:
        ax.set_yscale("log")
    else:
        ax.set_ylim(0, None)
    ax.set_xlabel("step (thin: seeds, thick: their mean)", fontsize=9, color=SOFT)
    ax.set_ylabel(axis, fontsize=9, color=SOFT)
    ax.set_title(fill(title, TITLE), loc="left", fontsize=11, pad=24)
    ax.legend(frameon=False, fontsize=9, loc="lower left", bbox_to_anchor=(0, 1), ncols=4,
              borderaxespad=0.1)  # fmt: skip
    return Picture(figure, alt=f"{title}: {'; '.join(told)}.")


def plot_against(
    frame: pd.DataFrame, columns: Mapping[str, str], *, title: str, score: str = "score"
) -> Picture:
    """One dot a run: its score against each of some losses, on logarithmic axes beside each other.

    `frame` has a row for each run: `score` (0 to 1), `group` (by which the dots are coloured), and
    the columns that `columns` gives a label for.
    """
    figure, axes = _axes(7.2, 3.3, columns=len(columns))
    groups = list(dict.fromkeys(frame["group"]))
    for ax, (column, label) in zip(axes, columns.items(), strict=True):
        for n, group in enumerate(groups):
            rows = frame[frame["group"] == group]
            ax.scatter(rows[column], rows[score], s=16, color=COLOURS[n % len(COLOURS)], alpha=0.75,
                       linewidth=0, label=group)  # fmt: skip
        ax.set_xscale("log")
        # By itself matplotlib labels every tick of a short axis, one over the other.
        times = frame[column].max() / frame[column].min()
        subs = (1, 2, 5) if times < 50 else (1,)
        ax.xaxis.set_major_locator(MaxNLocator(4) if times < 4 else LogLocator(subs=subs))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.tick_params(labelsize=9)
        ax.set_ylim(-0.03, 1.05)
        ax.set_yticks([0, 0.5, 1], ["0%", "50%", "100%"], fontsize=9)
        ax.set_xlabel(label, fontsize=9, color=SOFT)
    axes[0].set_ylabel("answered rightly", fontsize=9, color=SOFT)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4,
                  frameon=False, fontsize=9, handletextpad=0.2)  # fmt: skip
    axes[0].set_title(fill(title, TITLE), loc="left", fontsize=11)
    return Picture(figure, alt=f"{title}: {len(frame)} runs, {len(groups)} kinds.")


def plot_layout(batches: Mapping[str, Sequence[Sequence[str]]], *, title: str) -> Picture:
    """How batches lie in memory: a row a line, a cell a token, by kind.

    `batches` maps a name to rows of kinds: `read` (masked), `learned` (supervised) or `padding`.
    """
    from matplotlib.patches import Patch

    colours = {"read": "#9ecae9", "learned": COLOURS[0], "padding": "#e8e8e8"}
    lines = sum(len(rows) for rows in batches.values())
    figure, (ax,) = _axes(7.2, 1.0 + 0.2 * lines + 0.35 * len(batches))
    y, told, ticks = 0.0, [], {}
    for name, rows in batches.items():
        ticks[y + (len(rows) - 1) / 2] = name
        for row in rows:
            for kind, colour in colours.items():
                spans = [(n, 1) for n, found in enumerate(row) if found == kind]
                ax.broken_barh(spans, (y - 0.4, 0.8), color=colour, linewidth=0)
            y += 1
        every = [kind for row in rows for kind in row]
        told.append(f"{name} {len(every)} positions, {every.count('padding')} of them padding")
        y += 0.8
    ax.set_yticks(list(ticks), list(ticks.values()), fontsize=10)
    ax.invert_yaxis()
    ax.set_xlabel("position in the row", fontsize=9, color=SOFT)
    ax.tick_params(labelsize=9)
    ax.set_title(fill(title, TITLE), loc="left", fontsize=11, pad=24)
    ax.legend([Patch(color=c) for c in colours.values()], list(colours), frameon=False, fontsize=9,
              loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.1,
              handlelength=1, handleheight=1)  # fmt: skip
    return Picture(figure, alt=f"{title}: {'; '.join(told)}.")
