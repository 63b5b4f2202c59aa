"""Plots of scores: bars, curves, methods. Each function returns a `Picture`.

All plots of the course share one grammar:

    bar or line    the mean of the seeds        dark line or band    its 95% interval
    white dots     the seeds, one by one        grey                 the base model, or a reference
"""

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from textwrap import fill

import pandas as pd
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from sftlab.measure import (
    ANSWERED,
    CONTINUED,
    OTHER,
    Components,
    Estimate,
    Share,
    detectable,
    percent,
)

# Okabe and Ito's colours, which stay distinct under the common kinds of colour blindness.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
INK, SOFT, GREY, PALE = "#222222", "#444444", "#8a8a8a", "#d8d8d8"
MEANING = {
    "training": COLOURS[0], "validation": COLOURS[5],
    ANSWERED: COLOURS[0], CONTINUED: COLOURS[1], OTHER: PALE,
    "learned": COLOURS[0], "read": "#9ecae9", "padding": PALE,
    "base": GREY, "before": GREY,
}  # fmt: skip
"""Names that have the same colour in every plot; other series take COLOURS in order."""
_STYLE = {
    "axes.titlelocation": "left", "axes.titlesize": 11, "axes.titlecolor": INK,
    "axes.labelsize": 9, "axes.labelcolor": SOFT,
    "axes.spines.top": False, "axes.spines.right": False,
    "xtick.labelsize": 9, "ytick.labelsize": 9, "xtick.major.size": 0, "ytick.major.size": 0,
    "xtick.minor.size": 0, "ytick.minor.size": 0,
    "lines.linewidth": 2, "lines.markersize": 4,
    "legend.frameon": False, "legend.fontsize": 9, "legend.borderaxespad": 0.1,
    "legend.handletextpad": 0.4, "legend.columnspacing": 1.2, "legend.handlelength": 1.4,
}  # fmt: skip
styled = rc_context(_STYLE)
"""Decorator of a function that draws: the style holds inside it and nowhere else."""
_DPI = 160
TITLE = 62  # characters that fit above axes whose labels take a third of the width


class Picture:
    """A finished figure with a sentence for those who cannot see it."""

    def __init__(self, figure: Figure, *, alt: str) -> None:
        self.figure = figure
        self.alt = alt

    def png(self) -> bytes:
        """The figure as PNG."""
        buffer = io.BytesIO()
        self.figure.set_dpi(_DPI)
        # `savefig` draws everything twice, the first time for the layout alone.
        FigureCanvasAgg(self.figure).print_png(buffer, pil_kwargs={"compress_level": 3})
        return buffer.getvalue()

    @property
    def html(self) -> str:
        """An `img` that holds the picture."""
        data = base64.b64encode(self.png()).decode()
        return f'<img alt="{escape(self.alt)}" src="data:image/png;base64,{data}">'

    def _repr_mimebundle_(self, include=None, exclude=None):
        width = int(self.figure.get_figwidth() * 100)
        data = {"image/png": self.png(), "text/plain": self.alt}
        return data, {"image/png": {"width": width}}

    def save(self, path: str | Path) -> Path:
        """Write the picture as PNG and return its path."""
        path = Path(path)
        path.write_bytes(self.png())
        return path


def new_axes(height: float, *, columns: int = 1, widths: Sequence[float] | None = None):
    """The axes, from left to right, of a new figure of the course's width."""
    figure = Figure(figsize=(7.2, height), layout="constrained", facecolor="white")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.08)
    return figure.subplots(1, columns, squeeze=False, width_ratios=widths)[0]


def colours_of(names: Sequence[str]) -> dict[str, str]:
    """A colour for each series: that of its MEANING, else the next one that is free."""
    free = [colour for colour in COLOURS if colour not in map(MEANING.get, names)]
    others = [name for name in names if name not in MEANING]
    return {name: MEANING.get(name) or free[others.index(name) % len(free)] for name in names}


