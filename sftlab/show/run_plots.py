"""Plots of training runs: loss, what a batch holds, memory, and what was forgotten."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from sftlab.measure import Estimate, percent, summary
from sftlab.planner import PARTS, Memory
from sftlab.show.plots import (
    GREY,
    INK,
    MEANING,
    OTHERS,
    PALE,
    SOFT,
    Picture,
    colours_of,
    finish,
    new_axes,
    note,
    one_curve,
    percent_axis,
    seed_dots,
    stacked,
    styled,
)

_GB = 1e9


@styled
def plot_loss(
    history: Sequence[Mapping[str, float]],
    *,
    title: str,
    validation: Sequence[tuple[float, float]] = (),
) -> Picture:
    """The loss of one run by step, with a running mean over about a tenth of the steps.

    `history` has a row for each step, as in `Run.history`, and `validation` pairs of step and loss
    on other examples.
    """
    rows = pd.DataFrame(history)
    smooth = rows["loss"].rolling(max(1, len(rows) // 10), min_periods=1, center=True).mean()
    (ax,) = new_axes(3.0)
    thin = {"color": MEANING["training"], "linewidth": 1, "alpha": 0.5}
    ax.plot(rows["step"], rows["loss"], label="each step", **thin)
    ax.plot(rows["step"], smooth, color=MEANING["training"], label="running mean")
    ends = (
        f"{rows['loss'].iloc[0]:.3g} at the first step to a running mean of {smooth.iloc[-1]:.3g}"
    )
    alt = [f"loss from {ends} at step {rows['step'].iloc[-1]:g}"]
    if validation:
        ax.plot(
            *zip(*validation, strict=True), "o-", color=MEANING["validation"], label="validation"
        )
        alt.append(f"validation loss from {validation[0][1]:.3g} to {validation[-1][1]:.3g}")
    ax.set_ylim(0, None)
    series = [one_curve("training", MEANING["training"], rows["step"], [smooth])]
    if validation:
        places, losses = zip(*validation, strict=True)
        series.append(one_curve("validation", MEANING["validation"], places, [losses]))
    labels = {"x": "step", "y": "loss, nats per supervised token"}
    return finish(ax, title, alt, **labels, legend=3, curves={"series": series})


@styled
def plot_runs(
    frame: pd.DataFrame,
    *,
    title: str,
    x: str = "epoch",
    y: str = "loss",
    by: str = "kind",
    axis: str = "loss, nats per supervised token",
    log: bool = False,
) -> Picture:
    """A value by epoch or step: for each kind a thin line per seed, and a thick one for their mean.

    `frame` has the columns seed, `x`, `y` and `by`. Where the kinds are training and validation, a
    dotted line marks the lowest mean of the validation.
    """
    (ax,) = new_axes(3.2)
    alt, series = [], []
    for name, colour in colours_of(frame[by].unique().tolist()).items():
        rows = frame[frame[by] == name]
        wide = rows.pivot_table(index=x, columns="seed", values=y)
        series.append(one_curve(name, colour, wide.index, wide.T.to_numpy()))
        for _, one in rows.groupby("seed"):
            ax.plot(one[x], one[y], color=colour, linewidth=0.7, alpha=0.45)
        mean = rows.groupby(x)[y].mean()
        ax.plot(mean, color=colour, linewidth=2.4, label=name)
        alt.append(
            f"{name} {mean.iloc[0]:.2f} at the first {x}, lowest {mean.min():.2f} at {x} "
            f"{mean.idxmin():g}, {mean.iloc[-1]:.2f} at the last"
        )
        if name == "validation":
            ax.axvline(mean.idxmin(), color=GREY, linewidth=1, linestyle=":")
    if log:
        ax.set_yscale("log")
        _log_ticks(ax.yaxis, frame[y])
    else:
        # The first epoch may lie above the picture: it would press all the others together.
        later = frame.loc[frame[x] > frame[x].min(), y].max() if x == "epoch" else frame[y].max()
        ax.set_ylim(0, 1.1 * min(later, frame[y].max()))
    x += " (thin: seeds, thick: their mean)" if frame["seed"].nunique() > 1 else ""
    return finish(ax, title, alt, x=x, y=axis, legend=4, curves={"log": log, "series": series})


def _log_ticks(axis, values: pd.Series) -> None:
    """Few ticks: by default matplotlib labels every tick of a short axis, one over the other."""
    times = values.max() / values.min()
    few = LogLocator(subs=(1, 2, 5) if times < 50 else (1,))
    axis.set_major_locator(MaxNLocator(4) if times < 4 else few)
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


@styled
def plot_against(
    runs: pd.DataFrame,
    columns: Mapping[str, str],
    *,
    title: str,
    score: str = "score",
    by: str = "group",
    threshold: float | None = None,
) -> Picture:
    """One dot a run: its score against a loss or another cost, on logarithmic axes.

    `runs` has a row for each run: `score` (0 to 1), `by` (which decides colour and marker), and the
    `columns`, which map a cost to the label of its panel. A dashed line stands at `threshold`.
    """
    axes = new_axes(3.4, [1] * len(columns))
    colours = colours_of(map(str, runs[by].unique()))
    alt = []
    for n, (name, rows) in enumerate(runs.groupby(by, sort=False)):
        dots = {
            "color": colours[str(name)],
            "marker": "osD^vPX"[n % 7],
            "alpha": 0.8,
            "linewidth": 0,
        }
        for ax, column in zip(axes, columns, strict=True):
            ax.scatter(rows[column], rows[score], s=20, label=name, **dots)
        costs = ", ".join(f"{rows[column].mean():.3g}" for column in columns)
        alt.append(f"{name} {costs}, correct {percent(rows[score].mean())}")
    for ax, (column, label) in zip(axes, columns.items(), strict=True):
        ax.set(xscale="log", xlabel=label)
        _log_ticks(ax.xaxis, runs[column])
        percent_axis(ax.yaxis)
        if threshold is not None:
            ax.axvline(threshold, color=GREY, linewidth=1.2, linestyle="--", zorder=0)
            ax.text(threshold, 1.0, f" {threshold:g}", fontsize=9, color=SOFT, va="bottom")
    handles = axes[0].get_legend_handles_labels()
    axes[0].figure.legend(*handles, loc="outside lower center", ncols=4, handletextpad=0.2)
    labels = {"x": next(iter(columns.values())), "y": "accuracy"}
    return finish(axes[0], title, [f"{len(runs)} runs", *alt], **labels)


@styled
def plot_memory(
    plans: Mapping[str, Memory],
    *,
    title: str,
    gpus: Mapping[str, float] | None = None,
    measured: Mapping[str, float] | None = None,
) -> Picture:
    """Stacked bars of what each plan needs at the peak of a training step, in GB.

    `gpus` maps the name of a GPU to its bytes, a dashed line each; `measured` maps a plan to the
    bytes of tensors that a GPU counted, a mark on its bar. Neither then holds the process.
    """
    gpus, marks = gpus or {}, {name: size / _GB for name, size in (measured or {}).items()}
    rows = pd.DataFrame({name: plan.at_peak() for name, plan in plans.items()}).T
    if not marks:
        rows["temporary"] += [plan.process for plan in plans.values()]
    rows = rows.loc[:, rows.any()] / _GB
    lines = [size / _GB for size in gpus.values()]
    widest = max([*rows.sum(axis=1), *lines, *marks.values()])
    colours = dict(zip(PARTS, (*OTHERS, PALE), strict=True))
    (ax,) = new_axes(1.5 + (0.3 if marks else 0.42) * len(rows))
    stacked(ax, rows, colours)
    alt = []
    for y, (name, size) in enumerate(rows.sum(axis=1).items()):
        alt.append(f"{name} {_gb(size)}")
        if name in marks:
            ax.plot([marks[name]] * 2, [y - 0.42, y + 0.42], color=INK)
            alt[-1] += f", measured {_gb(marks[name])}"
        ground = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
        end = max(size, marks.get(name, 0)) + widest * 0.012
        ax.text(end, y, _gb(size), va="center", fontsize=9, bbox=ground)
    for name, size in zip(gpus, lines, strict=True):
        ax.axvline(size, color=GREY, linewidth=1.2, linestyle="--", zorder=0)
        ax.text(size, len(rows) - 0.42, f" {name}", fontsize=8, color=SOFT, va="top")
    ax.set(ylim=(len(rows) - (0.1 if gpus else 0.5), -0.5), xlim=(0, widest * 1.14))
    x = "GB at the peak of a training step"
    x += " (dark mark: measured)" if marks else " (temporary: with the process)"
    return finish(ax, title, alt, x=x, legend=5, colours={part: colours[part] for part in rows})


def _gb(size: float) -> str:
    return f"{size:.3g} GB" if size < 100 else f"{size:.0f} GB"


METER = {
    "facts": "facts (plain sentences)",
    "few-shot": "few-shot answers",
    "stories": "stories",
    "counting": "counting, sums",
    "nature": "animals, elements",
}
"""The skills of the forgetting meter whose items are right or wrong, as plots name them."""


@styled
def plot_meter(
    readings: Mapping[str, pd.DataFrame], *, before: pd.DataFrame, title: str
) -> Picture:
    """A row for each skill: a grey mark for the base, and for each run a dot with a line to it.

    On the right is the loss on the corpus, where it was read. `readings` maps a name to a frame of
    `Run.meter`, of one seed or several (a column `seed`); `before` is the base's.
    """
    was = summary(before)
    skills, documents = [one for one in METER if one in was.index], "corpus" in was.index
    height = 1.5 + len(skills) * (0.18 + 0.17 * len(readings))
    ax, *right = new_axes(height, (3, 1) if documents else (1,))
    alt, losses = [f"before {skill} {percent(was.right[skill])}" for skill in skills], []
    for n, (name, colour) in enumerate(colours_of(list(readings)).items()):
        ax.plot([], [], "o", color=colour, markersize=6, label=name)
        frame, now = readings[name].astype({"right": float}), summary(readings[name])
        for y, skill in enumerate(skills):
            at = y + (n - (len(readings) - 1) / 2) * 0.7 / len(readings)
            ax.plot([was.right[skill], now.right[skill]], [at, at], color=colour, alpha=0.55)
            ax.plot(now.right[skill], at, "o", color=colour, markersize=6, zorder=4)
            if "seed" in frame and frame["seed"].nunique() > 1:
                seeds = frame[frame["skill"] == skill].groupby("seed")["right"].mean()
                seed_dots(ax, seeds, [at] * len(seeds), colour)
            alt.append(f"{name} {skill} {percent(now.right[skill])}")
        if documents:
            nats = now.nats["corpus"]
            right[0].barh(n, nats, color=colour, height=0.5)
            right[0].text(nats, n, f" {nats:.2f}", va="center", fontsize=8)
            losses.append(f"{name} loss on the corpus {nats:.2f} nats")
    for y, skill in enumerate(skills):
        label = None if y else "before"
        ax.plot([was.right[skill]] * 2, [y - 0.4, y + 0.4], color=GREY, linewidth=3, label=label)
    ax.set_yticks(range(len(skills)), [METER[skill] for skill in skills])
    ax.set_ylim(len(skills) - 0.5, -0.5)
    percent_axis(ax.xaxis)
    if documents:
        right[0].axvline(was.nats["corpus"], color=GREY, linewidth=3)
        right[0].set(ylim=(len(readings) - 0.5, -0.5), yticks=[])
        right[0].set_xlim(0, 1.35 * right[0].get_xlim()[1])
        right[0].set_xlabel("loss on the corpus,\nnats per token")
    several = any("seed" in one and one["seed"].nunique() > 1 for one in readings.values())
    x = "accuracy" + " (small dots: seeds)" * several
    return finish(ax, title, [*alt, *losses], x=x, legend=4)


class Point(NamedTuple):
    """One setting of the map of forgetting, measured."""

    task: Estimate  # share of the task's questions that are answered correctly
    kept: Estimate  # share of the meter's items that are right

    @property
    def means(self) -> tuple[float, float]:
        return self.task.value, self.kept.value


Points = Mapping[str, Mapping[str, Point]]
"""Curve (such as a rate) -> label (such as a share of replay) -> setting, in the order drawn."""


def _read(points: Points) -> list[str]:
    """Every setting as text, in which only what was measured is written with `%`."""
    alt = []
    for curve, row in points.items():
        for label, point in row.items():
            where = f"{curve} {label}".replace("%", " percent")
            task, kept = map(percent, point.means)
            alt += [f"{where} task {task}", f"{where} kept {kept}"]
    return alt


@styled
def plot_pareto(points: Points, *, before: float, title: str) -> Picture:
    """What was kept against what was gained (up and to the right is better): a curve each.

    A dot is the mean of the seeds, its thin cross the 95% intervals, and the dashed line joins the
    settings that no other beats. A grey line shows the base's old skills. The axes are logarithmic
    in what is missing to 100%, so that 90, 97 and 99% stand apart.
    """
    (ax,) = new_axes(5.0)
    every = [point for row in points.values() for point in row.values()]
    frontier = []
    for task, kept in sorted((point.means for point in every), reverse=True):
        if not frontier or kept > frontier[-1][1]:
            frontier.append((task, kept))
    for axis, k in ((ax.xaxis, 0), (ax.yaxis, 1)):
        scale = getattr(ax, f"set_{axis.axis_name}scale")
        scale("function", functions=(_missing, lambda y: 1 + _FLOOR - 10**-y))
        low = min(point.means[k] for point in every)
        room = 0.06 * (_missing(1) - _missing(low)) + 0.05
        percent_axis(axis)
        ends = (1 + _FLOOR - 10 ** -(_missing(low) - room), 1 + _FLOOR - 10 ** -(2 + room))
        ax.set(**{f"{axis.axis_name}lim": ends})
        axis.set_ticks([one for one in (0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 1) if one > ends[0]])
    ax.axhline(before, color=GREY, alpha=0.6)
    edge = {"xycoords": ("axes fraction", "data"), "va": "top", "color": SOFT}
    note(ax, "the base", (0, before), 3, -3, fontsize=8, **edge)
    ax.plot(*zip(*reversed(frontier), strict=True), "--", color=INK, linewidth=1.2, zorder=2)
    for n, (curve, colour) in enumerate(colours_of(list(points)).items()):
        means = [point.means for point in points[curve].values()]
        ax.plot(*zip(*means, strict=True), color=colour, linewidth=1.6, alpha=0.6)
        ax.plot([], [], "o-", color=colour, label=curve)
        cross = {"color": colour, "linewidth": 0.9, "alpha": 0.35}
        dot = {"color": colour, "markeredgecolor": "white", "markeredgewidth": 0.6, "alpha": 0.85}
        for size, (label, point) in enumerate(points[curve].items()):
            x, y = point.means
            ax.plot([point.task.low, point.task.high], [y, y], **cross)
            ax.plot([x, x], [point.kept.low, point.kept.high], **cross)
            ax.plot(x, y, "o", markersize=4 + 1.2 * size, zorder=3, **dot)
            style = {"color": colour, "fontsize": 8, "ha": "center"}
            note(ax, label, (x, y), 0, 9 if n % 2 else -15, **style)  # above, or below the dot
    x = "accuracy on the task (cross: 95% intervals; dots grow along a curve)"
    return finish(ax, title, _read(points), x=x, y="old skills kept", legend=4)


_FLOOR = 0.01  # 100% stands where 99% would on a logarithmic axis of what is missing


def _missing(share):
    return -np.log10(np.maximum(1 + _FLOOR - share, 1e-6))


@styled
def plot_map(points: Points, *, title: str, rows: str, columns: str) -> Picture:
    """Two tables of colours, task and kept: a row a curve, a column a label, means in the cells.

    `rows` and `columns` name what changes along them. Every curve has the same labels.
    """
    names, labels = list(points), list(next(iter(points.values())))
    axes = new_axes(1.5 + 0.45 * len(names), (1, 1))
    panels = (("Blues", "accuracy on the task"), ("Greens", "old skills kept"))
    for k, (ax, (colours, head)) in enumerate(zip(axes, panels, strict=True)):
        shares = [[points[name][label].means[k] for label in labels] for name in names]
        ax.imshow(shares, cmap=colours, vmin=0, vmax=1.25, aspect="auto")
        for y, row in enumerate(shares):
            for x, share in enumerate(row):
                centred = {"ha": "center", "va": "center", "fontsize": 9}
                ax.text(x, y, percent(share), color="white" if share > 0.85 else INK, **centred)
        ax.set_xticks(range(len(labels)), labels)
        ax.set_yticks(range(len(names)), [] if k else names)
        ax.set_xlabel(columns)
        ax.set_title(head, fontsize=10)
        ax.spines[:].set_visible(False)
    axes[0].set_ylabel(rows)
    axes[0].figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return Picture(axes[0].figure, alt=f"{title}: {'; '.join(_read(points))}.")
