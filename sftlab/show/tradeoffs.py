"""Pictures of what is gained and what it costs: by method, by rate, by direction."""

from collections.abc import Mapping, Sequence
from textwrap import fill

import pandas as pd

from sftlab.measure import Estimate, percent
from sftlab.show.plots import COLOURS, TITLE, Picture, _axes


def plot_methods(
    scores: Mapping[str, Mapping[str, Estimate]],
    *,
    trained: Mapping[str, float],
    title: str,
) -> Picture:
    """A row for each method, the one that trains the fewest weights on top.

    On the left the share of the weights that is trained, on a logarithmic axis; beside it a panel
    for each measurement: value, 95% interval, a dot for each seed.

    Args:
        scores: by method, its estimates by name; all methods have the same names.
        trained: by method, the trained weights as a share of all.
    """
    order = sorted(scores, key=trained.__getitem__)
    panels = list(next(iter(scores.values())))
    figure, axes = _axes(7.2, 1.2 + 0.36 * len(order), columns=1 + len(panels))
    told = []
    for y, name in enumerate(order):
        axes[0].plot(trained[name], y, "o", color="#333333", markersize=5)
        axes[0].annotate(percent_fine(trained[name]), (trained[name], y), xytext=(6, 0),
                         textcoords="offset points", va="center", fontsize=8)  # fmt: skip
        told.append(f"{name} trained {percent_fine(trained[name])}")
        for n, panel in enumerate(panels):
            found = scores[name][panel]
            _draw(axes[1 + n], found, y, COLOURS[n])
            told.append(f"{name} {panel} {percent(found.value)}")
    axes[0].set_xscale("log")
    axes[0].set_xlim(min(trained.values()) / 3, 14)
    axes[0].set_xticks([0.001, 0.01, 0.1, 1], ["0.1%", "1%", "10%", "100%"], fontsize=8)
    axes[0].minorticks_off()
    axes[0].set_xlabel("weights trained", fontsize=9, color="#444444")
    axes[0].set_yticks(range(len(order)), order, fontsize=9)
    for n, panel in enumerate(panels):
        axes[1 + n].set_xlim(0, 1.28)
        axes[1 + n].set_xticks([0, 0.5, 1], ["0%", "50%", "100%"], fontsize=8)
        axes[1 + n].set_xlabel(panel, fontsize=9, color="#444444")
        axes[1 + n].set_yticks([])
    for ax in axes:
        ax.set_ylim(len(order) - 0.5, -0.5)
        for y in range(1, len(order), 2):
            ax.axhspan(y - 0.5, y + 0.5, color="#f4f4f4", zorder=0, linewidth=0)
    figure.suptitle(f"{title}\nline: 95% interval; dots: seeds", x=0.01, ha="left", fontsize=11)
    return Picture(figure, alt=f"{title}: {'; '.join(told)}.")


def _draw(ax, found: Estimate, y: float, colour: str) -> None:
    ax.barh(y, found.value, height=0.6, color=colour, alpha=0.85)
    ax.plot([found.low, found.high], [y, y], color="#333333", linewidth=1.3)
    seeds = found.by_seed if found.seeds > 1 else ()
    places = [y + 0.44 * ((k + 0.5) / len(seeds) - 0.5) for k in range(len(seeds))]
    ax.scatter(seeds, places, s=8, color="white", edgecolor="#222222", linewidth=0.7, zorder=3)
    end = max(found.value, found.high, *seeds)
    ax.text(end + 0.03, y, percent(found.value), va="center", fontsize=8)


def percent_fine(share: float) -> str:
    """A small share with two digits: `0.57%`, `9.4%`, `100%`."""
    return f"{100 * share:.2g}%" if share < 0.0995 else f"{share:.0%}"


