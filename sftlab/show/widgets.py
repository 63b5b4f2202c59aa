"""Widgets: the decision guide and the mask explorer.

Both need a running kernel, and show a static twin where there is none: their output holds both.
They work with ipywidgets 7.7 (which Colab has) and 8.
"""

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets as widgets
from markupsafe import Markup

from sftlab.chat import FAMILIES, IGNORED, Messages
from sftlab.course import ARCHETYPES, CHOICES, TASKS, Advice, Situation, decide
from sftlab.show.cards import Card, table
from sftlab.show.mask import Token, Xray, show_mask

WHOLE = {"width": "auto", "max_width": "100%"}  # shrinks with a narrow screen
WIDE = {"layout": WHOLE, "style": {"description_width": "initial"}}


class TwinBox(widgets.VBox):
    """Rows of controls above a panel, and a static twin of the panel for pages without a kernel.

    `show` gives the panel's HTML and the same as plain text, at once and again at each change of a
    control.
    """

    _ipython_display_ = None  # ipywidgets 7 would display the view alone

    def __init__(
        self,
        rows: Sequence[Any],
        *,
        show: Callable[[], tuple[str, str]],
        controls: Mapping[str, Any],
    ) -> None:
        self.panel, self._show, self.controls = widgets.HTML(layout=WHOLE), show, controls
        super().__init__([*rows, self.panel], layout=WHOLE | {"max_width": "740px"})
        for control in controls.values():
            control.observe(self.update, names="value")
        self.update()

    def update(self, change: Any = None) -> None:
        """Show what is chosen now."""
        self.panel.value, self.text = self._show()

    def _repr_mimebundle_(self, include=None, exclude=None, **options) -> dict[str, Any]:
        view = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
        bundle = {"text/html": self.panel.value, "text/plain": self.text}
        return bundle | {"application/vnd.jupyter.widget-view+json": view}


WORDS = tomllib.loads(Path(__file__).with_name("widgets.toml").read_text(encoding="utf-8"))
_OPEN = -1  # for None, with which a menu looks empty
_YES_NO = {True: "yes", False: "no"}
_SCORES = {n / 100: f"{n / 100:.2f}" for n in range(101)}
_CHOICES: dict[str, dict[Any, str]] = {
    "task": TASKS,
    "examples": {n: f"{n:,}" for n in (0, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 50_000)},
    "prompt_score": {_OPEN: "not measured", **_SCORES},
    "needed_score": {_OPEN: "not decided", **_SCORES},
    "prompt_fits": _YES_NO,
    "stable_weeks": {1: "every week", 4: "every 4 weeks", 13: "every 13 weeks", 52: "once a year"},
    "base_knows": {_OPEN: "not measured", **_YES_NO},
    "model_billions": {0.0037: "0.0037 (tiny)", 0.0057: "0.0057 (small)"}
    | {n: f"{n}" for n in (0.135, 0.6, 1, 3, 8, 13, 70)},
    "memory_gb": {0: "none: CPU only"} | {n: f"{n} GB" for n in (6, 12, 16, 24, 48, 80)},
}


def decision_card(advice: Advice) -> Card:
    """An advice: choice, reasons, next steps, and what would change it."""
    flips = [str(change) for change in advice.would_change]
    lists = (
        ("Why", "ul", advice.reasons),
        ("Next steps", "ol", advice.next_steps),
        ("What would change this", "ul", flips or ["No single answer changes it."]),
    )
    return Card("advice.html", text=str(advice), advice=advice, CHOICES=CHOICES, lists=lists)


def decision_table() -> Card:
    """The example situations of the guide, with advice and reasons."""
    rows = []
    for name, situation in ARCHETYPES.items():
        advice = decide(situation)
        changes = Markup("; <br>").join(map(str, advice.would_change[:2]))
        choice = Markup("<b>{}</b>").format(advice.choice[0].upper() + advice.choice[1:])
        rows.append([name, choice, advice.reasons[0], changes or "no single answer"])
    head = ["Situation", "Advice", "What decided", "What would change it"]
    return table(head, rows, label="Advice for each situation")


def decision_guide() -> TwinBox:
    """The decision guide as a form that answers at once; `decision_table` needs no kernel.

    `controls` has one for each field of a `Situation`.
    """
    start = Situation(task="format", examples=200, needed_score=0.9)
    controls, rows = {}, []
    for name, label in WORDS["labels"].items():
        value = getattr(start, name)
        slides = name == "examples" or name.endswith("score")
        kind = widgets.SelectionSlider if slides else widgets.Dropdown
        options = [(word, one) for one, word in _CHOICES[name].items()]
        controls[name] = kind(options=options, value=_OPEN if value is None else value, **WIDE)
        rows.append(widgets.HTML(f"<strong>{escape(label)}</strong>", layout=WHOLE))
        rows.append(controls[name])

    def show() -> tuple[str, str]:
        answers = {name: control.value for name, control in controls.items()}
        answers |= {name: None for name, answer in answers.items() if answer == _OPEN}
        card = decision_card(decide(Situation(**answers)))
        return card.html, card.text

    return TwinBox(rows, show=show, controls=controls)


