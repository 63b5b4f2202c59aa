r"""The mask X-ray: the tokens of a conversation by role, label and loss, for any chat template.

    template    <|im_start|>user⏎
    user        Hi
    template    <|im_end|>⏎
                <|im_start|>assistant⏎
    assistant  [Ho<|im_end|>]
    template    ⏎

What a message holds has the message's role; the end of an answer is written by the model, so it
is the assistant's. Everything else is written by the template. Brackets hold what is supervised;
in HTML it is a box with a thick line below it, so that it does not depend on colour alone.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from math import exp
from typing import Any, Literal, NamedTuple

import numpy as np
from markupsafe import Markup, escape

from sftlab.chat import (
    IGNORED,
    Messages,
    Span,
    Template,
    TemplateError,
    assistant_spans,
    find_template,
    trace,
)
from sftlab.chat import labels as make_labels
from sftlab.measure import token_losses
from sftlab.show.cards import render

SPACE, BREAK, PIECE = "·", "⏎", "▫"
MASK_KEY = f"[ ] supervised   {SPACE} space   {BREAK} line break"
# Lower ends of the probability that the model gave a token, which decides its shade.
_SHADES = ((0.9, "over 90%"), (0.5, "over 50%"), (0.1, "over 10%"), (0.01, "over 1%"), (0, "less"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """One token of an X-ray."""

    id: int
    text: str  # empty where it is a piece of a character that another token shows
    label: int  # -100 where nothing is learned
    role: str  # a message's role, `template` or `padding`
    special: bool  # added to the vocabulary as a whole, as `<|im_end|>` is
    losses: tuple[float | None, ...] = ()  # in nats, one number a model; None for the first token

    @property
    def supervised(self) -> bool:
        """Whether the loss counts it."""
        return self.label != IGNORED


class Line(NamedTuple):
    """One line of the plain text; brackets stand before and after a supervised run."""

    role: str  # empty where the line before says it
    before: str
    text: str  # with white space made visible
    after: str
    supervised: bool


@dataclass(frozen=True, kw_only=True)
class Xray:
    """The X-ray of a mask: a notebook shows it as HTML, `print` as text."""

    tokens: tuple[Token, ...]
    template: str  # its name
    text: str  # that the tokens are of
    spans: tuple[Span, ...]  # of answers to learn, according to the template
    end_of_turn: str | None  # None where nothing ends an answer, or it is not known
    losses: tuple[str, ...] = ()  # names of the columns of losses
    warnings: tuple[str, ...] = ()  # what one should know before training on this

    @property
    def total(self) -> int:
        """How many tokens there are."""
        return len(self.tokens)

    @property
    def supervised(self) -> int:
        """How many of them the loss counts."""
        return sum(token.supervised for token in self.tokens)

    @property
    def mean_losses(self) -> tuple[float, ...]:
        """For each model the mean loss of the supervised tokens, which training lowers."""
        rows = [one.losses for one in self.tokens if one.supervised and None not in one.losses]
        return tuple(sum(column) / len(rows) for column in zip(*rows, strict=True))

    @property
    def sentence(self) -> str:
        """One sentence that reads the X-ray."""
        share = f" ({self.supervised / self.total:.0%})" if self.total else ""
        said = f"{self.supervised:,} of {self.total:,} tokens are supervised{share}"
        means = [f"{mean:.2f} nats" for mean in self.mean_losses]
        if len(means) == 2:
            said += f"; their mean loss is {means[0]} before and {means[1]} after"
        elif means:
            said += f"; their mean loss is {means[0]}"
        return f"{said}."

    @property
    def lines(self) -> list[Line]:
        """The tokens in runs of the same role and label, each run cut after its line breaks."""
        found = []
        for (role, supervised), run in groupby(self.tokens, key=lambda t: (t.role, t.supervised)):
            parts = re.findall(r"[^\n]*\n|[^\n]+", "".join(token.text for token in run)) or [""]
            for number, part in enumerate(parts):
                before = "[" if supervised and not number else " "
                after = "]" if supervised and number == len(parts) - 1 else ""
                found.append(Line("" if number else role, before, visible(part), after, supervised))
        return found

    @cached_property
    def html(self) -> str:
        """The X-ray as HTML, which needs no script and no other file."""
        runs = [(role, list(run)) for role, run in groupby(self.tokens, lambda t: t.role)]
        marks = {"SHADES": _SHADES, "SPACE": SPACE, "BREAK": BREAK, "PIECE": PIECE}
        calls = {"title": self._title, "marked": _marked, "shade": _shade}
        return render("mask.html", xray=self, runs=runs, **marks, **calls)

    def _title(self, token: Token) -> str:
        """What shows on hover."""
        state = "supervised" if token.supervised else "ignored"
        parts = [f"id {token.id}", f"label {token.label}, {state}".replace("-", "−"), token.role]
        parts += [] if token.text else ["a piece of the character next to it"]
        for name, loss in zip(self.losses, token.losses, strict=True):
            name = name if name == "loss" else f"loss {name}"
            parts.append(f"{name}: none, it is the first" if loss is None else f"{name} {loss:.3f}")
        return " · ".join(parts)

    def __str__(self) -> str:
        lines = self.lines
        width = max((len(line.role) for line in lines), default=0)
        rows = [self.sentence, MASK_KEY, ""]
        rows += [f"{line.role:{width}}  {line.before}{line.text}{line.after}" for line in lines]
        return "\n".join(rows + [f"! {warning}" for warning in self.warnings])

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        return {"text/html": self.html, "text/plain": str(self)}


def visible(text: str) -> str:
    """The text with marks for characters that cannot be seen."""
    # A joiner within an emoji is left alone: tokens may still show a whole family.
    marks = {" ": SPACE, "\n": BREAK, "\t": "⇥", "\u200d": "\u200d"}
    for one in set(text) - set(marks):
        if unicodedata.category(one) in ("Cc", "Cf", "Zs", "Zl", "Zp"):
            marks[one] = f"⟨U+{ord(one):04X}⟩"
    return text.translate(str.maketrans(marks))


def _marked(text: str) -> Markup:
    """The visible text, in which marks for spaces and line breaks are pale."""
    shown = str(escape(visible(text) or PIECE))  # re would escape the tags in a Markup
    return Markup(re.sub(f"[{SPACE}{BREAK}]+", r'<i class="break">\g<0></i>', shown))


def _shade(loss: float) -> int:
    return next(n for n, (least, _) in enumerate(_SHADES) if exp(-loss) > least or not least)


def show_mask(
    messages: Messages | Mapping[str, Any],
    *,
    tokenizer: Any,
    template: str | Template | None = None,
    tools: Sequence[Any] | None = None,
    turns: Literal["all", "last", "everything"] = "all",
    start: Literal["auto", "content", "generation"] = "auto",
    end_of_turn: bool = True,
    max_length: int | None = None,
    labels: Sequence[int] | None = None,
    model: Any = None,
    after: Any = None,
) -> Xray:
    """Show which tokens of a conversation are supervised, and how well a model predicts them.

        show_mask(messages, tokenizer=tokenizer, template="llama-3")     the lab's mask
        show_mask(messages, tokenizer=tokenizer, labels=mine)            a mask made by hand
        show_mask(messages, tokenizer=tokenizer, model=base, after=run)  losses before and after

    The mask is that of training, with an eos after an answer that the template does not end.

    Args:
        messages: a list of them, or a row with `messages` and perhaps `tools`.
        tokenizer: a fast one.
        template: as for `find_template`; None is the tokenizer's own, or ChatML where it has none.
        turns: supervise every answer, the last one, or every token, the questions' too.
        start: as for `assistant_spans`, and so `end_of_turn`.
        max_length: tokens to keep, from the beginning.
        labels: one for each token, not shifted, -100 where nothing is learned.
        model: whose loss on each token is shown; `after` is the model or the run after training.

    Raises:
        TemplateError: a refusal. ValueError: labels that are not of this conversation.
    """
    if template is None and not tokenizer.chat_template:
        template = "chatml"
    found = find_template(template, tokenizer=tokenizer)
    if isinstance(messages, Mapping):
        messages, tools = messages["messages"], messages.get("tools") or tools
    options = {"start": start, "end_of_turn": end_of_turn, "max_length": max_length}
    options |= {"append_eos": end_of_turn and bool(found.eos_token)}
    options |= {"turns": "all" if turns == "everything" else turns}
    row = {"messages": messages, "tools": tools}
    try:
        made = make_labels(tokenizer, row, template=found, on_empty="keep", **options)
    except TemplateError as error:  # there are no rows here
        raise TemplateError(str(error).removeprefix("row 0: ")) from error
    regions = _regions(found, messages, tools)
    regions += [(span.start, span.end, "assistant") for span in made.spans]
    warnings = list(made.warnings)
    warnings += [f"not in the text that is trained on: {one}" for one in made.missing]
    if made.removed:
        warnings.append(f"the cut to {max_length} tokens removed {made.removed} supervised ones")
    if made.straddling:
        warnings.append(
            f"{len(made.straddling)} tokens hold characters of an answer and others, "
            "and are not supervised"
        )
    if labels is not None:
        own, odd = _own_labels(labels, made.ids)
        made, warnings = replace(made, labels=own), warnings + odd
    elif turns == "everything":
        made = replace(made, labels=made.ids)
    elif not made.supervised:
        warnings.append("nothing is supervised, so a model would learn nothing from this row")
    targets = [
        n if label == IGNORED else label for n, label in zip(made.ids, made.labels, strict=True)
    ]
    models = [one for one in (model, after) if one is not None]
    models = [one.model if hasattr(one, "tokenizer") else one for one in models]
    losses = [token_losses(one, made.ids, targets=targets) for one in models]
    special, done, tokens = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}, 0, []
    for n, (token, (first, last)) in enumerate(zip(made.ids, made.offsets, strict=True)):
        tokens.append(
            Token(
                id=token,
                text=made.text[max(first, done) : last],  # the first token shows a shared character
                label=made.labels[n],
                role=next((who for a, b, who in regions if a < last and first < b), "template"),
                special=token in special,
                losses=tuple(column[n] for column in losses),
            )
        )
        done = max(done, last)
    return Xray(
        tokens=tuple(tokens),
        template=found.name if template else "the tokenizer's own",  # not a path of this machine
        text=made.text,
        spans=made.spans,
        end_of_turn=made.end_of_turn,
        losses=((), ("loss",), ("before", "after"))[len(models)],
        warnings=tuple(warnings),
    )


def _regions(
    template: Template, messages: Messages, tools: Sequence[Any] | None
) -> list[tuple[int, int, str]]:
    """Characters of the render and the role that wrote them, as far as they can be followed."""
    bare = [{k: v for k, v in message.items() if k != "train"} for message in messages]
    regions = []
    with suppress(TemplateError):
        try:
            traced = trace(template, bare, tools=tools, roles=None, calls=True)
        except TemplateError:  # arguments of calls that can't be followed
            traced = trace(template, bare, tools=tools, roles=None)
        for piece in traced.pieces:
            regions.append((piece.start, piece.end, str(bare[piece.message]["role"])))
    with suppress(TemplateError):  # an end that is not learned is the assistant's too
        found = assistant_spans(template, bare, tools=tools)
        regions += [(span.start, span.end, "assistant") for span in found.spans]
    return regions


def _own_labels(labels: Any, ids: Sequence[int]) -> tuple[list[int], list[str]]:
    """Labels made by hand, from a list or a tensor of one row, and warnings about them."""
    rows = np.atleast_2d(np.asarray(labels))
    if rows.dtype.kind != "i" or len(rows) != 1:
        raise ValueError(f"labels is {labels!r:.60}; give the integers of one conversation")
    if len(found := rows[0].tolist()) != len(ids):
        raise ValueError(
            f"{len(found)} labels for {len(ids)} tokens; give one for each: its own id where the "
            "token is supervised, else -100"
        )
    odd = [n for n, label in enumerate(found) if label not in (IGNORED, ids[n])]
    if not odd:
        return found, []
    if all(found[n : n + 1] == list(ids[n + 1 : n + 2]) for n in odd):
        said = (
            "these labels are shifted: each is the next token; the model shifts them itself, so it "
            "would learn to skip a token: give each token's own id"
        )
    else:
        said = (
            f"the label of token {odd[0]} is {found[odd[0]]}, but the token is {ids[odd[0]]} "
            f"({len(odd)} such labels): the model would learn to write what it does not read"
        )
    return found, [said]
