"""Plots of forgetting: the meter before and after, and the map of task against old skills.

    kept |  x--x-x          plot_map       both numbers of each setting, in two tables of colours
         |      \\
         |       x - x      plot_pareto    one against the other: up and to the right is better
         +------------ task
"""

from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd
from matplotlib.patheffects import withStroke

from sftlab.measure import SKILLS, Estimate, percent
from sftlab.show.plots import (
    GREY,
    INK,
    SOFT,
    Picture,
    colours_of,
    finish,
    new_axes,
    percent_axis,
    seed_dots,
    styled,
)

METER = {
    "facts": "facts (plain sentences)",
    "few-shot": "few-shot answers",
    "stories": "stories",
    "counting": "counting, sums",
    "nature": "animals, elements",
}
"""The skills of the forgetting meter whose items are right or wrong, as plots name them."""
NEAR = 0.03
"""A label this near another one is left out: the dots grow along a curve, which shows as much."""


@styled
def plot_meter(
    readings: Mapping[str, pd.DataFrame], *, before: pd.DataFrame, title: str
) -> Picture:
    """A row for each skill: a grey mark for the base, and for each run a dot with a line to it.

    On the right the loss on documents of the corpus, where the readings have them. `readings` maps
    a name to a frame of `Run.meter`, of one seed or several (a column `seed`); `before` is the
    base's.
    """
    skills = [skill for skill in METER if skill in SKILLS and (before["skill"] == skill).any()]
    documents = (before["skill"] == "corpus").any()
    height = 1.5 + len(skills) * (0.18 + 0.17 * len(readings))
    panels = {"columns": 2, "widths": (3, 1)} if documents else {}
    ax, *right = new_axes(height, **panels)
    was = {skill: _share_right(before, skill)[0] for skill in skills}
    alt, losses = [f"before {skill} {percent(was[skill])}" for skill in skills], []
    for n, (name, colour) in enumerate(colours_of(list(readings)).items()):
        ax.plot([], [], "o", color=colour, markersize=6, label=name)
        for y, skill in enumerate(skills):
            at = y + (n - (len(readings) - 1) / 2) * 0.7 / len(readings)
            share, seeds = _share_right(readings[name], skill)
            ax.plot([was[skill], share], [at, at], color=colour, alpha=0.55)
            ax.plot(share, at, "o", color=colour, markersize=6, zorder=4)
            seed_dots(ax, seeds, [at] * len(seeds), colour)
            alt.append(f"{name} {skill} {percent(share)}")
        if documents:
            nats = _corpus_loss(readings[name])
            right[0].barh(n, nats, color=colour, height=0.5)
            right[0].text(nats, n, f" {nats:.2f}", va="center", fontsize=8)
            losses.append(f"{name} loss on the corpus {nats:.2f} nats")
    for y, skill in enumerate(skills):
        label = None if y else "before"
        ax.plot([was[skill]] * 2, [y - 0.4, y + 0.4], color=GREY, linewidth=3, label=label)
    ax.set_yticks(range(len(skills)), [METER[skill] for skill in skills])
    ax.set_ylim(len(skills) - 0.5, -0.5)
    percent_axis(ax.xaxis)
    if documents:
        right[0].axvline(_corpus_loss(before), color=GREY, linewidth=3)
        right[0].set(ylim=(len(readings) - 0.5, -0.5), yticks=[])
        right[0].set_xlim(0, 1.35 * right[0].get_xlim()[1])
        right[0].set_xlabel("loss on the corpus,\nnats per token")
    several = any("seed" in frame for frame in readings.values())
    x = "correct" + " (small dots: seeds)" * several
    return finish(ax, title, [*alt, *losses], x=x, legend=4)


def _share_right(frame: pd.DataFrame, skill: str) -> tuple[float, list[float]]:
    """The share of a skill's items that are right, and that of each of several seeds."""
    rows = frame[frame["skill"] == skill]
    right = rows["right"].astype(float)
    seeds = right.groupby(rows["seed"]).mean().tolist() if "seed" in rows else []
    return float(right.mean()), seeds if len(seeds) > 1 else []


def _corpus_loss(frame: pd.DataFrame) -> float:
    return float(frame.loc[frame["skill"] == "corpus", "nats"].mean())


class Point(NamedTuple):
    """One setting of the map, measured."""

    task: Estimate
    """Share of the task's questions that are answered correctly."""
    kept: Estimate
    """Share of the meter's items that are right."""

    @property
    def means(self) -> tuple[float, float]:
        """Both values."""
        return self.task.value, self.kept.value


Points = Mapping[str, Mapping[str, Point]]
"""Curve (such as a rate) -> label (such as a share of replay) -> setting, in the order drawn."""


def _frontier(points: Points) -> list[tuple[float, float]]:
    """The means of the settings that no other beats in both, by their task score."""
    every = {point.means for row in points.values() for point in row.values()}
    return sorted(
        one for one in every if not any(o[0] >= one[0] and o[1] >= one[1] for o in every - {one})
    )


