"""Pictures of the lessons. Each function returns a `Picture`, which notebooks and pages show."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill

import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sftlab.measure import ANSWERED, CONTINUED, OTHER, Estimate, Share, percent

# Okabe and Ito's colours: told apart with the common kinds of colour blindness.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
GREY = "#8a8a8a"
DPI = 160
TITLE = 62  # characters that fit above axes whose labels take a third of the width


class Picture:
    """A finished figure with a sentence for those who cannot see it."""

    def __init__(self, figure: Figure, *, alt: str) -> None:
        self.figure = figure
        self.alt = alt

    def _png(self) -> bytes:
        buffer = io.BytesIO()
        self.figure.set(dpi=DPI, facecolor="white")
        # `savefig` draws everything twice, the first time for the layout alone.
        FigureCanvasAgg(self.figure).print_png(buffer, pil_kwargs={"compress_level": 3})
        return buffer.getvalue()

    def _repr_mimebundle_(self, include=None, exclude=None):
        width = int(self.figure.get_figwidth() * 100)
        data = {"image/png": self._png(), "text/plain": self.alt}
        return data, {"image/png": {"width": width}}

    def save(self, path: str | Path) -> Path:
        """Write the picture as PNG and return its path."""
        path = Path(path)
        path.write_bytes(self._png())
        return path


def _axes(width: float, height: float, *, columns: int = 1, widths: Sequence[float] | None = None):
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.08)
    axes = figure.subplots(1, columns, squeeze=False, width_ratios=widths)[0]
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(length=0)
    return figure, axes


Shares = Share | Estimate


def plot_shares(
    shares: Mapping[str, Shares | Mapping[str, Shares]],
    *,
    title: str,
    axis: str = "answered rightly",
) -> Picture:
    """Bars of shares with their 95% intervals, and a dot for each seed of an estimate.

    `shares` maps a row label to a share, or to several shares by series name: then each row holds
    one bar a series. Rows stand from top to bottom in the order given.
    """
    rows = {k: v if isinstance(v, Mapping) else {"": v} for k, v in shares.items()}
    series = list(dict.fromkeys(name for row in rows.values() for name in row))
    step = 0.82 / len(series)
    figure, (ax,) = _axes(7.2, 0.9 + len(rows) * (0.22 + 0.24 * len(series)))
    told, dots = [], False
    for y, (label, row) in enumerate(rows.items()):
        for n, name in enumerate(series):
            if name not in row:
                continue
            value, (low, high), seeds = row[name].value, *_spread(row[name])
            at = y + (n - (len(series) - 1) / 2) * step
            ax.barh(at, value, height=step * 0.86, color=COLOURS[n % len(COLOURS)], alpha=0.9)
            ax.plot([low, high], [at, at], color="#333333", linewidth=1.3, solid_capstyle="butt")
            # Beside each other across the bar: equal seeds would hide one another on its line.
            places = [at + step * 0.7 * ((k + 0.5) / len(seeds) - 0.5) for k in range(len(seeds))]
            ax.scatter(
                seeds, places, s=9, color="white", edgecolor="#222222", linewidth=0.7, zorder=3
            )
            dots = dots or bool(seeds)
            end = max(value, high, *seeds)
            ax.text(end + 0.015, at, percent(value), va="center", fontsize=9)
            told.append(f"{label} {name} {percent(value)}".replace("  ", " "))
    ax.set_yticks(range(len(rows)), [fill(label, 34) for label in rows], fontsize=10)
    ax.invert_yaxis()
    ax.set_xlim(0, 1.09)
    ax.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0%", "25%", "50%", "75%", "100%"], fontsize=9)
    legend = "line: 95% interval; dots: seeds" if dots else "line: 95% interval"
    ax.set_xlabel(f"{axis} ({legend})", fontsize=9, color="#444444")
    ax.set_title(fill(title, TITLE), loc="left", fontsize=11, pad=26 if len(series) > 1 else 8)
    if len(series) > 1:
        handles = [_swatch(n) for n in range(len(series))]
        ax.legend(
            handles, series, loc="lower left", bbox_to_anchor=(0, 1), ncols=min(4, len(series)),
            frameon=False, fontsize=9, borderaxespad=0.1, handlelength=1, handleheight=1,
        )  # fmt: skip
    return Picture(figure, alt=f"{title}: {'; '.join(told)}.")


def _spread(share: Shares) -> tuple[tuple[float, float], tuple[float, ...]]:
    """The interval, and the value of each seed where there are several."""
    if isinstance(share, Share):
        return share.interval, ()
    return (share.low, share.high), share.by_seed if share.seeds > 1 else ()


def _swatch(n: int):
    from matplotlib.patches import Patch

    return Patch(color=COLOURS[n % len(COLOURS)], alpha=0.9)


def plot_reactions(frames: Mapping[str, pd.DataFrame], *, title: str) -> Picture:
    """What models do with questions: shares of continued, answered and other, stacked to 100%.

    `frames` maps a row label to a frame of `probe_questions`.
    """
    colours = {ANSWERED: COLOURS[0], CONTINUED: COLOURS[1], OTHER: "#c8c8c8"}
    names = {
        ANSWERED: "answered rightly",
        CONTINUED: "continued with a question",
        OTHER: "anything else",
    }
    figure, (ax,) = _axes(7.2, 1.0 + 0.5 * len(frames))
    told = []
    for y, (label, frame) in enumerate(frames.items()):
        left = 0.0
        for reaction, colour in colours.items():
            value = float((frame["reaction"] == reaction).mean())
            ax.barh(y, value, left=left, color=colour, height=0.66)
            if value >= 0.06:
                dark = "white" if reaction == ANSWERED else "#222222"
                ax.text(left + value / 2, y, f"{value:.0%}", ha="center", va="center", color=dark)
            left += value
            told.append(f"{label} {names[reaction]} {value:.0%}")
    ax.set_yticks(range(len(frames)), list(frames), fontsize=10)
    ax.invert_yaxis()
    ax.set_xlim(0, 1)
    ax.set_xticks([])
    ax.spines[["left", "bottom"]].set_visible(False)
    ax.set_title(fill(title, TITLE), loc="left", fontsize=11, pad=26)
    from matplotlib.patches import Patch

    ax.legend(
        [Patch(color=c) for c in colours.values()], [names[r] for r in colours], loc="lower left",
        bbox_to_anchor=(0, 1), ncols=3, frameon=False, fontsize=9, borderaxespad=0.1,
        handlelength=1, handleheight=1,
    )  # fmt: skip
    return Picture(figure, alt=f"{title}: {'; '.join(told)}.")


def plot_loss(history: Sequence[Mapping[str, float]], *, title: str) -> Picture:
    """Training loss by step, with a running mean over about a tenth of the steps."""
    steps = [row["step"] for row in history]
    losses = pd.Series([row["loss"] for row in history])
    smooth = losses.rolling(max(1, len(losses) // 10), min_periods=1, center=True).mean()
    figure, (ax,) = _axes(7.2, 2.6)
    ax.plot(steps, losses, color=COLOURS[4], linewidth=1, alpha=0.6)
    ax.plot(steps, smooth, color=COLOURS[0], linewidth=2)
    ax.set_ylim(0, None)
    ax.set_xlabel("step", fontsize=9, color="#444444")
    ax.set_ylabel("loss, nats a supervised token", fontsize=9, color="#444444")
    ax.set_title(fill(title, TITLE), loc="left", fontsize=11)
    alt = f"{title}: from {losses.iloc[0]:.2f} at the first step to {smooth.iloc[-1]:.2f}."
    return Picture(figure, alt=alt)


def plot_pretraining(logs: Mapping[str, Mapping]) -> Picture:
    """Pretraining loss by tokens for each base model, from its `training_log.json`."""
    figure, (ax,) = _axes(7.2, 3.0)
    told = []
    for n, (name, log) in enumerate(logs.items()):
        tokens = log["corpus"]["tokens"] / log["recipe"]["steps"]
        steps, losses = zip(*log["loss"], strict=True)
        ax.plot([s * tokens / 1e6 for s in steps], losses, color=COLOURS[n], linewidth=1.6)
        label = f"{name}: {losses[-1]:.2f}"
        ax.plot([], [], color=COLOURS[n], linewidth=3, label=label)
        told.append(label)
    ax.set_ylim(0.5, 4)
    ax.legend(frameon=False, fontsize=9)
    ax.set_xlabel("million tokens read", fontsize=9, color="#444444")
    ax.set_ylabel("loss, nats a token", fontsize=9, color="#444444")
    ax.set_title("Pretraining, one pass over the corpus", loc="left", fontsize=11)
    return Picture(figure, alt=f"Pretraining loss at the end: {'; '.join(told)}.")


def plot_card(card: Mapping) -> Picture:
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
        shares[label] = Share(
            hits=sum(row["hits"] for row in rows), items=sum(row["items"] for row in rows)
        )
    title = f"One base model ({card['profile']}), questions about countries: answered rightly"
    return plot_shares(shares, title=title)
