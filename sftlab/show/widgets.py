"""The decision guide as a form, as a card and as a table; card and table need no kernel."""

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

import ipywidgets as widgets
from IPython.display import HTML

from sftlab.course import CHOICES, TASKS, Advice, Limits, Situation, decide

# Colours of the notebook's theme. Where it has none, ink and ground are both set, because the
# page around may be light or dark.
_INK, _SOFT = "var(--jp-ui-font-color1, #222)", "var(--jp-ui-font-color2, #555)"
_GROUND = "var(--jp-layout-color1, #fff)"
_LINE = "var(--jp-border-color2, #bdbdbd)"
_TEXT = f"color:{_INK};background:{_GROUND};line-height:1.45;overflow-wrap:break-word"
_CELL = f"text-align:left;vertical-align:top;padding:.4em .6em;border-bottom:1px solid {_LINE}"

# field -> label; a field's name stands in the reasons, so the form shows it too
_LABELS = {
    "task": "What must the answers show? (task)",
    "examples": "Clean, checked examples; for reasoning, with every step (examples)",
    "prompt_score": "Score of the best prompt so far (prompt_score)",
    "needed_score": "Score that the task needs (needed_score)",
    "prompt_fits": "Is that prompt short enough for latency and price? (prompt_fits)",
    "stable_weeks": "How often does the task change? (stable_weeks)",
    "base_knows": "Does the base complete the facts that answers need? (base_knows)",
    "model_billions": "Base to train, billions of parameters (model_billions)",
    "memory_gb": "GPU memory for training (memory_gb)",
}
_EXAMPLES = (0, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 50_000)
_WEEKS = {1: "every week", 4: "every 4 weeks", 13: "every 13 weeks", 52: "once a year"}
_BASES = {0.0037: "0.0037 (tiny)", 0.0057: "0.0057 (small)", 0.135: "0.135", 0.6: "0.6", 1: "1",
          3: "3", 8: "8", 13: "13", 70: "70"}  # fmt: skip
_MEMORY = {0: "none: CPU only", 6: "6 GB", 12: "12 GB", 16: "16 GB", 24: "24 GB", 48: "48 GB",
           80: "80 GB"}  # fmt: skip

_OPEN = "open"  # a menu can't show a choice whose value is None: it looks empty


def decision_card(case: Advice | Situation, *, limits: Limits | None = None) -> HTML:
    """An advice as a static card: choice, reasons, next steps, and what would change it.

    `limits` holds for a situation; an advice brings its own.
    """
    advice = case if isinstance(case, Advice) else decide(case, limits=limits)
    return HTML(_card(advice))


def _card(advice: Advice) -> str:
    flips = [str(change) for change in advice.would_change]
    parts = (
        ("Why", "ul", advice.reasons),
        ("Next steps", "ol", advice.next_steps),
        ("What would change this", "ul", flips or ["No single answer changes it."]),
    )
    body = "".join(
        f'<p style="margin:.7em 0 .15em"><strong>{title}</strong></p>{_list(tag, items)}'
        for title, tag, items in parts
    )
    return (
        f'<div role="region" aria-label="Advice" style="{_TEXT};max-width:46em;padding:.7em 1em;'
        f"border:1px solid {_LINE};border-left:5px solid var(--jp-brand-color1, #1976d2);"
        'border-radius:4px;box-sizing:border-box">'
        f'<p style="margin:0;font-size:1.25em"><strong>{_title(advice.choice)}</strong></p>'
        f'<p style="margin:.2em 0 0">{escape(CHOICES[advice.choice])} '
        f'<span style="color:{_SOFT}">(rule {advice.rule})</span></p>{body}</div>'
    )


def _title(choice: str) -> str:
    return escape(choice[0].upper() + choice[1:])


def _list(tag: str, items: Iterable[str]) -> str:
    rows = "".join(f"<li>{escape(item)}</li>" for item in items)
    return f'<{tag} style="margin:0;padding-left:1.5em">{rows}</{tag}>'


