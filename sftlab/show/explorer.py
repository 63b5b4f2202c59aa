"""The mask explorer: a widget that shows what a mask becomes when training is set up otherwise.

family -> template -> mask by strategy -> broken on purpose, one toggle each -> picture, sentences
"""

from collections.abc import Sequence
from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets

from sftlab.chat import FAMILIES, IGNORED, Messages, TemplateError
from sftlab.show.mask import show_mask
from sftlab.show.mask_tokens import PADDING, Token
from sftlab.show.xray import Xray

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MESSAGES = (
    {"role": "user", "content": "What is the capital of France?"},
    {"role": "assistant", "content": "Paris."},
    {"role": "user", "content": "And of Italy?"},
    {"role": "assistant", "content": "Rome."},
)
STRATEGIES = {
    "all": ("every answer", "It learns each answer of the conversation."),
    "last": ("the last answer only", "It learns the last answer; the earlier one is only read."),
    "everything": (
        "everything",
        "It learns the questions and the headers as well, so after an answer it may go on with a "
        "question of its own.",
    ),
}
STARTS = {"content": "the content", "generation": "the generation prompt's end"}
BREAKS = {
    "drop_end": "drop the end of turn",
    "pad_is_eos": "padding = end of turn",
    "double_bos": "double BOS",
    "mask_nothing": "mask nothing: labels = ids",
}
UNSTOPPED = "teaches it to stop, so after its answer it goes on writing."
NOTHING_DROPPED = "With everything supervised the end of turn is too: nothing was dropped."
NOTHING_MASKED = (
    "It learns whatever stands in the row, questions, headers and padding: part of the loss is "
    "about text that it never has to write, and after an answer it may write the user's turn."
)
PADS = 3
"""Tokens of padding that are shown where padding matters: the batch has a longer row."""


def explore(
    tokenizer: "PreTrainedTokenizerBase",
    messages: Messages,
    *,
    family: str = "chatml",
    strategy: str = "all",
    start: str = "content",
    breaks: Sequence[str] = (),
) -> tuple[Xray, list[str]]:
    """The picture of a mask, and what a model trained with it would do, a sentence each.

    Args:
        strategy: one of STRATEGIES.
        start: one of STARTS.
        breaks: of BREAKS.

    Raises:
        TemplateError: the family refuses the conversation.
    """
    xray = show_mask(
        messages, tokenizer=tokenizer, template=family, turns=strategy, start=start,
        end_of_turn="drop_end" not in breaks,
    )  # fmt: skip
    tokens, said = list(xray.tokens), [STRATEGIES[strategy][1]]
    if "mask_nothing" in breaks:
        said = [NOTHING_MASKED]
    elif "drop_end" in breaks:
        said.append(NOTHING_DROPPED if strategy == "everything" else f"Nothing {UNSTOPPED}")
    if "double_bos" in breaks:
        tokens, sentence = _double_bos(tokens, tokenizer)
        said.append(sentence)
    pad = _end_id(tokenizer, family) if "pad_is_eos" in breaks else tokenizer.pad_token_id
    if {"pad_is_eos", "mask_nothing"} & set(breaks) and pad is not None:
        text = tokenizer.convert_ids_to_tokens(pad)
        tokens += [Token(id=pad, text=text, label=IGNORED, role=PADDING, special=True)] * PADS
    if "mask_nothing" in breaks:
        tokens = [replace(token, label=token.id) for token in tokens]
    if "pad_is_eos" in breaks:
        ends = sum(t.supervised and t.id == pad and t.role == "assistant" for t in tokens)
        tokens = [replace(t, label=IGNORED) if t.id == pad else t for t in tokens]
        said.append(_padding(ends))
    if not {"drop_end", "pad_is_eos", "mask_nothing"} & set(breaks):
        said.append("It learns to stop as well.")
    return replace(xray, tokens=tuple(tokens)), said


