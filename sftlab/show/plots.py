"""Plots of scores: bars and curves. Each function returns a `Picture`.

All plots of the course share one grammar:

    bar or line    the mean of the seeds        dark line or band    its 95% interval
    white dots     the seeds, one by one        colour               what `MEANING` says
"""

import base64
import io
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from html import escape
from math import isnan, log10
from pathlib import Path
from textwrap import fill
from typing import Any

import pandas as pd
from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from sftlab.measure import ANSWERED, CONTINUED, OTHER, Estimate, Share, percent

# Okabe and Ito's colours, which stay distinct under the common kinds of colour blindness.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
BLUE, ORANGE, GREEN, PINK, SKY, VERMILION = COLOURS
INK, SOFT, GREY, PALE = "#222222", "#444444", "#8a8a8a", "#d8d8d8"
OTHERS = ("#5B4BB5", "#8C6D31", "#2F8F8F", "#A23B5B", "#7C8A2E", "#B39DDB")
"""Series without a meaning take these in order."""
MEANING = {
    r"training": SKY, r"validation": PINK,
    r"wrong.*|.*\b(errors?|invalid|invented|made up|forgotten)\b.*": VERMILION,
    CONTINUED: VERMILION,
    r"kept|old skills|.*\bfacts": GREEN,
    r".*\b(prompt|(few|\d+)-shot)\b.*": ORANGE,
    r"(the )?base|base\b.*|before|untrained|zero-shot|noise|as it is": GREY, OTHER: PALE,
    r"full|task|.*\b((fine-)?tuned|trained)\b.*": BLUE, ANSWERED: BLUE,
    r"learned": BLUE, r"read": "#9ecae9", r"padding": PALE,
}  # fmt: skip
"""Pattern of a name -> its colour, the same in every figure of the course; the first counts."""
styled = style.context(Path(__file__).with_name("course.mplstyle"))
"""Decorator of a function that draws: the style holds inside it and nowhere else."""
TITLE = 62  # characters that fit above axes whose labels take a third of the width


CURVES = "application/vnd.sftlab.curves+json"
"""What a picture of curves is drawn from, beside the picture itself, for slides that replay it:
title, x, y (labels), ticks of x, log (of y), percent, series (name, colour, x, seeds x points)."""


class Picture:
    """A finished figure with a sentence for those who cannot see it, and the curves in it."""

    def __init__(self, figure: Figure, *, alt: str, curves: dict[str, Any] | None = None) -> None:
        self.figure, self.alt, self.curves = figure, alt, curves

    @cached_property
    def png(self) -> bytes:
        """The figure as PNG, drawn once: a second layout may differ by a pixel."""
        buffer = io.BytesIO()
        self.figure.savefig(buffer, dpi=160)
        return buffer.getvalue()

    @property
    def html(self) -> str:
        """An `img` that holds the picture."""
        data = base64.b64encode(self.png).decode()
        return f'<img alt="{escape(self.alt)}" src="data:image/png;base64,{data}">'

    def _repr_mimebundle_(self, include=None, exclude=None):
        options = {"width": int(self.figure.get_figwidth() * 100)}
        shown = {"image/png": self.png, "text/plain": self.alt}
        return shown | ({CURVES: self.curves} if self.curves else {}), {"image/png": options}

    def save(self, path: str | Path) -> None:
        """Write the picture as PNG."""
        Path(path).write_bytes(self.png)


def new_axes(height: float, widths: Sequence[float] = (1,)):
    """The axes, from left to right, of a new figure of the course's width."""
    figure = Figure(figsize=(7.2, height), layout="constrained", facecolor="white")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.08)
    return figure.subplots(1, len(widths), squeeze=False, width_ratios=widths)[0]


def colour_of(name: str) -> str | None:
    """The colour that a name has by its MEANING."""
    found = (colour for pattern, colour in MEANING.items() if re.fullmatch(pattern, name))
    return next(found, None)