def decision_table(
    situations: Mapping[str, Situation], *, limits: Limits | None = None, flips: int = 2
) -> HTML:
    """Named situations and their advice in a static table.

    Each row has the reason that decided and the first `flips` answers that would change it.
    """
    heads = ("Situation", "Advice", "What decided", "What would change it")
    head = "".join(f'<th scope="col" style="{_CELL}">{name}</th>' for name in heads)
    rows = []
    for name, situation in situations.items():
        advice = decide(situation, limits=limits)
        changes = "<br>".join(escape(str(change)) for change in advice.would_change[:flips])
        rows.append(
            f'<tr><th scope="row" style="{_CELL};min-width:9em">{escape(name)}</th>'
            f'<td style="{_CELL}"><strong>{_title(advice.choice)}</strong></td>'
            f'<td style="{_CELL};min-width:14em">{escape(advice.reasons[0])}</td>'
            f'<td style="{_CELL};min-width:12em">{changes or "no single answer"}</td></tr>'
        )
    return HTML(
        # A focusable box, so that a narrow screen can scroll the table by keyboard too.
        f'<div role="region" aria-label="Advice for each situation" tabindex="0" '
        f'style="{_TEXT};overflow-x:auto;max-width:62em">'
        '<table style="color:inherit;font-size:inherit;border-collapse:collapse;margin:0">'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


class DecisionGuide(widgets.VBox):
    """A form whose answers update the card below it; needs a running kernel.

    `controls` maps a field of `Situation` to its control; `situation` and `advice` follow them.
    A score has a box for its number in `measured`: without the tick the score is `None`.
    """

    def __init__(self, situation: Situation, *, limits: Limits | None = None) -> None:
        self.limits = limits
        self.controls = _controls(situation)
        self.measured = {
            name: _wide(
                widgets.Checkbox, value=getattr(situation, name) is not None, indent=False,
                description=f"{name} is {word}",
            )
            for name, word in (("prompt_score", "measured"), ("needed_score", "decided"))
        }  # fmt: skip
        self.card = widgets.HTML(layout=_layout())
        rows = []
        for name, control in self.controls.items():
            label = widgets.HTML(f"<strong>{escape(_LABELS[name])}</strong>", layout=_layout())
            box = [self.measured[name]] if name in self.measured else []
            rows.append(widgets.VBox([label, *box, control], layout=_layout()))
        for control in (*self.controls.values(), *self.measured.values()):
            control.observe(self._update, names="value")
        super().__init__([*rows, self.card], layout=_layout(max_width="46em"))
        self._update()

    @property
    def situation(self) -> Situation:
        """The situation that the controls describe."""
        values: dict[str, Any] = {
            name: None if control.value == _OPEN else control.value
            for name, control in self.controls.items()
        }
        for name, box in self.measured.items():
            if not box.value:
                values[name] = None
        return Situation(**values)

    @property
    def advice(self) -> Advice:
        """The advice for it."""
        return decide(self.situation, limits=self.limits)

    def _update(self, change: Any = None) -> None:
        for name, box in self.measured.items():
            self.controls[name].disabled = not box.value
        self.card.value = _card(self.advice)


def decision_guide(
    situation: Situation | None = None, *, limits: Limits | None = None
) -> DecisionGuide:
    """The decision guide as a form that answers at once.

    A widget is lost without a kernel: show `decision_card` or `decision_table` beside it.

    Args:
        situation: the answers to start with; by default nothing is measured yet.
        limits: thresholds other than the course's.
    """
    start = situation or Situation(task="format", examples=200, needed_score=0.9)
    return DecisionGuide(start, limits=limits)


def _layout(**more: str) -> widgets.Layout:
    # shrinks with a narrow screen; without the margin a full-width control overflows its box
    return widgets.Layout(**{"width": "auto", "max_width": "100%"} | more)


def _wide(kind: type, **settings: Any) -> Any:
    return kind(layout=_layout(), style={"description_width": "initial"}, **settings)


def _options(words: Mapping[float, str], own: float) -> list[tuple[str, float]]:
    """Choices as (word, value), with the situation's own value among them."""
    values = sorted({*words, own})
    return [(words.get(value, f"{value:,g}"), value) for value in values]


def _controls(s: Situation) -> dict[str, widgets.ValueWidget]:
    def pick(kind: type, options: list[tuple[str, Any]], name: str) -> Any:
        return _wide(kind, options=options, value=getattr(s, name))

    def score(name: str, start: float) -> Any:
        value = getattr(s, name)
        # ranges from 0 to 1; two digits are shown, and a finer value is kept
        return _wide(widgets.FloatSlider, min=0, max=1, step=0.01, readout_format=".2f",
                     value=start if value is None else value)  # fmt: skip

    slider, menu = widgets.SelectionSlider, widgets.Dropdown
    counts = _options({size: f"{size:,}" for size in _EXAMPLES}, s.examples)
    yes_no = [("yes", True), ("no", False)]
    return {
        "task": pick(menu, [(words, task) for task, words in TASKS.items()], "task"),
        "examples": pick(slider, counts, "examples"),
        "needed_score": score("needed_score", 0.9),
        "prompt_score": score("prompt_score", 0.5),
        "prompt_fits": pick(menu, yes_no, "prompt_fits"),
        "stable_weeks": pick(menu, _options(_WEEKS, s.stable_weeks), "stable_weeks"),
        "base_knows": _wide(
            menu,
            options=[("not measured", _OPEN), *yes_no],
            value=_OPEN if s.base_knows is None else s.base_knows,
        ),
        "model_billions": pick(menu, _options(_BASES, s.model_billions), "model_billions"),
        "memory_gb": pick(menu, _options(_MEMORY, s.memory_gb), "memory_gb"),
    }
