"""The loss while a run goes: a widget that is redrawn, and becomes a picture when the run is over.

    loss            |\\   .                       thin: each step, thick: a running mean,
                    | \\_____ o_____ o            dots: validation
    learning rate   |/------\\______

    with LossCurve(title="A fine-tune") as curve:
        run = finetune(..., eval_dataset=held_out, on_step=curve)

The widget is a drawing in SVG, which costs a millisecond; the picture is drawn once, at the end. It
takes the widget's place, so that an executed notebook, its page and its slides show the same.
"""

import sys
import time
from collections.abc import Mapping, Sequence
from html import escape
from textwrap import fill

import pandas as pd
from matplotlib.figure import Figure

from sftlab.show.plots import COLOURS, TITLE, Picture

PAUSE = 0.25
"""Seconds from one drawing of the widget to the next, at least."""
POINTS = 300
"""Points of a line in the widget, at most; the picture has all."""
WIDTH, LEFT, RIGHT = 720, 54, 12
PANELS = ((34, 196), (226, 292))
"""Top and bottom of loss and learning rate, in pixels."""


class LossCurve:
    """Collects the rows of `finetune(..., on_step=curve)` and shows them; see the module."""

    def __init__(self, *, title: str) -> None:
        self._title = title
        self._steps: list[Mapping[str, float]] = []
        self._measured: list[Mapping[str, float]] = []
        self._widget = self._handle = None
        self._drawn = float("-inf")

    def __call__(self, row: Mapping[str, float]) -> None:
        """Take a row: of a step, or of a measurement on validation."""
        (self._measured if "eval_loss" in row else self._steps).append(row)
        if self._widget and time.monotonic() - self._drawn >= PAUSE:
            self._widget.value = self._drawing()
            self._drawn = time.monotonic()

    def __enter__(self) -> "LossCurve":
        shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
        if getattr(shell, "kernel", None):  # elsewhere nothing can be redrawn
            import ipywidgets
            from IPython.display import display

            self._widget = ipywidgets.HTML("waiting for the first step")
            self._handle = display(self._widget, display_id=True)
        return self

    def __exit__(self, *error: object) -> None:
        if self._widget:
            from IPython.display import HTML

            self._handle.update(self.picture() if self._steps else HTML("no step was made"))
            self._widget.close()
            self._widget = self._handle = None

    def picture(self) -> Picture:
        """What there is so far.

        Raises:
            ValueError: there is no step yet.
        """
        if not self._steps:
            raise ValueError("there is no step yet; give this curve to finetune as on_step")
        figure = Figure(figsize=(7.2, 3.4), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.1, h_pad=0.08)
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(5, 2))
        for ax in (upper, lower):
            ax.spines[["top", "right"]].set_visible(False)
            ax.tick_params(length=0, labelsize=9)
        steps, losses = self._column("step"), self._column("loss")
        upper.plot(steps, losses, color=COLOURS[4], linewidth=1, alpha=0.6, label="each step")
        upper.plot(steps, _mean(losses), color=COLOURS[0], linewidth=2, label="running mean")
        if self._measured:
            places, found = zip(*self._points(), strict=True)
            upper.plot(places, found, "o-", color=COLOURS[5], linewidth=1, markersize=5,
                       clip_on=False, label="validation")  # fmt: skip
        upper.set_ylim(0, None)
        upper.legend(frameon=False, fontsize=9)
        upper.set_ylabel("loss, nats", fontsize=9, color="#444444")
        lower.plot(steps, self._column("learning_rate"), color="#444444", linewidth=1.2)
        lower.set_ylim(0, None)
        lower.ticklabel_format(axis="y", style="sci", scilimits=(0, 0), useMathText=True)
        lower.yaxis.get_offset_text().set_fontsize(8)
        lower.set_ylabel("rate", fontsize=9, color="#444444")
        lower.set_xlabel("step", fontsize=9, color="#444444")
        upper.set_title(fill(self._title, TITLE), loc="left", fontsize=11)
        return Picture(figure, alt=self._alt())

    def _repr_mimebundle_(self, include=None, exclude=None):
        return self.picture()._repr_mimebundle_(include, exclude)

    def _column(self, name: str) -> list[float]:
        return [row[name] for row in self._steps]

    def _points(self) -> list[tuple[float, float]]:
        return [(row["step"], row["eval_loss"]) for row in self._measured]

    def _alt(self) -> str:
        losses = self._column("loss")
        text = (
            f"{self._title}: loss from {losses[0]:.3g} at the first step to "
            f"{_mean(losses)[-1]:.3g} at step {self._steps[-1]['step']}"
        )
        if self._measured:
            found = [loss for _, loss in self._points()]
            text += f"; validation loss {found[0]:.3g} at first, {found[-1]:.3g} at last"
        return text + "."

    def _drawing(self) -> str:
        """The same as SVG."""
        if not self._steps:
            return "waiting for the first step"
        steps, losses = self._column("step"), self._column("loss")
        rates = self._column("learning_rate")
        found = self._points()
        last = max(steps[-1], 2)
        top = max([value for value in (*losses, *(y for _, y in found)) if value < 1e9] or [1])
        loss = _Panel(*PANELS[0], last=last, top=1.05 * top or 1)
        rate = _Panel(*PANELS[1], last=last, top=1.15 * max(rates) or 1)
        dots = "".join(
            f'<circle cx="{loss.x(x):.1f}" cy="{loss.y(y):.1f}" r="4" fill="{COLOURS[5]}"/>'
            for x, y in found
        )
        said = f"step {steps[-1]}: loss {losses[-1]:.3f}, rate {rates[-1]:.2e}"
        if found:
            said += f", validation {found[-1][1]:.3f}"
        return (
            f'<svg role="img" aria-label="{escape(self._alt())}" viewBox="0 0 {WIDTH} 322" '
            'style="background:#fff;max-width:720px" font-family="sans-serif" font-size="12" '
            'fill="#444">'
            f'<text x="{LEFT}" y="18" font-size="14" fill="#222">{escape(self._title)}</text>'
            f'<text x="{WIDTH - RIGHT}" y="18" text-anchor="end">{escape(said)}</text>'
            f"{loss.frame(f'{top:.2g}')}{rate.frame(f'{max(rates):.1e}')}"
            f'<text x="4" y="{PANELS[0][0] + 26}">loss</text>'
            f'<text x="4" y="{PANELS[1][0] + 26}">rate</text>'
            f"{loss.line(steps, losses, COLOURS[4], 1)}"
            f"{loss.line(steps, _mean(losses), COLOURS[0], 2)}{dots}"
            f"{rate.line(steps, rates, '#444', 1.2)}"
            f'<text x="{LEFT}" y="312">1</text><text x="{WIDTH / 2}" y="312">step</text>'
            f'<text x="{WIDTH - RIGHT}" y="312" text-anchor="end">{last}</text></svg>'
        )