def plot_rates(
    curves: Mapping[str, Mapping[float, Estimate]],
    *,
    title: str,
    axis: str,
    best: Mapping[str, float] | None = None,
    shares: bool = True,
) -> Picture:
    """A measurement against the learning rate, one curve each: mean, band of its interval, seeds.

    `best` marks a rate of a curve with a ring. With `shares` the axis goes from 0 to 100%.
    """
    figure, (ax,) = _axes(7.2, 3.2)
    told = []
    for n, (name, points) in enumerate(curves.items()):
        rates, colour = sorted(points), COLOURS[n % len(COLOURS)]
        values = [points[rate].value for rate in rates]
        ax.fill_between(rates, [points[r].low for r in rates], [points[r].high for r in rates],
                        color=colour, alpha=0.18, linewidth=0)  # fmt: skip
        ax.plot(rates, values, color=colour, linewidth=2, label=name, marker="o", markersize=4)
        for rate in rates:
            seeds = points[rate].by_seed
            ax.scatter([rate] * len(seeds), seeds, s=7, color=colour, alpha=0.7, linewidth=0)
        if best and name in best:
            ax.plot(best[name], points[best[name]].value, "o", markersize=13, fillstyle="none",
                    color=colour, markeredgewidth=1.6)  # fmt: skip
        told += [f"{name} at {rate:g} {_said(points[rate].value, shares)}" for rate in rates]
    every = sorted({rate for points in curves.values() for rate in points})
    ax.set_xscale("log")
    ax.minorticks_off()
    ax.set_xticks(every, [f"{rate:g}" for rate in every], fontsize=9)
    if shares:
        ax.set_ylim(-0.03, 1.06)
        ax.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0%", "25%", "50%", "75%", "100%"], fontsize=9)
    ring = "; ring: its best" if best else ""
    ax.set_xlabel(f"peak learning rate (band: 95% interval; dots: seeds{ring})", fontsize=9,
                  color="#444444")  # fmt: skip
    ax.set_ylabel(axis, fontsize=9, color="#444444")
    ax.set_title(fill(title, TITLE), loc="left", fontsize=11, pad=26)
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, frameon=False, fontsize=9,
              borderaxespad=0.1)  # fmt: skip
    return Picture(figure, alt=f"{title}: {'; '.join(told)}.")


def _said(value: float, share: bool) -> str:
    return percent(value) if share else f"{value:.3g}"


def plot_directions(
    spectrum: pd.DataFrame,
    *,
    title: str,
    scores: Mapping[int, Estimate] | None = None,
    marks: Sequence[int] = (),
) -> Picture:
    """What the largest singular directions hold, and what a model can do with them alone.

    Args:
        spectrum: `WeightChanges.spectrum` of one seed or of several (a column `seed`).
        title: above the picture.
        scores: by number of directions kept, the share of questions answered rightly.
        marks: numbers of directions whose held share is told, such as an adapter's rank.
    """
    figure, (ax,) = _axes(7.2, 3.2)
    lines = {
        "held": ("of the change's squared norm", COLOURS[0]),
        "random": ("the same, were the change noise", "#8a8a8a"),
    }
    told = []
    means = spectrum.groupby("directions")[["held", "random"]].mean()
    for column, (name, colour) in lines.items():
        style = "--" if column == "random" else "-"
        ax.plot(means.index, means[column], style, color=colour, linewidth=2, label=name)
        told += [f"{name}, {k} directions {percent(means[column].loc[k])}" for k in marks]
    if scores:
        # A logarithmic axis has no zero: what is left without any direction stands before 1.
        places = {rank: rank or 0.5 for rank in scores}
        ax.plot(list(places.values()), [one.value for one in scores.values()], color=COLOURS[1],
                linewidth=2, marker="o", markersize=4, label="answered rightly")  # fmt: skip
        for rank, one in scores.items():
            ax.plot([places[rank]] * 2, [one.low, one.high], color="#333333", linewidth=1.2)
            told.append(f"answered rightly, {rank:g} directions {percent(one.value)}")
    ticks = [2**n for n in range(12) if 2**n <= means.index.max()]
    names = [str(tick) for tick in ticks]
    if scores and 0 in scores:
        ticks, names = [0.5, *ticks], ["0", *names]
    ax.set_xscale("log")
    ax.minorticks_off()
    ax.set_xticks(ticks, names, fontsize=9)
    ax.set_ylim(-0.03, 1.06)
    ax.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0%", "25%", "50%", "75%", "100%"], fontsize=9)
    ax.set_xlabel("singular directions kept of each matrix's change, the largest first",
                  fontsize=9, color="#444444")  # fmt: skip
    ax.set_title(fill(title, TITLE), loc="left", fontsize=11, pad=26)
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, fontsize=9,
              borderaxespad=0.1)  # fmt: skip
    return Picture(figure, alt=f"{title}: {'; '.join(told)}.")
