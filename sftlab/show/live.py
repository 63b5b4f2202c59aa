"""The loss while a run goes: a plot that is redrawn, and stays when the run is over.

    with LossCurve(title="A fine-tune") as curve:
        run = finetune(..., eval_dataset=held_out, on_step=curve)

Executed notebooks, their pages and their slides show the last state as a picture.
"""

import time
from collections.abc import Mapping

from sftlab.show.plots import Picture
from sftlab.show.run_plots import plot_loss

_PAUSE = 0.5
"""Seconds from one drawing to the next, at least."""
_SHARE = 0.1
"""Of the run's time that drawing may take, at most."""


class LossCurve:
    """Collects the rows of `finetune(..., on_step=curve)` and plots them; see the module."""

    def __init__(self, *, title: str) -> None:
        self._title = title
        self._steps: list[Mapping[str, float]] = []
        self._validation: list[tuple[float, float]] = []
        self._display = None
        self._due = 0.0

    def __call__(self, row: Mapping[str, float]) -> None:
        """Take a row: of a step, or of a measurement on validation examples."""
        if "eval_loss" in row:
            self._validation.append((row["step"], row["eval_loss"]))
        else:
            self._steps.append(row)
        began = time.monotonic()
        if self._display and self._steps and began >= self._due:
            self._display.update(self.picture())
            now = time.monotonic()
            self._due = now + max(_PAUSE, (now - began) / _SHARE)

    def __enter__(self) -> "LossCurve":
        from IPython import get_ipython
        from IPython.display import Markdown, display

        if getattr(get_ipython(), "kernel", None):  # nothing else can redraw
            self._display = display(Markdown("Waiting for the first step."), display_id=True)
        return self

    def __exit__(self, *error: object) -> None:
        if self._display and self._steps:
            self._display.update(self.picture())
        self._display = None

    def picture(self) -> Picture:
        """The steps so far.

        Raises:
            ValueError: there is no step yet.
        """
        if not self._steps:
            raise ValueError("there is no step yet: pass this curve to finetune as on_step")
        return plot_loss(self._steps, title=self._title, validation=self._validation, rate=True)

    def _repr_mimebundle_(self, include=None, exclude=None):
        return self.picture()._repr_mimebundle_(include, exclude)
