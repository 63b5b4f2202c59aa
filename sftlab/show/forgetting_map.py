"""The map of forgetting: what each setting gained on its task, and what it kept of old skills.

    kept |  x--x-x          plot_map       both numbers of each setting, in two tables of colours
         |      \\
         |       x - x      plot_pareto    one against the other: up and to the right is better
         +------------ task
"""

from collections.abc import Mapping
from textwrap import fill
from typing import NamedTuple

from matplotlib.patheffects import withStroke

from sftlab.measure import Estimate, percent
from sftlab.show.plots import COLOURS, GREY, TITLE, Picture, _axes

SOFT = "#444444"
NEAR = 0.03
"""A label this near another one is left out: the dots grow along a curve, which tells as much."""
TICKS = ([0, 0.25, 0.5, 0.75, 1], ["0%", "25%", "50%", "75%", "100%"])


class Point(NamedTuple):
    """One setting, measured."""

    task: Estimate
    """Share of the task's questions that are answered rightly."""
    kept: Estimate
    """Share of the meter's items that are right."""


Points = Mapping[str, Mapping[str, Point]]
"""By curve (such as a rate) and by label (such as a replay share), in the order of the drawing."""


def frontier(points: Points) -> list[tuple[str, str]]:
    """Curve and label of the settings that no other beats in both means, by their task score.

    Of two that are equal in both, both are named.
    """
    every = {(name, label): point for name, row in points.items() for label, point in row.items()}

    def beaten(one: Point) -> bool:
        return any(
            other.task.value >= one.task.value and other.kept.value >= one.kept.value
            and (other.task.value, other.kept.value) != (one.task.value, one.kept.value)
            for other in every.values()
        )  # fmt: skip

    return sorted(
        (name for name, point in every.items() if not beaten(point)),
        key=lambda name: every[name].task.value,
    )


def plot_pareto(points: Points, *, before: float, title: str) -> Picture:
    """What was kept against what was gained: a curve each, its settings in order.

    A dot is the mean of the seeds; along a curve dots grow. The thin cross on it reaches from the
    lowest seed to the highest both ways, and the dashed line joins the settings that no other
    beats.

    Args:
        points: the settings.
        before: what the base had of the old skills: a grey line.
        title: above the picture.
    """
    figure, (ax,) = _axes(7.2, 5.0)
    told, labelled = [], []
    ax.axhline(before, color=GREY, linewidth=2, alpha=0.6)
    ax.annotate("the base", (0, before), xytext=(3, -3), xycoords=("axes fraction", "data"),
                textcoords="offset points", fontsize=8, color=SOFT, va="top")  # fmt: skip
    best = [points[curve][label] for curve, label in frontier(points)]
    ax.plot([one.task.value for one in best], [one.kept.value for one in best], "--",
            color="#222222", linewidth=1, zorder=1)  # fmt: skip
    for n, (curve, row) in enumerate(points.items()):
        colour = COLOURS[n % len(COLOURS)]
        x, y = ([one[k].value for one in row.values()] for k in (0, 1))
        ax.plot(x, y, color=colour, linewidth=1.6, alpha=0.6)
        ax.plot([], [], "o-", color=colour, label=curve)
        for place, (label, point) in enumerate(row.items()):
            at = point.task.value, point.kept.value
            wide, high = point.task.by_seed, point.kept.by_seed
            ax.plot([min(wide), max(wide)], [at[1]] * 2, color=colour, linewidth=0.9, alpha=0.45)
            ax.plot([at[0]] * 2, [min(high), max(high)], color=colour, linewidth=0.9, alpha=0.45)
            if all(max(abs(at[0] - x), abs(at[1] - y)) > NEAR for x, y in labelled):
                ax.annotate(label, at, xytext=(9, (-12, 6)[n % 2]), textcoords="offset points",
                            fontsize=8, color=colour, zorder=2.5,
                            path_effects=[withStroke(linewidth=3, foreground="white")])  # fmt: skip
                labelled.append(at)
            told += [f"{_plain(curve)} {_plain(label)} {what} {percent(value)}"
                     for what, value in zip(Point._fields, at, strict=True)]  # fmt: skip
            ax.plot(*at, "o", color=colour, markersize=4 + 1.2 * place, zorder=3, alpha=0.85,
                    markeredgecolor="white", markeredgewidth=0.6)  # fmt: skip
    ax.set_xticks(*TICKS, fontsize=9)
    ax.set_yticks(*TICKS, fontsize=9)
    lowest = [min(min(one[k].by_seed) for row in points.values() for one in row.values())
              for k in (0, 1)]  # fmt: skip
    ax.set_xlim(max(lowest[0] - 0.08, -0.03), 1.05)
    ax.set_ylim(max(lowest[1] - 0.08, -0.03), 1.05)
    ax.set_xlabel("task: answered rightly (cross: lowest to highest seed; dots grow along a curve)",
                  fontsize=9, color=SOFT)  # fmt: skip
    ax.set_ylabel("old skills kept", fontsize=9, color=SOFT)
    ax.set_title(fill(title, TITLE), loc="left", fontsize=11, pad=24)
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, frameon=False, fontsize=9,
              borderaxespad=0.1, handletextpad=0.3, columnspacing=1.2)  # fmt: skip
    return Picture(figure, alt=f"{title}: {'; '.join(told)}.")


def plot_map(points: Points, *, title: str, rows: str, columns: str) -> Picture:
    """Two tables of colours, task and kept: a row a curve, a column a label, means in the cells.

    `rows` and `columns` name what changes along them. Every curve has the same labels.
    """
    names, labels = list(points), list(next(iter(points.values())))
    figure, axes = _axes(7.2, 1.5 + 0.45 * len(names), columns=2)
    told = []
    panels = (("task", "Blues", "task: answered rightly"), ("kept", "Greens", "old skills kept"))
    for ax, (what, colours, head) in zip(axes, panels, strict=True):
        shares = [[getattr(points[name][label], what).value for label in labels] for name in names]
        ax.imshow(shares, cmap=colours, vmin=0, vmax=1.25, aspect="auto")
        for y, name in enumerate(names):
            for x, label in enumerate(labels):
                share = shares[y][x]
                ax.text(x, y, percent(share), ha="center", va="center", fontsize=9,
                        color="white" if share > 0.85 else "#222222")  # fmt: skip
                told.append(f"{_plain(name)} {_plain(label)} {what} {percent(share)}")
        ax.set_xticks(range(len(labels)), labels, fontsize=9)
        ax.set_yticks(range(len(names)), names if ax is axes[0] else [], fontsize=9)
        ax.set_xlabel(columns, fontsize=9, color=SOFT)
        ax.set_title(head, loc="left", fontsize=10)
        ax.spines[:].set_visible(False)
    axes[0].set_ylabel(rows, fontsize=9, color=SOFT)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return Picture(figure, alt=f"{title}: {'; '.join(told)}.")


def _plain(label: str) -> str:
    """A label in a text whose own figures are the percentages."""
    return label.replace("%", " percent")