PADS = 3
"""Tokens of padding that are shown where padding matters: the batch has a longer row."""


def explore(
    tokenizer: Any,
    messages: Messages,
    *,
    family: str,
    strategy: str = "all",
    start: str = "content",
    breaks: Sequence[str] = (),
) -> tuple[Xray, list[str]]:
    """The X-ray of a mask broken on purpose, and sentences on what a model trained so would do."""
    options = {"turns": strategy, "start": start, "end_of_turn": "drop_end" not in breaks}
    xray = show_mask(messages, tokenizer=tokenizer, template=family, **options)
    tokens, words, pad = list(xray.tokens), WORDS["said"], tokenizer.pad_token_id
    said = [words["mask_nothing" if "mask_nothing" in breaks else strategy]]
    if "drop_end" in breaks and "mask_nothing" not in breaks:
        said.append(words["nothing_dropped" if strategy == "everything" else "drop_end"])
    if "double_bos" in breaks and tokens[0].id == tokenizer.bos_token_id:
        tokens.insert(0, tokens[0])
        said.append(words["double_bos"])
    elif "double_bos" in breaks:
        names = ", ".join(name for name, one in FAMILIES.items() if one.writes_bos)
        said.append(words["no_bos"].format(names=names))
    if "pad_is_eos" in breaks:  # a fine-tune makes the end of a turn the tokenizer's eos
        end = FAMILIES[family].end(tokenizer.eos_token)
        ids = tokenizer(end, add_special_tokens=False)["input_ids"]
        pad = ids[0] if len(ids) == 1 else tokenizer.eos_token_id
    if {"pad_is_eos", "mask_nothing"} & set(breaks) and pad is not None:
        text = tokenizer.convert_ids_to_tokens(pad)
        tokens += [Token(id=pad, text=text, label=IGNORED, role="padding", special=True)] * PADS
    if "mask_nothing" in breaks:
        tokens = [replace(token, label=token.id) for token in tokens]
    if "pad_is_eos" in breaks:
        ends = sum(t.supervised and t.id == pad and t.role == "assistant" for t in tokens)
        tokens = [replace(t, label=IGNORED) if t.id == pad else t for t in tokens]
        count = "the end of turn" if ends == 1 else f"{ends} ends of turn"
        said.append(words["pad_is_eos" if ends else "pad_only"].format(ends=count))
    if not {"drop_end", "pad_is_eos", "mask_nothing"} & set(breaks):
        said.append(words["stops"])
    return replace(xray, tokens=tuple(tokens)), said


def mask_explorer(tokenizer: Any) -> TwinBox:
    """A mask to play with: other templates, other strategies, and four ways to break it.

    `controls` has family, strategy and start by name, and the ticks of what to break.
    """
    menus = {
        "family": ("Template", {name: name for name in FAMILIES}),
        "strategy": ("Learn", WORDS["strategies"]),
        "start": ("From", WORDS["starts"]),
    }
    for name, (label, words) in menus.items():
        options = [(word, one) for one, word in words.items()]
        menus[name] = widgets.Dropdown(description=label, options=options, **WIDE)
    ticks = {
        name: widgets.Checkbox(description=words, indent=False, **WIDE)
        for name, words in WORDS["breaks"].items()
    }
    wrap = {"flex_flow": "row wrap", "align_items": "center", "grid_gap": "2px 14px"}
    rows = [menus.values(), [widgets.HTML("Break it:"), *ticks.values()]]
    rows = [widgets.Box(list(row), layout=wrap) for row in rows]

    def show() -> tuple[str, str]:
        chosen = {name: menu.value for name, menu in menus.items()}
        breaks = [name for name, tick in ticks.items() if tick.value]
        xray, said = explore(tokenizer, WORDS["messages"], breaks=breaks, **chosen)
        items = "".join(f"<li>{escape(one)}</li>" for one in said)
        list_of_them = f"<ul style='margin:0;line-height:1.4'>{items}</ul>"
        return f"<strong>A model trained this way:</strong>{list_of_them}{xray.html}", str(xray)

    return TwinBox(rows, show=show, controls=menus | ticks)