@styled
def plot_pareto(
    points: Points, *, before: float, title: str, chosen: tuple[str, str] | None = None
) -> Picture:
    """What was kept against what was gained: a curve each, its settings in order.

    A dot is the mean of the seeds; along a curve dots grow. The thin cross on it reaches from the
    lowest seed to the highest both ways, and the dashed line joins the settings that no other
    beats. A grey line shows the base's old skills. `chosen` is the curve and label of a setting to
    mark with a ring, its seeds with white dots.
    """
    (ax,) = new_axes(5.0)
    alt, labelled = [], []
    ax.axhline(before, color=GREY, alpha=0.6)
    offset = {"textcoords": "offset points", "fontsize": 8}
    place = {"xycoords": ("axes fraction", "data"), "xytext": (3, -3), "va": "top"}
    ax.annotate("the base", (0, before), color=SOFT, **place, **offset)
    ax.plot(*zip(*_frontier(points), strict=True), "--", color=INK, linewidth=1, zorder=1)
    halo = [withStroke(linewidth=3, foreground="white")]
    for n, (curve, colour) in enumerate(colours_of(list(points)).items()):
        means = [point.means for point in points[curve].values()]
        ax.plot(*zip(*means, strict=True), color=colour, linewidth=1.6, alpha=0.6)
        ax.plot([], [], "o-", color=colour, label=curve)
        cross = {"color": colour, "linewidth": 0.9, "alpha": 0.45}
        dot = {"color": colour, "markeredgecolor": "white", "markeredgewidth": 0.6, "alpha": 0.85}
        for size, (label, point) in enumerate(points[curve].items()):
            x, y = point.means
            ax.plot([min(point.task.by_seed), max(point.task.by_seed)], [y, y], **cross)
            ax.plot([x, x], [min(point.kept.by_seed), max(point.kept.by_seed)], **cross)
            ax.plot(x, y, "o", markersize=4 + 1.2 * size, zorder=3, **dot)
            if all(max(abs(x - a), abs(y - b)) > NEAR for a, b in labelled):
                side = {"xytext": (9, (-12, 6)[n % 2]), "path_effects": halo, "zorder": 2.5}
                ax.annotate(label, (x, y), color=colour, **side, **offset)
                labelled.append((x, y))
            alt.append(_read(curve, label, point))
    if chosen:
        point = points[chosen[0]][chosen[1]]
        seed_dots(ax, point.task.by_seed, point.kept.by_seed, size=16)
        ax.plot(*point.means, "o", markersize=18, fillstyle="none", color=INK, zorder=4)
    percent_axis(ax.xaxis)
    percent_axis(ax.yaxis)
    every = [point for row in points.values() for point in row.values()]
    lowest = [min(min(one[k].by_seed) for one in every) for k in (0, 1)]
    left, bottom = (max(low - 0.08, -0.03) for low in lowest)
    ax.set(xlim=(left, 1.05), ylim=(bottom, 1.05))
    x = "task: answered correctly (cross: lowest to highest seed; dots grow along a curve)"
    return finish(ax, title, alt, x=x, y="old skills kept", legend=4)


def _read(curve: str, label: str, point: Point) -> str:
    """A setting as text, in which only what was measured is written with `%`."""
    where = f"{curve} {label}".replace("%", " percent")
    task, kept = map(percent, point.means)
    return f"{where} task {task}; {where} kept {kept}"


@styled
def plot_map(points: Points, *, title: str, rows: str, columns: str) -> Picture:
    """Two tables of colours, task and kept: a row a curve, a column a label, means in the cells.

    `rows` and `columns` name what changes along them. Every curve has the same labels.
    """
    names, labels = list(points), list(next(iter(points.values())))
    axes = new_axes(1.5 + 0.45 * len(names), columns=2)
    panels = (("Blues", "task: answered correctly"), ("Greens", "old skills kept"))
    for k, (ax, (colours, head)) in enumerate(zip(axes, panels, strict=True)):
        shares = [[points[name][label].means[k] for label in labels] for name in names]
        ax.imshow(shares, cmap=colours, vmin=0, vmax=1.25, aspect="auto")
        for y, row in enumerate(shares):
            for x, share in enumerate(row):
                style = {"ha": "center", "va": "center", "fontsize": 9}
                ax.text(x, y, percent(share), color="white" if share > 0.85 else INK, **style)
        ax.set_xticks(range(len(labels)), labels)
        ax.set_yticks(range(len(names)), [] if k else names)
        ax.set_xlabel(columns)
        ax.set_title(head, fontsize=10)
        ax.spines[:].set_visible(False)
    axes[0].set_ylabel(rows)
    axes[0].figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    alt = "; ".join(_read(n, label, p) for n, row in points.items() for label, p in row.items())
    return Picture(axes[0].figure, alt=f"{title}: {alt}.")