def _double_bos(
    tokens: list[Token], tokenizer: "PreTrainedTokenizerBase"
) -> tuple[list[Token], str]:
    bos = tokenizer.bos_token_id
    if bos is None or not tokens or tokens[0].id != bos:
        writing = ", ".join(name for name, family in FAMILIES.items() if family.writes_bos)
        return tokens, f"This template writes no BOS, so none is doubled; these do: {writing}."
    return [tokens[0], *tokens], (
        "It is trained behind two BOS tokens, which the base never saw; the labels look right, "
        "which is why nobody notices, and a server that writes one asks in another form than the "
        "one it was trained in."
    )


def _end_id(tokenizer: "PreTrainedTokenizerBase", family: str) -> int | None:
    """The token that ends a turn, which a fine-tune makes the tokenizer's eos; or the eos."""
    end = FAMILIES[family].end(tokenizer.eos_token)
    ids = tokenizer(end, add_special_tokens=False)["input_ids"]
    return ids[0] if len(ids) == 1 else tokenizer.eos_token_id


def _padding(ends: int) -> str:
    what = "The collator leaves padding out of the loss, known by its token"
    if not ends:
        return f"{what}; the end of turn is that token, but it was not supervised anyway."
    count = "the end of turn" if ends == 1 else f"{ends} ends of turn"
    return f"{what}, and with it {count}: nothing {UNSTOPPED}"


class MaskExplorer(widgets.VBox):
    """Controls above a picture; needs a running kernel.

    `controls` has family, strategy and start by name, and the toggles of BREAKS; `xray` is what is
    shown, None where the family refuses the conversation, and `said` the sentences.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", messages: Messages) -> None:
        self.tokenizer, self.messages = tokenizer, list(messages)
        self.xray: Xray | None = None
        self.said: list[str] = []
        self.controls: dict[str, Any] = {
            "family": _menu("Template", [(name, name) for name in FAMILIES]),
            "strategy": _menu("Learn", [(told[0], name) for name, told in STRATEGIES.items()]),
            "start": _menu("From", [(told, name) for name, told in STARTS.items()]),
        }
        boxes = {
            name: widgets.Checkbox(description=told, indent=False, layout={"width": "auto"})
            for name, told in BREAKS.items()
        }
        rows = [_row(self.controls.values()), _row([widgets.HTML("Break it:"), *boxes.values()])]
        self.controls |= boxes
        self.verdict, self.picture = widgets.HTML(), widgets.HTML()
        for control in self.controls.values():
            control.observe(self._update, names="value")
        layout = widgets.Layout(max_width="740px")
        super().__init__([*rows, self.verdict, self.picture], layout=layout)
        self._update()

    def _update(self, change: Any = None) -> None:
        chosen = {name: self.controls[name].value for name in ("family", "strategy", "start")}
        breaks = [name for name in BREAKS if self.controls[name].value]
        self.controls["start"].disabled = chosen["strategy"] == "everything"
        try:
            self.xray, self.said = explore(self.tokenizer, self.messages, breaks=breaks, **chosen)
            self.picture.value = self.xray.html
        except TemplateError as error:
            self.xray, self.said, self.picture.value = None, [str(error)], ""
        head = "A model trained so" if self.xray else "Refused"
        told = "".join(f"<li>{escape(one)}</li>" for one in self.said)
        self.verdict.value = (
            f'<div style="line-height:1.4"><strong>{head}:</strong>'
            f'<ul style="margin:.1em 0 0;padding-left:1.3em">{told}</ul></div>'
        )


def _menu(label: str, options: Sequence[tuple[str, str]]) -> widgets.Dropdown:
    return widgets.Dropdown(
        description=label, options=options, layout={"width": "auto"},
        style={"description_width": "initial"},
    )  # fmt: skip


def _row(children: Any) -> widgets.Box:
    layout = widgets.Layout(flex_flow="row wrap", align_items="center", grid_gap="2px 14px")
    return widgets.Box(list(children), layout=layout)


def mask_explorer(
    tokenizer: "PreTrainedTokenizerBase", *, messages: Messages = MESSAGES
) -> MaskExplorer:
    """A mask to play with: other templates, other strategies, and four ways to break it.

    A widget is lost without a kernel: show `show_mask` beside it.

    Args:
        tokenizer: a fast one.
        messages: the conversation; by default two questions about capitals with their answers.
    """
    return MaskExplorer(tokenizer, messages)
