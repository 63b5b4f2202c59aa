"""The mask explorer: a widget that shows what a mask becomes when training is set up otherwise.

template -> mask by strategy -> broken on purpose, one toggle each -> X-ray and sentences
"""

from dataclasses import replace
from html import escape
from typing import Any

import ipywidgets as widgets

from sftlab.chat import FAMILIES, IGNORED, Messages, TemplateError
from sftlab.show.mask import PADDING, Token, Xray, show_mask
from sftlab.show.widgets import WIDE, TwinBox

MESSAGES = (
    {"role": "user", "content": "What is the capital of France?"},
    {"role": "assistant", "content": "Paris."},
    {"role": "user", "content": "And of Italy?"},
    {"role": "assistant", "content": "Rome."},
)
# name -> what the menu says, and what a model trained so does
STRATEGIES = {
    "all": ("every answer", "It learns each answer of the conversation."),
    "last": ("the last answer only", "It learns the last answer; the earlier one is only read."),
    "everything": (
        "everything",
        "It learns the questions and the headers as well, so after an answer it may go on with a "
        "question of its own.",
    ),
}
_STARTS = {"content": "the content", "generation": "the generation prompt's end"}
BREAKS = {
    "drop_end": "drop the end of turn",
    "pad_is_eos": "padding = end of turn",
    "double_bos": "double BOS",
    "mask_nothing": "mask nothing: labels = ids",
}
_UNSTOPPED = "teaches it to stop, so after its answer it goes on writing."
PADS = 3
"""Tokens of padding that are shown where padding matters: the batch has a longer row."""


def _explore(
    tokenizer: Any, messages: Messages, family: str, strategy: str, start: str, breaks: set[str]
) -> tuple[Xray, list[str]]:
    """The X-ray of a mask, and sentences on what a model trained with it would do."""
    xray = show_mask(
        messages,
        tokenizer=tokenizer,
        template=family,
        turns=strategy,
        start=start,
        end_of_turn="drop_end" not in breaks,
    )
    tokens, said = list(xray.tokens), [STRATEGIES[strategy][1]]
    if "mask_nothing" in breaks:
        said = [
            "It learns whatever stands in the row, questions, headers and padding: part of the "
            "loss is about text that it never has to write, and after an answer it may write the "
            "user's turn."
        ]
    elif "drop_end" in breaks and strategy == "everything":
        said.append("With everything supervised the end of turn is too: nothing was dropped.")
    elif "drop_end" in breaks:
        said.append(f"Nothing {_UNSTOPPED}")
    if "double_bos" in breaks:
        bos = tokenizer.bos_token_id
        if bos is not None and tokens and tokens[0].id == bos:
            tokens.insert(0, tokens[0])
            said.append(
                "It is trained behind two BOS tokens, which the base never saw; the labels look "
                "right, so nobody notices, and a server that writes one sends prompts in another "
                "form than the one it was trained in."
            )
        else:
            writing = ", ".join(name for name, one in FAMILIES.items() if one.writes_bos)
            said.append(f"This template writes no BOS, so none is doubled; these do: {writing}.")
    pad = _end_id(tokenizer, family) if "pad_is_eos" in breaks else tokenizer.pad_token_id
    if {"pad_is_eos", "mask_nothing"} & breaks and pad is not None:
        text = tokenizer.convert_ids_to_tokens(pad)
        tokens += [Token(id=pad, text=text, label=IGNORED, role=PADDING, special=True)] * PADS
    if "mask_nothing" in breaks:
        tokens = [replace(token, label=token.id) for token in tokens]
    if "pad_is_eos" in breaks:
        ends = sum(t.supervised and t.id == pad and t.role == "assistant" for t in tokens)
        tokens = [replace(t, label=IGNORED) if t.id == pad else t for t in tokens]
        count = "the end of turn" if ends == 1 else f"{ends} ends of turn"
        said.append(
            "The collator leaves padding out of the loss, and recognises it by its token"
            + (
                f", and with it {count}: nothing {_UNSTOPPED}"
                if ends
                else "; the end of turn is that token, but it was not supervised anyway."
            )
        )
    if not {"drop_end", "pad_is_eos", "mask_nothing"} & breaks:
        said.append("It learns to stop as well.")
    return replace(xray, tokens=tuple(tokens)), said


def _end_id(tokenizer: Any, family: str) -> int | None:
    """The token that ends a turn, which a fine-tune makes the tokenizer's eos; or the eos."""
    end = FAMILIES[family].end(tokenizer.eos_token)
    ids = tokenizer(end, add_special_tokens=False)["input_ids"]
    return ids[0] if len(ids) == 1 else tokenizer.eos_token_id


class _MaskExplorer(TwinBox):
    """Controls above an X-ray.

    `controls` has family, strategy and start by name, and the toggles of BREAKS; `xray` is what is
    shown, None where the family refuses the conversation.
    """

    def __init__(self, tokenizer: Any, messages: Messages) -> None:
        self.tokenizer, self.messages = tokenizer, list(messages)
        self.xray: Xray | None = None
        menus = {
            "family": ("Template", [(name, name) for name in FAMILIES]),
            "strategy": ("Learn", [(words, name) for name, (words, _) in STRATEGIES.items()]),
            "start": ("From", [(words, name) for name, words in _STARTS.items()]),
        }
        self.controls: dict[str, Any] = {
            name: widgets.Dropdown(description=label, options=options, **WIDE)
            for name, (label, options) in menus.items()
        }
        boxes = {
            name: widgets.Checkbox(description=words, indent=False, **WIDE)
            for name, words in BREAKS.items()
        }
        rows = [self.controls.values(), [widgets.HTML("Break it:"), *boxes.values()]]
        wrap = {"flex_flow": "row wrap", "align_items": "center", "grid_gap": "2px 14px"}
        rows = [widgets.Box(list(row), layout=wrap) for row in rows]
        self.controls |= boxes
        self.verdict, self.picture = widgets.HTML(), widgets.HTML()
        for control in self.controls.values():
            control.observe(self._update, names="value")
        super().__init__([*rows, self.verdict, self.picture], layout={"max_width": "740px"})
        self._update()

    def twin(self) -> tuple[str, str]:
        return f"{self.verdict.value}{self.picture.value}", str(self.xray)

    def _update(self, change: Any = None) -> None:
        chosen = {name: self.controls[name].value for name in ("family", "strategy", "start")}
        breaks = {name for name in BREAKS if self.controls[name].value}
        self.controls["start"].disabled = chosen["strategy"] == "everything"
        try:
            self.xray, said = _explore(self.tokenizer, self.messages, breaks=breaks, **chosen)
        except TemplateError as error:
            self.xray, said = None, [str(error)]
        self.picture.value = self.xray.html if self.xray else ""
        head = "A model trained this way" if self.xray else "Refused"
        items = "".join(f"<li>{escape(one)}</li>" for one in said)
        self.verdict.value = (
            f"<strong>{head}:</strong><ul style='margin:0;line-height:1.4'>{items}</ul>"
        )


def mask_explorer(tokenizer: Any, *, messages: Messages = MESSAGES) -> _MaskExplorer:
    """A mask to play with: other templates, other strategies, and four ways to break it.

    Args:
        tokenizer: a fast one.
        messages: the conversation; by default two questions about capitals with their answers.
    """
    return _MaskExplorer(tokenizer, messages)
