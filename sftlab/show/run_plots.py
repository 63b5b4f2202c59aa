"""Plots of training runs: their losses, what a batch holds, what they changed, memory and plans."""

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import pandas as pd
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from sftlab.measure import Estimate, Share, percent
from sftlab.planner import PARTS, Memory
from sftlab.show.plots import (
    COLOURS,
    GREY,
    INK,
    MEANING,
    PALE,
    SOFT,
    TITLE,
    Picture,
    colours_of,
    curve,
    finish,
    log_axis,
    new_axes,
    percent_axis,
    plot_shares,
    styled,
)

_NATS = "loss, nats per supervised token"
_GB = 1e9


@styled
def plot_loss(
    history: Sequence[Mapping[str, float]],
    *,
    title: str,
    validation: Sequence[tuple[float, float]] = (),
    rate: bool = False,
) -> Picture:
    """The loss of one run by step, with a running mean over about a tenth of the steps.

    `history` has a row for each step, as in `Run.history`, and `validation` pairs of step and loss
    on other examples. With `rate` a panel below shows the learning rate.
    """
    steps = [row["step"] for row in history]
    losses = pd.Series([row["loss"] for row in history])
    smooth = losses.rolling(max(1, len(losses) // 10), min_periods=1, center=True).mean()
    (ax,) = new_axes(3.6 if rate else 3.0)
    figure = ax.figure
    if rate:
        ax.remove()
        ax, below = figure.subplots(2, 1, sharex=True, height_ratios=(5, 2))
        below.plot(steps, [row["learning_rate"] for row in history], color=SOFT, linewidth=1.4)
        below.set_ylim(0, None)
        below.ticklabel_format(axis="y", style="sci", scilimits=(0, 0), useMathText=True)
        below.yaxis.get_offset_text().set_fontsize(8)
        below.set(xlabel="step", ylabel="rate")
    ax.plot(steps, losses, color=COLOURS[4], linewidth=1, alpha=0.6, label="each step")
    ax.plot(steps, smooth, color=MEANING["training"], label="running mean")
    alt = [f"loss from {losses.iloc[0]:.3g} at the first step to {smooth.iloc[-1]:.3g}"]
    alt[0] += f" at step {steps[-1]:g}"
    if validation:
        ax.plot(*zip(*validation, strict=True), "o-", color=COLOURS[5], label="validation")
        alt.append(f"validation loss from {validation[0][1]:.3g} to {validation[-1][1]:.3g}")
    ax.set_ylim(0, None)
    x, y = ("", "loss, nats") if rate else ("step", _NATS)
    return finish(ax, title, alt, x=x, y=y, legend=3)


@styled
def plot_runs(
    frame: pd.DataFrame,
    *,
    title: str,
    x: str = "epoch",
    y: str = "loss",
    by: str = "kind",
    axis: str = _NATS,
    log: bool = False,
) -> Picture:
    """A value by epoch or step: for each kind a thin line per seed, and a thick one for their mean.

    `frame` has the columns seed, `x`, `y` and `by`. Where the kinds are training and validation, a
    dotted line marks the lowest mean of the validation.
    """
    (ax,) = new_axes(3.2)
    alt = []
    groups = dict(list(frame.groupby(by, sort=False)))
    for name, colour in colours_of(list(groups)).items():
        for _, one in groups[name].groupby("seed"):
            ax.plot(one[x], one[y], color=colour, linewidth=0.7, alpha=0.45)
        mean = groups[name].groupby(x)[y].mean()
        ax.plot(mean.index, mean, color=colour, linewidth=2.4, label=name)
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
    seeds = " (thin: seeds, thick: their mean)" if frame["seed"].nunique() > 1 else ""
    return finish(ax, title, alt, x=x + seeds, y=axis, legend=4)


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

    `runs` has a row for each run, with the columns `score` (0 to 1), `by` (which decides colour and
    marker), and those of `columns`, which maps a cost to the label of its panel. A dashed line
    stands at the cost `threshold`.
    """
    axes = new_axes(3.4, columns=len(columns))
    groups = dict(list(runs.groupby(by, sort=False)))
    colours = [*COLOURS, GREY]
    alt = []
    for n, (name, rows) in enumerate(groups.items()):
        style = {"color": colours[n % 7], "marker": "osD^vPX"[n % 7], "alpha": 0.8, "linewidth": 0}
        for ax, column in zip(axes, columns, strict=True):
            ax.scatter(rows[column], rows[score], s=20, label=name, **style)
        costs = ", ".join(f"{rows[column].mean():.3g}" for column in columns)
        alt.append(f"{name} {costs}, correct {percent(rows[score].mean())}")
    for ax, (column, label) in zip(axes, columns.items(), strict=True):
        ax.set_xscale("log")
        _log_ticks(ax.xaxis, runs[column])
        percent_axis(ax.yaxis)
        ax.set_xlabel(label)
        if threshold is not None:
            ax.axvline(threshold, color=GREY, linewidth=1.2, linestyle="--", zorder=0)
            ax.text(threshold, 1.0, f" {threshold:g}", fontsize=9, color=SOFT, va="bottom")
    axes[0].set_ylabel("answered correctly")
    axes[0].set_title(fill(title, TITLE))
    handles = axes[0].get_legend_handles_labels()
    axes[0].figure.legend(*handles, loc="outside lower center", ncols=4, handletextpad=0.2)
    return Picture(axes[0].figure, alt=f"{title}: {len(runs)} runs; {'; '.join(alt)}.")


@styled
def plot_layout(batches: Mapping[str, Sequence[Sequence[str]]], *, title: str) -> Picture:
    """How batches lie in memory: a row a line, a cell a token, by kind.

    `batches` maps a name to rows of kinds: `read` (masked), `learned` (supervised) or `padding`.
    """
    colours = {kind: MEANING[kind] for kind in ("read", "learned", "padding")}
    lines = sum(len(rows) for rows in batches.values())
    (ax,) = new_axes(1.0 + 0.2 * lines + 0.35 * len(batches))
    y, alt, ticks = 0.0, [], {}
    for name, rows in batches.items():
        ticks[y + (len(rows) - 1) / 2] = name
        for row in rows:
            for kind, colour in colours.items():
                spans = [(n, 1) for n, found in enumerate(row) if found == kind]
                ax.broken_barh(spans, (y - 0.4, 0.8), color=colour, linewidth=0)
            y += 1
        every = [kind for row in rows for kind in row]
        alt.append(f"{name} {len(every)} positions, {every.count('padding')} of them padding")
        y += 0.8
    ax.set_yticks(list(ticks), list(ticks.values()), fontsize=10)
    ax.invert_yaxis()
    handles = [Patch(color=colour) for colour in colours.values()], list(colours)
    return finish(ax, title, alt, x="position in the row", legend=3, handles=handles)


@styled
def plot_directions(
    spectrum: pd.DataFrame,
    *,
    title: str,
    scores: Mapping[int, Estimate],
    marks: Sequence[int] = (),
) -> Picture:
    """What the largest singular directions hold, and what a model can do with them alone.

    `spectrum` is `WeightChanges.spectrum` of one seed or several; `scores` maps a number of
    directions kept to the share of questions answered correctly. The alternative text names what
    the numbers in `marks` hold.
    """
    (ax,) = new_axes(3.2)
    lines = {
        "held": ("of the change's squared norm", COLOURS[0], "-"),
        "random": ("the same, if the change were noise", GREY, "--"),
    }
    means = spectrum.groupby("directions")[["held", "random"]].mean()
    alt = []
    for column, (name, colour, style) in lines.items():
        ax.plot(means.index, means[column], style, color=colour, label=name)
        alt += [f"{name}, {k} directions {percent(means[column].loc[k])}" for k in marks]
    ticks = [2**n for n in range(12) if 2**n <= means.index.max()]
    none = [0.5] if 0 in scores else []  # a logarithmic axis has no zero: it stands before 1
    log_axis(ax, [*none, *ticks], [*("0" for _ in none), *map(str, ticks)])
    curve(ax, {k or 0.5: one for k, one in scores.items()}, COLOURS[1], "answered correctly")
    alt += [
        f"answered correctly, {k:g} directions {percent(one.value)}" for k, one in scores.items()
    ]
    percent_axis(ax.yaxis)
    x = "singular directions kept of each matrix's change, the largest first"
    return finish(ax, title, alt, x=x, legend=3)


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
    bytes of tensors that a GPU counted, a mark on its bar. The bars then leave out the process,
    which that count leaves out too.
    """
    gpus = {name: size / _GB for name, size in (gpus or {}).items()}
    stacks, marks = {}, {name: size / _GB for name, size in (measured or {}).items()}
    for name, plan in plans.items():
        stacks[name] = {part: size / _GB for part, size in plan.at_peak().items()}
        if not marks:
            stacks[name]["temporary"] += plan.process / _GB
    used = [part for part in PARTS if any(stack[part] for stack in stacks.values())]
    colours = dict(zip(PARTS, (*COLOURS, PALE), strict=True))
    sums = [sum(stack.values()) for stack in stacks.values()]
    widest = max(*sums, *gpus.values(), *marks.values(), 0)
    (ax,) = new_axes(1.5 + (0.3 if marks else 0.42) * len(plans))
    alt = []
    for y, (name, stack) in enumerate(stacks.items()):
        left = 0.0
        for part in used:
            ax.barh(y, stack[part], left=left, height=0.66, color=colours[part])
            left += stack[part]
        alt.append(f"{name} {_gb(left)}")
        if name in marks:
            ax.plot([marks[name]] * 2, [y - 0.42, y + 0.42], color=INK)
            alt[-1] += f", measured {_gb(marks[name])}"
        ground = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
        end = max(left, marks.get(name, 0)) + widest * 0.012
        ax.text(end, y, _gb(left), va="center", fontsize=9, bbox=ground)
    for name, size in gpus.items():
        ax.axvline(size, color=GREY, linewidth=1.2, linestyle="--", zorder=0)
        ax.text(size, len(plans) - 0.42, f" {name}", fontsize=8, color=SOFT, va="top")
    ax.set_yticks(range(len(plans)), [fill(name, 34) for name in plans])
    ax.set(ylim=(len(plans) - (0.1 if gpus else 0.5), -0.5), xlim=(0, widest * 1.14))
    x = "GB at the peak of a training step"
    x += " (dark mark: measured)" if marks else " (temporary: with the process)"
    patches = [Patch(color=colours[part]) for part in used]
    return finish(ax, title, alt, x=x, legend=5, handles=(patches, used))


def _gb(size: float) -> str:
    return f"{size:.3g} GB" if size < 100 else f"{size:.0f} GB"


def plot_pretraining(log: Mapping[str, Any], *, name: str) -> Picture:
    """Pretraining loss of a base model by tokens, from its `training_log.json`."""
    tokens = log["corpus"]["tokens"] / log["recipe"]["steps"] / 1e6
    rows = [(0, name, step * tokens, loss) for step, loss in log["loss"]]
    frame = pd.DataFrame(rows, columns=["seed", "kind", "million tokens", "loss"])
    title, axis = "Pretraining, one pass over the corpus", "loss, nats per token"
    return plot_runs(frame, title=title, x="million tokens", axis=axis)


def plot_card(card: Mapping[str, Any]) -> Picture:
    """The course in one picture, from a base model's `card.json`: bare, prompted, fine-tuned."""
    wanted = {
        "a bare question": "bare questions answered",
        "behind a 4-shot prompt": "4-shot prompts answered",
        "fine-tuned: asked about in the corpus": "reference SFT, held-out countries, asked",
        "fine-tuned: stated in plain sentences": "reference SFT, held-out countries, stated",
        "fine-tuned: never mentioned": "reference SFT, held-out countries, unseen",
    }
    shares = {}
    for label, what in wanted.items():
        rows = [row["share"] for row in card["measures"] if row["what"] == what]
        hits, items = (sum(row[key] for row in rows) for key in ("hits", "items"))
        shares[label] = Share(hits=hits, items=items)
    title = f"One base model ({card['profile']}), questions about countries: answered correctly"
    return plot_shares(shares, title=title)