def colours_of(names: Iterable[str]) -> dict[str, str]:
    """A colour for each series: that of its meaning, once, else the next of OTHERS."""
    made, others = {}, itertools.cycle(OTHERS)
    for name in names:
        colour = colour_of(name) or ("" if name else BLUE)
        made[name] = colour if colour and colour not in made.values() else next(others)
    return made


def finish(
    ax, title: str, alt: Sequence[str], *, x="", y="", legend=0, colours=None, curves=None
) -> Picture:
    """Set title and labels, and above the axes a legend of `legend` columns (0: none).

    `colours` maps the names in the legend to colours; by default it holds what was labelled.
    `curves` is what the picture carries as `CURVES`, without its labels.
    """
    rows = 0
    if legend:
        handles, names = ax.get_legend_handles_labels()
        if colours:
            handles, names = [Patch(color=one) for one in colours.values()], list(colours)
        rows = -(-len(names) // legend)
        place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": legend}
        # It may reach over the next panel, and must not squeeze this one.
        ax.legend(handles, names, handleheight=1, **place).set_in_layout(False)
    ax.set_title(fill(title, TITLE), pad=8 + 17 * rows)
    ax.set(xlabel=x, ylabel=y)
    curves = {"title": title, "x": x.partition(" (")[0], "y": y, **curves} if curves else None
    return Picture(ax.figure, alt=f"{title}: {'; '.join(alt)}.", curves=curves)


def one_curve(name: str, colour: str, x: Iterable[float], seeds: Iterable[Iterable[float]]) -> dict:
    """A series of `CURVES`: at most 60 of its points, four digits of each value."""
    x, seeds = list(x), [list(values) for values in seeds]
    kept = sorted({round(n * (len(x) - 1) / 59) for n in range(60)}) if x else []
    values = [[float(f"{one[n]:.4g}") for n in kept] for one in seeds]
    values = [[None if isnan(value) else value for value in one] for one in values]
    return {"name": name, "colour": colour, "x": [float(x[n]) for n in kept], "seeds": values}


def percent_axis(axis, high: float = 1.06, sign: str = "%") -> None:
    """An axis of shares, from 0% on, or of points (`sign=""`)."""
    axis.set_major_formatter(lambda share, _: f"{100 * share:.3g}{sign}")
    axis.axes.set(**{f"{axis.axis_name}lim": (-0.03 * high, high)})


def seed_dots(ax, x, y, colour: str = INK) -> None:
    """White dots, one a seed."""
    dot = {"s": 9, "color": "white", "edgecolor": colour, "linewidth": 0.8}
    ax.scatter(x, y, **dot, zorder=3, clip_on=False)


def note(ax, text: str, at: tuple[float, float], dx: float = 6, dy: float = 0, **style) -> None:
    """Text next to a place, `dx` and `dy` points away from it."""
    style = {"zorder": 5} | style  # no dot hides it
    ax.annotate(text, at, xytext=(dx, dy), textcoords="offset points", **style)


def stacked(ax, rows: pd.DataFrame, colours: Mapping[str, str]) -> None:
    """A bar for each row, from top to bottom, of all its columns, from left to right."""
    left = rows.cumsum(axis=1) - rows
    for part in rows:
        ax.barh(range(len(rows)), rows[part], left=left[part], height=0.66, color=colours[part])
    name_rows(ax, rows.index)


def name_rows(ax, names: Iterable[str]) -> None:
    """Name the rows of a plot of bars, which stand from top to bottom."""
    names = [fill(name, 34) for name in names]
    ax.set_yticks(range(len(names)), names, fontsize=10)
    ax.invert_yaxis()


def _bar(ax, found: Estimate | Share, y: float, height: float, colour: str) -> str:
    """A bar with its interval, seeds and number; returns the number as text."""
    estimate = isinstance(found, Estimate)
    low, high = (found.low, found.high) if estimate else found.interval
    seeds = found.by_seed if estimate and found.seeds > 1 else ()
    ax.barh(y, found.value, height=height, color=colour, alpha=0.9)
    ax.plot([low, high], [y, y], color=INK, linewidth=1.3, solid_capstyle="butt")
    # Spread across the bar: equal seeds would hide one another on its line.
    spread = [y + height * 0.8 * ((k + 0.5) / len(seeds) - 0.5) for k in range(len(seeds))]
    seed_dots(ax, seeds, spread)
    text = percent(found.value)
    # All numbers in one column, where none is taken for the end of an interval.
    ax.text(1.035, y, text, fontsize=9, va="center")
    return text


@styled
def plot_shares(
    shares: Mapping[str, Share | Estimate | Mapping[str, Share | Estimate]],
    *,
    title: str,
    axis: str = "accuracy",
) -> Picture:
    """Bars of shares with their 95% intervals, and a dot for each seed of an estimate.

    `shares` maps a row label to a share, or to several shares by series name, a bar each. A single
    bar has the colour of its row's meaning.
    """
    rows = {k: v if isinstance(v, Mapping) else {"": v} for k, v in shares.items()}
    colours = colours_of(list(dict.fromkeys(name for row in rows.values() for name in row)))
    step = 0.82 / len(colours)
    (ax,) = new_axes(0.9 + len(rows) * (0.22 + 0.24 * len(colours)))
    alt, seeds = [], ""
    for y, (label, row) in enumerate(rows.items()):
        for n, (name, colour) in enumerate(colours.items()):
            if name in row:
                at = y + (n - (len(colours) - 1) / 2) * step
                colour = colour if name else colour_of(label) or BLUE
                number = _bar(ax, row[name], at, step * 0.86, colour)
                alt.append(f"{label} {name} {number}".replace("  ", " "))
                seeds = "; dots: seeds" if getattr(row[name], "seeds", 1) > 1 else seeds
    percent_axis(ax.xaxis)
    ax.set_xlim(0, 1.01)
    name_rows(ax, rows)
    # A row of the legend holds some 72 characters, 5 of them before each name.
    fitting = max(1, 72 // (max(map(len, colours)) + 5))
    columns = min(4, len(colours), fitting) if len(colours) > 1 else 0
    x = f"{axis} (line: 95% interval{seeds})"
    return finish(ax, title, alt, x=x, legend=columns, colours=colours)


@styled
def plot_reactions(frames: Mapping[str, pd.DataFrame], *, title: str) -> Picture:
    """What models do with questions: shares of continued, answered and other, stacked to 100%.

    `frames` maps a row label to a frame of `probe_questions`.
    """
    names = {ANSWERED: "answered correctly", CONTINUED: "continued with a question"}
    names |= {OTHER: "anything else"}
    found = {label: frame["reaction"].value_counts() for label, frame in frames.items()}
    counts = pd.DataFrame(found).T.reindex(columns=list(names)).fillna(0)
    rows = counts.div(counts.sum(axis=1), axis=0)
    (ax,) = new_axes(1.0 + 0.5 * len(rows))
    meant = {reaction: MEANING[reaction] for reaction in names}
    stacked(ax, rows, meant)
    for reaction, bars in zip(rows, ax.containers, strict=True):
        numbers = [f"{share:.0%}" if share >= 0.06 else "" for share in rows[reaction]]
        colour = INK if reaction == OTHER else "white"
        ax.bar_label(bars, numbers, label_type="center", color=colour)
    alt = [f"{label} {names[k]} {v:.0%}" for label, row in rows.iterrows() for k, v in row.items()]
    ax.set(xlim=(0, 1), xticks=[])
    ax.spines[["left", "bottom"]].set_visible(False)
    colours = {name: meant[reaction] for reaction, name in names.items()}
    return finish(ax, title, alt, legend=3, colours=colours)


@styled
def plot_curves(
    curves: Mapping[str, Mapping[float, Estimate | float]],
    *,
    title: str,
    x: str,
    y: str = "accuracy",
    log: bool = True,
    best: Mapping[str, float] | None = None,
) -> Picture:
    """Shares against a number such as a learning rate: a line each, with its band and its seeds.

    `curves` maps a name to places on the x axis and their shares; the numbers of a single curve
    are written next to its points. `best` maps a name to a place to mark with a ring.
    """
    (ax,) = new_axes(3.3)
    sign = "" if "points" in y else "%"
    every = sorted({place for points in curves.values() for place in points})
    # A logarithmic axis has no zero: it stands before the first of the other places.
    zero = every[1] / 2 if log and not every[0] else 0
    ax.set_xscale("log" if log else "linear")
    ax.minorticks_off()
    names = [f"{place:,.10g}" if place >= 1 else f"{place:.2g}" for place in every]
    ax.set_xticks([place or zero for place in every], names)
    along = log10 if log else float  # where a place stands in a replay
    ticks = [[along(place or zero), name] for place, name in zip(every, names, strict=True)]
    alt, top, legend, series = [], 0.0, "", []
    for name, colour in colours_of(list(curves)).items():
        points = {at or zero: curves[name][at] for at in every if at in curves[name]}
        values = {at: getattr(one, "value", one) for at, one in points.items()}
        ax.plot(values.keys(), values.values(), "o-", color=colour, label=name)
        seeds = zip(*(getattr(one, "by_seed", [one]) for one in points.values()), strict=False)
        series.append(one_curve(name, colour, map(along, points), seeds))
        for at, value in zip(sorted(curves[name]), values.values(), strict=True):
            alt.append(f"{name} at {at:,g} {percent(value)}".lstrip())
        found = {at: one for at, one in points.items() if isinstance(one, Estimate)}
        top = max(top, 1 if found else 0, *values.values())
        if found:
            legend = f" (band: 95% interval; dots: seeds{'; ring: its best' if best else ''})"
            low, high = zip(*((one.low, one.high) for one in found.values()), strict=True)
            ax.fill_between(list(found), low, high, color=colour, alpha=0.16, linewidth=0)
        for at, one in found.items():
            # Side by side on a logarithmic axis: equal seeds would hide one another.
            step, middle = 1.03 if log else 1, (len(one.by_seed) - 1) / 2
            spread = [at * step ** (k - middle) for k in range(len(one.by_seed))]
            seed_dots(ax, spread, one.by_seed, colour)
        for at, value in values.items() if len(curves) == 1 else ():
            # Below the curve, except where the axis would run through the number.
            number = percent(value).replace("%", sign)
            note(ax, number, (at, value), 10, -14 if value > 0.15 else 6, fontsize=9)
        if best and name in best:
            ring = {"markersize": 13, "fillstyle": "none", "markeredgewidth": 1.6}
            at = best[name] or zero
            ax.plot(at, values[at], "o", color=colour, **ring)
    percent_axis(ax.yaxis, 1.06 * min(top or 1, 1), sign)  # an axis needs a height, also for zeros
    drawn = {"ticks": ticks, "percent": sign == "%", "series": series}
    return finish(ax, title, alt, x=x + legend, y=y, legend=5 if any(curves) else 0, curves=drawn)


def plot_card(card: Mapping[str, Any]) -> Picture:
    """The course in one picture, from a `card.json`: zero-shot, prompted, fine-tuned."""
    wanted = {
        "zero-shot": "zero-shot questions answered",
        "with a 4-shot prompt": "4-shot prompts answered",
        "fine-tuned: asked about in the corpus": "reference SFT, held-out countries, asked",
        "fine-tuned: stated in plain sentences": "reference SFT, held-out countries, stated",
        "fine-tuned: never mentioned": "reference SFT, held-out countries, unseen",
    }
    shares = pd.DataFrame(row["share"] | {"what": row["what"]} for row in card["measures"])
    sums = shares.groupby("what")[["hits", "items"]].sum()
    rows = {label: Share(**sums.loc[what].to_dict()) for label, what in wanted.items()}
    title = f"One base model ({card['profile']}), accuracy on questions about countries"
    return plot_shares(rows, title=title)
