"""One panel of a claim's card: the effect of a part, every seed of it, and the rule."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from sftlab.course import CONTRADICTED, INCONCLUSIVE, SUPPORTED, UNITS, Part
from sftlab.measure import Estimate
from sftlab.show.plots import COLOURS, GREY

# Darker than the palette's, so that words in them are read on white.
VERDICT_COLOURS = {SUPPORTED: "#00694a", CONTRADICTED: "#a83a00", INCONCLUSIVE: "#775500"}
INK, SOFT = "#1c2128", "#57606a"
WIDTH = 7.2  # inches: 720 px in a page
MARGIN = 0.1
DOT = 6.0  # points: the width of a seed's dot
LINE = {11: 0.2, 9: 0.165}  # inches a line of text takes, by its size in points
CHARACTERS = {11: 78, 9: 98}  # that fit the card's width


@dataclass(frozen=True)
class Panel:
    """One part, with what must be known before the card's height is."""

    part: Part
    estimate: Estimate
    limits: tuple[float, float]
    rows: tuple[int, ...]

    @property
    def measures(self) -> list[str]:
        return textwrap.wrap(self.part.measures, CHARACTERS[9] - 22)

    @property
    def plot_height(self) -> float:
        """Inches: the bound's words, the rows of seeds, the interval."""
        return (16 + 14 + (max(self.rows) + 1) * (DOT + 1.5)) / 72

    @property
    def height(self) -> float:
        return LINE[9] * (1 + len(self.measures)) + self.plot_height + 0.52


def make_panel(part: Part, estimate: Estimate) -> Panel:
    limits = _limits(part, estimate)
    # 0.94 of the card's width, in points
    dot = (DOT + 1) * (limits[1] - limits[0]) / (0.94 * WIDTH * 72)
    return Panel(part, estimate, limits, _stack(estimate.by_seed, dot))


def _stack(values: Sequence[float], width: float) -> tuple[int, ...]:
    """The lowest row for each value in which no dot of that width touches another."""
    rows: list[list[float]] = []
    found = {}
    for index in sorted(range(len(values)), key=lambda i: values[i]):
        value = values[index]
        row = next((n for n, r in enumerate(rows) if value - r[-1] >= width), len(rows))
        if row == len(rows):
            rows.append([])
        rows[row].append(value)
        found[index] = row
    return tuple(found[index] for index in range(len(values)))


def _limits(part: Part, estimate: Estimate) -> tuple[float, float]:
    """What the axis spans: all that was measured, the bound, and zero for a difference."""
    shown = [estimate.low, estimate.high, *estimate.inner, *estimate.by_seed, part.bound]
    if part.kind == "within":
        shown.append(-part.bound)
    if part.unit not in ("share", "ratio"):
        shown.append(0.0)
    low, high = min(shown), max(shown)
    least = {"share": 0.2, "difference of shares": 0.2}.get(part.unit, 0.2 * max(abs(high), 1e-9))
    room = max(0.1 * (high - low), (least - (high - low)) / 2)
    low, high = low - room, high + room
    lowest, highest = UNITS[part.unit]
    edge = 0.02 * (high - low)  # a dot on the edge stays whole
    return max(low, lowest - edge), min(high, highest + edge)


def draw_panel(ax: Axes, panel: Panel) -> None:
    part, estimate, (left, right) = panel.part, panel.estimate, panel.limits
    top = panel.plot_height * 72  # one unit of y is one point
    ax.set_xlim(left, right)
    ax.set_ylim(0, top)
    ax.set_yticks([])
    ax.spines[["left", "right", "top"]].set_visible(False)
    ax.tick_params(length=3, labelsize=9, colors=SOFT)
    if left < 0 < right and part.unit != "share":
        ax.axvline(0, ymax=1 - 15 / top, color=GREY, linewidth=0.8, zorder=1)  # below the words
    _draw_rule(ax, part, left, right, top)
    colour = COLOURS[0]
    ax.plot([estimate.low, estimate.high], [9, 9], color=colour, linewidth=1.8, zorder=4,
            solid_capstyle="butt", gid="interval")  # fmt: skip
    if part.kind == "within":  # the one that decides
        ax.plot(estimate.inner, [9, 9], color=colour, linewidth=4.5, zorder=4,
                solid_capstyle="butt", gid="inner")  # fmt: skip
    ax.plot([estimate.value], [9], "D", color=colour, markersize=6.5, zorder=5,
            markeredgecolor="white", markeredgewidth=0.8)  # fmt: skip
    ax.plot(
        estimate.by_seed, [18 + DOT / 2 + row * (DOT + 1.5) for row in panel.rows], "o",
        color=COLOURS[1], markersize=DOT - 0.8, markeredgecolor="#7a5200", markeredgewidth=0.6,
        zorder=5, linestyle="none", gid="seeds", clip_on=False,
    )  # fmt: skip
    ax.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 2.5, 5, 10]))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value, part.unit)))
    ax.set_xlabel(_axis(part), fontsize=9, color=SOFT, labelpad=2)


def _draw_rule(ax: Axes, part: Part, left: float, right: float, top: float) -> None:
    """The side that counts, shaded up to its line, with the rule in words above the seeds."""
    ends = {"at_least": (part.bound, right), "at_most": (left, part.bound),
            "within": (-part.bound, part.bound)}[part.kind]  # fmt: skip
    ax.axvspan(*ends, color=COLOURS[2], alpha=0.13, linewidth=0, zorder=0)
    lines = ends if part.kind == "within" else (part.bound,)
    for line in lines:
        ax.axvline(line, color=COLOURS[2], linewidth=1.3, linestyle=(0, (4, 2)), zorder=2)
    # Written from the line towards the wider side: there it fits, whatever the line's place.
    wider = right if right - part.bound >= part.bound - left else left
    start = part.bound
    if part.kind == "within":
        near, far = sorted((part.bound, -part.bound), key=lambda line: abs(wider - line))
        # Beside the two lines where there is room for it, so that it crosses neither.
        start = near if abs(wider - near) > 0.4 * (right - left) else far
    ax.annotate(
        part.asks, (start, top), xytext=(4 if wider == right else -4, -1),
        textcoords="offset points", ha="left" if wider == right else "right", va="top",
        fontsize=9, color=VERDICT_COLOURS[SUPPORTED], annotation_clip=False, parse_math=False,
    )  # fmt: skip


def _tick(value: float, unit: str) -> str:
    if unit in ("share", "relative difference"):
        return f"{100 * value:.3g}%".replace("-", "−")
    if unit == "difference of shares":
        return f"{100 * value + 0.0:+.3g}".replace("-", "−") if abs(value) > 1e-12 else "0"
    return f"{value + 0.0:.3g}".replace("-", "−")


def _axis(part: Part) -> str:
    words = {"difference of shares": "difference, percentage points", "share": "share"}
    shown = "thick line: two one-sided tests" if part.kind == "within" else "line: interval"
    return f"{words.get(part.unit, part.unit)}  (dots: seeds; {shown})"
