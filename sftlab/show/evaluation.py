"""Pictures of evaluations: pass@k, two measures against each other, and what power one has."""

from collections.abc import Mapping, Sequence
from textwrap import fill

import pandas as pd

from sftlab.measure import Components, Estimate, detectable, percent
from sftlab.show.plots import COLOURS, GREY, TITLE, Picture, _axes

_TICKS = [0, 0.25, 0.5, 0.75, 1]
_NAMES = ["0%", "25%", "50%", "75%", "100%"]


def plot_passes(curves: Mapping[str, Mapping[int, Estimate]], *, title: str) -> Picture:
    """pass@k against k, one curve each: mean, band of its interval, a dot for each seed."""
    figure, (ax,) = _axes(7.2, 3.0)
    told = []
    for n, (name, points) in enumerate(curves.items()):
        ks, colour = sorted(points), COLOURS[n % len(COLOURS)]
        ax.fill_between(ks, [points[k].low for k in ks], [points[k].high for k in ks],
                        color=colour, alpha=0.18, linewidth=0)  # fmt: skip
        ax.plot(ks, [points[k].value for k in ks], "o-", color=colour, linewidth=2, markersize=4,
                label=name)  # fmt: skip
        for k in ks:
            seeds = points[k].by_seed
            ax.scatter([k] * len(seeds), seeds, s=7, color=colour, alpha=0.7, linewidth=0)
        told += [f"{name} k={k} {percent(points[k].value)}" for k in ks]
    every = sorted({k for points in curves.values() for k in points})
    ax.set_xticks(every, [str(k) for k in every], fontsize=9)
    ax.set_ylim(-0.03, 1.03)
    ax.set_yticks(_TICKS, _NAMES, fontsize=9)
    ax.set_xlabel("k: draws, of which one has to pass (band: 95% interval; dots: seeds)",
                  fontsize=9, color="#444444")  # fmt: skip
    ax.set_ylabel("pass@k", fontsize=9, color="#444444")
    ax.set_title(fill(title, TITLE), loc="left", fontsize=11, pad=26)
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, frameon=False, fontsize=9,
              borderaxespad=0.1)  # fmt: skip
    return Picture(figure, alt=f"{title}: {'; '.join(told)}.")


def plot_two_measures(
    runs: pd.DataFrame,
    *,
    x: str,
    y: str,
    title: str,
    x_axis: str,
    y_axis: str,
    threshold: float | None = None,
) -> Picture:
    """One dot a run: a cost such as perplexity on a logarithmic axis against a share.

    `runs` has the columns `x`, `y` and arm; a dashed line stands at `threshold`.
    """
    figure, (ax,) = _axes(7.2, 3.2)
    told = []
    for n, (name, part) in enumerate(runs.groupby("arm", sort=False)):
        ax.scatter(part[x], part[y], s=26, color=[*COLOURS, GREY][n % 7], label=name, alpha=0.85,
                   marker="osD^vPX"[n % 7], linewidth=0)  # fmt: skip
        told.append(f"{name} {part[x].mean():.3g}, right {percent(part[y].mean())}")
    ax.set_xscale("log")
    ax.minorticks_off()
    if threshold is not None:
        ax.axvline(threshold, color=GREY, linewidth=1.2, linestyle="--", zorder=0)
        ax.text(threshold, 1.0, f" {threshold:g}", fontsize=9, color="#444444", va="bottom")
    ax.set_ylim(-0.03, 1.06)
    ax.set_yticks(_TICKS, _NAMES, fontsize=9)
    ax.tick_params(axis="x", labelsize=9)
    ax.set_xlabel(x_axis, fontsize=9, color="#444444")
    ax.set_ylabel(y_axis, fontsize=9, color="#444444")
    ax.set_title(fill(title, TITLE), loc="left", fontsize=11)
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=9)
    return Picture(figure, alt=f"{title}: {'; '.join(told)}.")


def plot_power(
    pilot: Components,
    *,
    title: str,
    seeds: Sequence[int] = (3, 5, 10, 20),
    entities: Sequence[int] = (10, 20, 50, 100, 200, 500),
    wanted: float | None = None,
) -> Picture:
    """The smallest difference that is seen four times in five, by number of entities and seeds.

    `wanted` is a difference to be seen: a dashed line.
    """
    figure, (ax,) = _axes(7.2, 3.0)
    told = []
    for n, number in enumerate(seeds):
        least = [detectable(pilot, seeds=number, entities=many) for many in entities]
        # A difference of shares above 1 is none: with so few seeds nothing can be seen.
        shown = [one if one <= 1 else float("nan") for one in least]
        colour = COLOURS[n % len(COLOURS)]
        ax.plot(entities, shown, "o-", color=colour, linewidth=2, markersize=4,
                label=f"{number} seeds")  # fmt: skip
        told.append(
            f"{number} seeds and {entities[0]} entities {percent(min(least[0], 1))}, "
            f"{entities[-1]} entities {percent(min(least[-1], 1))}"
        )
    if wanted is not None:
        ax.axhline(wanted, color=GREY, linewidth=1.2, linestyle="--", zorder=0)
        ax.text(entities[-1], wanted, f"{percent(wanted)}", fontsize=9, color="#444444",
                va="bottom", ha="right")  # fmt: skip
    ax.set_xscale("log")
    ax.minorticks_off()
    ax.set_xticks(list(entities), [f"{many:,}" for many in entities], fontsize=9)
    ax.set_ylim(0, None)
    ax.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.3g}%")
    ax.tick_params(axis="y", labelsize=9)
    ax.set_xlabel("entities that are asked about", fontsize=9, color="#444444")
    ax.set_ylabel("smallest difference seen", fontsize=9, color="#444444")
    ax.set_title(fill(title, TITLE), loc="left", fontsize=11)
    ax.legend(frameon=False, fontsize=9)
    return Picture(figure, alt=f"{title}: {'; '.join(told)}.")