def finish(ax, title: str, alt: Sequence[str], *, x="", y="", legend=0, handles=None) -> Picture:
    """Set title and labels, and above the axes a legend of `legend` columns (0: none)."""
    rows = 0
    if legend:
        handles, names = handles or ax.get_legend_handles_labels()
        rows = -(-len(names) // legend)
        place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": legend}
        # It may reach over the next panel, and must not squeeze this one.
        ax.legend(handles, names, handleheight=1, **place).set_in_layout(False)
    ax.set_title(fill(title, TITLE), pad=8 + 17 * rows)
    ax.set(xlabel=x, ylabel=y)
    return Picture(ax.figure, alt=f"{title}: {'; '.join(alt)}.")


def percent_axis(axis, high: float = 1.06) -> None:
    """An axis of shares, from 0% on."""
    axis.set_major_formatter(lambda share, _: f"{100 * share:.3g}%")
    axis.axes.set(**{f"{axis.axis_name}lim": (-0.03 * high, high)})


def log_axis(ax, ticks: Sequence[float], names: Sequence[str] | None = None) -> None:
    """A logarithmic x axis with exactly these ticks."""
    ax.set_xscale("log")
    ax.minorticks_off()
    ax.set_xticks(ticks, names or [f"{tick:,}" if tick >= 1 else f"{tick:.2g}" for tick in ticks])


def seed_dots(ax, x, y, colour: str = INK, size: float = 9) -> None:
    """White dots, one a seed."""
    ax.scatter(x, y, s=size, color="white", edgecolor=colour, linewidth=0.8, zorder=3)


def _bar(ax, found: Estimate | Share, y: float, height: float, colour: str, size: float) -> str:
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
    place = {"xytext": (6, 0), "textcoords": "offset points", "va": "center"}
    ax.annotate(text, (max(found.value, high, *seeds), y), fontsize=size, **place)
    return text


@styled
def plot_shares(
    shares: Mapping[str, Share | Estimate | Mapping[str, Share | Estimate]],
    *,
    title: str,
    axis: str = "answered correctly",
) -> Picture:
    """Bars of shares with their 95% intervals, and a dot for each seed of an estimate.

    `shares` maps a row label to a share, or to several shares by series name: then each row holds
    one bar per series. Rows are drawn from top to bottom in the order given.
    """
    rows = {k: v if isinstance(v, Mapping) else {"": v} for k, v in shares.items()}
    colours = colours_of(list(dict.fromkeys(name for row in rows.values() for name in row)))
    step = 0.82 / len(colours)
    (ax,) = new_axes(0.9 + len(rows) * (0.22 + 0.24 * len(colours)))
    alt = []
    for y, (label, row) in enumerate(rows.items()):
        for n, (name, colour) in enumerate(colours.items()):
            if name in row:
                at = y + (n - (len(colours) - 1) / 2) * step
                number = _bar(ax, row[name], at, step * 0.86, colour, 9)
                alt.append(f"{label} {name} {number}".replace("  ", " "))
    percent_axis(ax.xaxis, 1.09)
    ax.set_xlim(0, 1.09)
    ax.set_yticks(range(len(rows)), [fill(label, 34) for label in rows], fontsize=10)
    ax.invert_yaxis()
    every = [one for row in rows.values() for one in row.values()]
    seeds = "; dots: seeds" if any(getattr(one, "seeds", 1) > 1 for one in every) else ""
    patches = [Patch(color=colour, alpha=0.9) for colour in colours.values()]
    legend = {"legend": min(4, len(colours)), "handles": (patches, list(colours))}
    x = f"{axis} (line: 95% interval{seeds})"
    return finish(ax, title, alt, x=x, **(legend if len(colours) > 1 else {}))


@styled
def plot_reactions(frames: Mapping[str, pd.DataFrame], *, title: str) -> Picture:
    """What models do with questions: shares of continued, answered and other, stacked to 100%.

    `frames` maps a row label to a frame of `probe_questions`.
    """
    names = {
        ANSWERED: "answered correctly",
        CONTINUED: "continued with a question",
        OTHER: "anything else",
    }
    (ax,) = new_axes(1.0 + 0.5 * len(frames))
    alt = []
    for y, (label, frame) in enumerate(frames.items()):
        left = 0.0
        for reaction, name in names.items():
            value = float((frame["reaction"] == reaction).mean())
            ax.barh(y, value, left=left, color=MEANING[reaction], height=0.66)
            if value >= 0.06:
                style = {"color": "white" if reaction == ANSWERED else INK, "va": "center"}
                ax.text(left + value / 2, y, f"{value:.0%}", ha="center", **style)
            left += value
            alt.append(f"{label} {name} {value:.0%}")
    ax.set_yticks(range(len(frames)), list(frames), fontsize=10)
    ax.invert_yaxis()
    ax.set(xlim=(0, 1), xticks=[])
    ax.spines[["left", "bottom"]].set_visible(False)
    patches = [Patch(color=MEANING[reaction]) for reaction in names]
    return finish(ax, title, alt, legend=3, handles=(patches, list(names.values())))


def curve(ax, points: Mapping[float, Estimate | float], colour: str, label: str) -> None:
    """A line through the values at their places; estimates have a band and their seeds."""
    places = list(points)
    values = [getattr(one, "value", one) for one in points.values()]
    ax.plot(places, values, "o-", color=colour, label=label)
    estimates = {at: one for at, one in points.items() if isinstance(one, Estimate)}
    low, high = ([getattr(one, end) for one in estimates.values()] for end in ("low", "high"))
    ax.fill_between(list(estimates), low, high, color=colour, alpha=0.16, linewidth=0)
    for at, one in estimates.items():
        # Side by side on a logarithmic axis: equal seeds would hide one another.
        step = 1.03 if ax.get_xscale() == "log" else 1
        middle = (len(one.by_seed) - 1) / 2
        spread = [at * step ** (k - middle) for k in range(len(one.by_seed))]
        seed_dots(ax, spread, one.by_seed, colour)


@styled
def plot_curves(
    curves: Mapping[str, Mapping[float, Estimate | float]],
    *,
    title: str,
    x: str,
    y: str = "answered correctly",
    log: bool = True,
    best: Mapping[str, float] | None = None,
    marked: Sequence[float] = (),
    wanted: float | None = None,
) -> Picture:
    """Shares against a number such as a learning rate: a line each, with its band and its seeds.

    `curves` maps a name to places on the x axis and their shares; the numbers of a single curve
    are written next to its points. `best` maps a name to a place to mark with a ring; `marked` are
    places with a dotted line, `wanted` is a share with a dashed one.
    """
    (ax,) = new_axes(3.3)
    every = sorted({place for points in curves.values() for place in points})
    if log:
        log_axis(ax, every)
    else:
        ax.set_xticks(every)
    alt, top, estimates = [], 0.0, False
    for name, colour in colours_of(list(curves)).items():
        points = dict(sorted(curves[name].items()))
        curve(ax, points, colour, name)
        for at, one in points.items():
            value, estimate = getattr(one, "value", one), isinstance(one, Estimate)
            top, estimates = max(top, 1 if estimate else value), estimates or estimate
            alt.append(f"{name} at {at:,g} {percent(value)}".lstrip())
            if len(curves) == 1:
                # Below the curve, except where the axis would run through the number.
                offset = {"xytext": (10, -14 if value > 0.15 else 6), "fontsize": 9}
                ax.annotate(percent(value), (at, value), textcoords="offset points", **offset)
        if best and name in best:
            ring = {"markersize": 13, "fillstyle": "none", "markeredgewidth": 1.6}
            ax.plot(best[name], points[best[name]].value, "o", color=colour, **ring)
    for place in marked:
        ax.axvline(place, color=GREY, linewidth=1, linestyle=":")
    if wanted is not None:
        ax.axhline(wanted, color=GREY, linewidth=1.2, linestyle="--", zorder=0)
        ax.text(every[-1], wanted, percent(wanted), fontsize=9, va="bottom", ha="right")
    percent_axis(ax.yaxis, 1.06 * min(top or 1, 1))  # an axis needs a height, also for zeros
    legend = f" (band: 95% interval; dots: seeds{'; ring: its best' if best else ''})"
    return finish(ax, title, alt, x=x + legend * estimates, y=y, legend=5 if any(curves) else 0)


def plot_power(
    pilot: Components,
    *,
    title: str,
    seeds: Sequence[int] = (3, 5, 10, 20),
    entities: Sequence[int] = (10, 20, 50, 100, 200, 500),
    wanted: float | None = None,
) -> Picture:
    """The smallest difference that is detected four times in five, by entities and seeds.

    `wanted` is a difference to detect, drawn as a dashed line.
    """
    curves = {}
    for number in seeds:
        least = {many: detectable(pilot, seeds=number, entities=many) for many in entities}
        # No difference of shares is above 1: with so few seeds nothing can be detected.
        curves[f"{number} seeds"] = {many: one for many, one in least.items() if one <= 1}
    labels = {"x": "entities asked about", "y": "smallest difference detected"}
    return plot_curves(curves, title=title, wanted=wanted, **labels)


@styled
def plot_methods(
    scores: Mapping[str, Mapping[str, Estimate]], *, trained: Mapping[str, float], title: str
) -> Picture:
    """A row for each method, with the share of the weights that it trains and all that it scores.

    `scores` maps a method to its estimates by name, one panel each; `trained` maps it to the share
    of the weights. The method that trains the fewest stands on top.
    """
    order = sorted(scores, key=trained.__getitem__)
    panels = list(next(iter(scores.values())))
    first, *others = new_axes(1.2 + 0.36 * len(order), columns=1 + len(panels))
    alt = []
    for y, name in enumerate(order):
        share = trained[name]
        text = f"{100 * share:.2g}%" if share < 0.0995 else f"{share:.0%}"
        first.plot(share, y, "o", color=INK)
        style = {"xytext": (6, 0), "textcoords": "offset points", "va": "center", "fontsize": 8}
        first.annotate(text, (share, y), **style)
        alt.append(f"{name} trained {text}")
        for ax, panel, colour in zip(others, panels, COLOURS, strict=False):
            alt.append(f"{name} {panel} {_bar(ax, scores[name][panel], y, 0.6, colour, 8)}")
    log_axis(first, [0.001, 0.01, 0.1, 1], ["0.1%", "1%", "10%", "100%"])
    first.set(xlim=(min(trained.values()) / 3, 14), xlabel="weights trained")
    for ax, panel in zip(others, panels, strict=True):
        percent_axis(ax.xaxis, 1.28)
        ax.set(xticks=[0, 0.5, 1], xlabel=panel)
    for ax in (first, *others):
        ax.set_yticks(range(len(order)), order if ax is first else [])
        ax.tick_params(axis="x", labelsize=8)
        ax.set_ylim(len(order) - 0.5, -0.5)
        for y in range(1, len(order), 2):
            ax.axhspan(y - 0.5, y + 0.5, color="#f4f4f4", zorder=0, linewidth=0)
    first.figure.suptitle(
        f"{title}\nline: 95% interval; dots: seeds", x=0.01, ha="left", fontsize=11
    )
    return Picture(first.figure, alt=f"{title}: {'; '.join(alt)}.")