def _mean(losses: Sequence[float]) -> list[float]:
    """A running mean over about a tenth of the steps, as in `plot_loss`."""
    window = max(1, len(losses) // 10)
    return pd.Series(losses).rolling(window, min_periods=1, center=True).mean().tolist()


class _Panel:
    """Axes in pixels: steps from 1 to the last, values from zero to the top."""

    def __init__(self, above: float, below: float, *, last: float, top: float) -> None:
        self._above, self._below, self._last, self._top = above, below, last, top

    def x(self, step: float) -> float:
        return LEFT + (step - 1) / (self._last - 1) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return self._below - min(value / self._top, 1) * (self._below - self._above)

    def frame(self, top: str) -> str:
        return (
            f'<path d="M{LEFT} {self._above}V{self._below}H{WIDTH - RIGHT}" fill="none" '
            f'stroke="#888"/><text x="{LEFT - 4}" y="{self._above + 10}" text-anchor="end">{top}'
            f'</text><text x="{LEFT - 4}" y="{self._below}" text-anchor="end">0</text>'
        )

    def line(
        self, steps: Sequence[float], values: Sequence[float], colour: str, width: float
    ) -> str:
        # The last is always among them; what is not a number (a diverged run) leaves a gap.
        every = -(-len(steps) // POINTS)
        chosen = [n for n in range(len(steps)) if (len(steps) - 1 - n) % every == 0]
        points = " ".join(
            f"{self.x(steps[n]):.1f},{self.y(values[n]):.1f}"
            for n in chosen
            if values[n] == values[n]
        )
        return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="{width}"/>'
