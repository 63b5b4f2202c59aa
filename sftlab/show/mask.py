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

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import groupby
from math import exp
from typing import Any, Literal, NamedTuple

from sftlab.chat import (
    IGNORED,
    Labels,
    Messages,
    Span,
    Template,
    TemplateError,
    assistant_spans,
    find_template,
    frozen_clock,
    trace,
)
from sftlab.chat import labels as make_labels
from sftlab.measure import token_losses
from sftlab.show.cards import render

TEMPLATE, PADDING = "template", "padding"
"""Roles of the tokens that no message holds."""
SPACE, BREAK, PIECE = "·", "⏎", "▫"
MASK_KEY = f"[ ] supervised   {SPACE} space   {BREAK} line break"
_SHADES = ((0.9, "over 90%"), (0.5, "over 50%"), (0.1, "over 10%"), (0.01, "over 1%"), (0, "less"))
"""Lower ends of the probability that the model gave a token, which decides its shade."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """One token of an X-ray."""

    id: int
    text: str  # empty where it is a piece of a character that another token shows
    label: int | None = None  # -100 where nothing is learned; None where no labels were given
    role: str | None = None  # a message's role, `template` or `padding`; None if not known
    special: bool = False  # added to the vocabulary as a whole, as `<|im_end|>` is
    losses: tuple[float | None, ...] = ()  # in nats, one number a model

    @property
    def supervised(self) -> bool:
        """Whether the loss counts it."""
        return self.label not in (None, IGNORED)


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
    template: str = ""  # its name; empty for bare ids
    text: str = ""  # that the tokens are of
    spans: tuple[Span, ...] = ()  # of answers to learn, according to the template
    end_of_turn: str | None = None  # None where nothing ends an answer, or it is not known
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
    def mean_losses(self) -> tuple[float | None, ...]:
        """For each model the mean loss of the supervised tokens, which training lowers."""
        means: list[float | None] = []
        for column in range(len(self.losses)):
            found = [token.losses[column] for token in self.tokens if token.supervised]
            found = [loss for loss in found if loss is not None]
            means.append(sum(found) / len(found) if found else None)
        return tuple(means)

    @property
    def sentence(self) -> str:
        """One sentence that reads the X-ray."""
        if all(token.label is None for token in self.tokens):
            return f"{self.total:,} tokens, without labels."
        share = f" ({self.supervised / self.total:.0%})" if self.total else ""
        counted = f"{self.supervised:,} of {self.total:,} tokens are supervised{share}"
        names = [""] if self.losses == ("loss",) else [f" {name}" for name in self.losses]
        means = zip(self.mean_losses, names, strict=True)
        said = [f"{mean:.2f} nats{name}" for mean, name in means if mean is not None]
        return f"{counted}; their mean loss is {' and '.join(said)}." if said else f"{counted}."

    @property
    def lines(self) -> list[Line]:
        """The tokens in runs of the same role and label, each run cut after its line breaks."""
        found = []
        for (role, supervised), run in groupby(self.tokens, key=lambda t: (t.role, t.supervised)):
            parts = "".join(token.text for token in run).split("\n")
            parts = [f"{part}\n" for part in parts[:-1]] + parts[-1:]
            if not parts[-1] and parts[1:]:
                parts.pop()
            for number, part in enumerate(parts):
                before = "[" if supervised and not number else " "
                after = "]" if supervised and number == len(parts) - 1 else ""
                name = "" if number else role or ""
                found.append(Line(name, before, visible(part), after, supervised))
        return found

    @cached_property
    def html(self) -> str:
        """The X-ray as HTML, which needs no script and no other file."""
        runs = [(role, list(run)) for role, run in groupby(self.tokens, lambda t: t.role)]
        labelled = any(token.label is not None for token in self.tokens)
        pieces = any(not token.text for token in self.tokens)
        shown = {"runs": runs, "labelled": labelled, "pieces": pieces, "title": self._title}
        return render("mask.html", xray=self, **shown, **_MARKS)

    def _title(self, token: Token) -> str:
        """What shows on hover."""
        parts = [f"id {token.id}"]
        if token.label is not None:
            state = "supervised" if token.supervised else "ignored"
            parts.append(f"label {token.label}, {state}".replace("-", "−"))
        parts += [token.role] if token.role else []
        parts += [] if token.text else ["a piece of the character next to it"]
        for name, loss in zip(self.losses, token.losses, strict=True):
            name = name if name == "loss" else f"loss {name}"
            parts.append(f"{name}: none, it is the first" if loss is None else f"{name} {loss:.3f}")
        return " · ".join(parts)

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values with stable names, for JSON."""
        keys = ("id", "text", "label", "role", "supervised")
        return {
            "template": self.template,
            "text": self.text,
            "spans": [asdict(span) for span in self.spans],
            "end_of_turn": self.end_of_turn,
            "warnings": list(self.warnings),
            "tokens": [{key: getattr(token, key) for key in keys} for token in self.tokens],
            "supervised": self.supervised,
            "total": self.total,
        }

    def __str__(self) -> str:
        lines = self.lines
        width = max((len(line.role) for line in lines), default=0)
        rows = [self.sentence, MASK_KEY, ""]
        rows += [f"{line.role:{width}}  {line.before}{line.text}{line.after}" for line in lines]
        if self.losses:
            rows += ["", "loss of each supervised token, in nats"]
            rows.append("  ".join(f"{name:>6}" for name in self.losses) + "  token")
            for token in self.tokens:
                if token.supervised:
                    numbers = ["-" if loss is None else f"{loss:.2f}" for loss in token.losses]
                    text = visible(token.text) or PIECE
                    rows.append("  ".join([*(f"{number:>6}" for number in numbers), text]))
        return "\n".join(rows + [f"! {warning}" for warning in self.warnings])

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        return {"text/html": self.html, "text/plain": str(self)}


def visible(text: str) -> str:
    """The text with marks for characters that cannot be seen."""
    return "".join(map(_mark, text))


def _mark(character: str) -> str:
    if character in " \n\t":
        return {" ": SPACE, "\n": BREAK, "\t": "⇥"}[character]
    # A joiner within an emoji is left alone: tokens may still show a whole family.
    if character != "\u200d" and unicodedata.category(character) in ("Cc", "Cf", "Zs", "Zl", "Zp"):
        return f"⟨U+{ord(character):04X}⟩"
    return character


def _parts(text: str) -> list[tuple[bool, str]]:
    """The visible text in runs, and whether each is a mark for a space or a line break."""
    runs = groupby(visible(text) or PIECE, key=lambda character: character in (SPACE, BREAK))
    return [(mark, "".join(run)) for mark, run in runs]


def _shade(loss: float) -> int:
    return next(n for n, (least, _) in enumerate(_SHADES) if exp(-loss) > least or not least)


_MARKS = {"marked": _parts, "shade": _shade, "SHADES": _SHADES, "TEMPLATE": TEMPLATE}
_MARKS |= {"SPACE": SPACE, "BREAK": BREAK, "PIECE": PIECE}


def show_mask(
    messages: Messages | None = None,
    *,
    tokenizer: Any = None,
    template: str | Template | None = None,
    tools: Sequence[Any] | None = None,
    turns: Literal["all", "last", "everything"] = "all",
    start: Literal["content", "generation"] = "content",
    end_of_turn: bool = True,
    append_eos: bool = False,
    max_length: int | None = None,
    ids: Sequence[int] | None = None,
    labels: Sequence[int] | None = None,
    model: Any = None,
    after: Any = None,
) -> Xray:
    """Show which tokens of a conversation are supervised, and how well a model predicts them.

        show_mask(messages, tokenizer=tokenizer, template="llama-3")     the lab's mask
        show_mask(messages, tokenizer=tokenizer, labels=mine)            a mask made by hand
        show_mask(ids=ids, labels=mine, tokenizer=tokenizer)             of bare tokens
        show_mask(messages, tokenizer=tokenizer, model=base, after=run)  losses before and after

    Args:
        messages: the conversation; or else `ids`.
        tokenizer: a fast one; by default that of the run.
        template: whatever `find_template` knows; None is the tokenizer's own, or ChatML where it
            has none (as in `finetune`).
        tools: as for `Template.render`.
        turns: supervise every answer, the last one, or every token, the questions' too.
        start: as for `assistant_spans`, and so `end_of_turn` and `append_eos`.
        max_length: tokens to keep, from the beginning.
        ids: tokens of one conversation.
        labels: one for each token, not shifted, -100 where nothing is learned; by default they
            follow from the template.
        model: a model or run; the loss of each token is shown.
        after: another, such as the same one after training; the first is then called before.

    Raises:
        ValueError: arguments that don't fit together; TemplateError, a subclass, when the template
            refuses the conversation.
    """
    if (messages is None) == (ids is None):
        raise ValueError("give either messages or ids, and not both")
    if after is not None and model is None:
        raise ValueError("after is compared with model: give both, or only model")
    if turns == "everything" and labels is not None:
        raise ValueError("turns='everything' makes the labels itself: leave labels out")
    given = [one for one in (model, after) if one is not None]
    runs = [one for one in given if hasattr(one, "tokenizer")]  # a plain model has none
    if tokenizer is None and not runs:
        raise ValueError("tokenizer is missing: give the tokenizer of the conversation's tokens")
    tokenizer = runs[-1].tokenizer if tokenizer is None else tokenizer
    mine = None if labels is None else _flat(labels, "labels")
    if ids is not None:
        xray = _of_ids(_flat(ids, "ids"), mine, tokenizer)
    else:
        options = {"start": start, "end_of_turn": end_of_turn, "append_eos": append_eos}
        options |= {"tools": tools, "max_length": max_length}
        options["turns"] = "all" if turns == "everything" else turns
        xray = _of_messages(messages, mine, tokenizer, template, options)
        if turns == "everything":
            xray = replace(xray, tokens=tuple(replace(t, label=t.id) for t in xray.tokens))
    return _with_losses(xray, [one.model if one in runs else one for one in given])


def _of_ids(ids: list[int], labels: list[int] | None, tokenizer: Any) -> Xray:
    """The X-ray of bare ids; of tokens that share a character the last one shows it."""
    from tokenizers.decoders import DecodeStream

    if not tokenizer.is_fast:
        raise ValueError(
            f"{type(tokenizer).__name__} cannot decode token by token: load the fast tokenizer"
        )
    warnings = () if labels is None else tuple(_check_labels(ids, labels))
    stream, special, tokens = DecodeStream(skip_special_tokens=False), _special(tokenizer), []
    for token, label in zip(ids, labels or [None] * len(ids), strict=True):
        text = stream.step(tokenizer.backend_tokenizer, token) or ""
        tokens.append(Token(id=token, text=text, label=label, special=token in special))
    text = "".join(token.text for token in tokens)
    return Xray(tokens=tuple(tokens), text=text, warnings=warnings)


def _of_messages(
    messages: Messages,
    labels: list[int] | None,
    tokenizer: Any,
    template: str | Template | None,
    options: dict[str, Any],
) -> Xray:
    if template is None and not tokenizer.chat_template:
        template = "chatml"
    found = find_template(template, tokenizer=tokenizer)
    with frozen_clock():  # the render is the same each time
        try:
            made = make_labels(
                tokenizer, messages, template=found, on_empty="keep", on_full="keep", **options
            )
        except TemplateError as error:  # there are no rows here
            raise TemplateError(str(error).removeprefix("row 0: ")) from error
        regions, end, warnings = _regions(found, messages, tools=options["tools"])
    regions += [(span.start, span.end, "assistant") for span in made.spans]
    warnings = [*made.warnings, *warnings]
    if made.removed:
        warnings.append(
            f"the cut to {options['max_length']} tokens removed {made.removed} supervised ones"
        )
    if made.straddling:
        warnings.append(
            f"{len(made.straddling)} tokens hold characters of an answer and others, "
            "and are not supervised"
        )
    if labels is not None:
        warnings += _check_labels(made.ids, labels)
        made = replace(made, labels=labels)
    elif not made.supervised:
        warnings.append("nothing is supervised, so a model would learn nothing from this row")
    return Xray(
        tokens=tuple(_tokens(made, tokenizer, regions)),
        template=found.name if template else "the tokenizer's own",  # not a path of this machine
        text=made.text,
        spans=made.spans,
        end_of_turn=end,
        warnings=tuple(warnings),
    )


_Region = tuple[int, int, str]
"""Start and end of characters, and the role that wrote them."""


def _regions(
    template: Template, messages: Messages, *, tools: Sequence[Any] | None
) -> tuple[list[_Region], str | None, list[str]]:
    """Which characters of the render belong to which role; the end of turn; warnings."""
    bare = [{k: v for k, v in message.items() if k != "train"} for message in messages]
    answers: list[_Region] = []
    end, warnings, pieces = None, [], ()
    try:
        found = assistant_spans(template, bare, tools=tools)
        answers = [(span.start, span.end, "assistant") for span in found.spans]
        end = found.end_of_turn
    except TemplateError:
        pass  # The caller's own mask, from the generation prompt on, may work all the same.
    try:
        pieces = trace(template, bare, tools=tools, roles=None).pieces
    except TemplateError:
        warnings.append("this template cannot be traced, so only the answers have a role")
    spoken = [(piece.start, piece.end, str(bare[piece.message]["role"])) for piece in pieces]
    return spoken + answers, end, warnings


def _tokens(made: Labels, tokenizer: Any, regions: Sequence[_Region]) -> Iterable[Token]:
    """The tokens of a rendered conversation; of those that share a character the first shows it."""
    special, done = _special(tokenizer), 0
    for token, label, (start, end) in zip(made.ids, made.labels, made.offsets, strict=True):
        role = next((who for a, b, who in regions if a < end and start < b), TEMPLATE)
        text = made.text[max(start, done) : end]
        yield Token(id=token, text=text, label=label, role=role, special=token in special)
        done = max(done, end)


def _special(tokenizer: Any) -> set[int]:
    return {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}


def _flat(values: Any, name: str) -> list[int]:
    """Integers from a list, an array or a tensor of one row."""
    values = values.tolist() if hasattr(values, "tolist") else list(values)
    if len(values) == 1 and isinstance(values[0], Iterable):
        values = list(values[0])
    for index, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(
                f"{name}[{index}] is {value!r:.60}; give the integers of one conversation"
            )
    return values


def _check_labels(ids: Sequence[int], labels: Sequence[int]) -> list[str]:
    """Warnings about labels made by hand; ValueError unless there is one for each token."""
    if len(labels) != len(ids):
        raise ValueError(
            f"{len(labels)} labels for {len(ids)} tokens; give one for each: its own id where the "
            "token is supervised, else -100"
        )
    odd = [i for i, label in enumerate(labels) if label not in (IGNORED, ids[i])]
    if not odd:
        return []
    if all(i + 1 < len(ids) and labels[i] == ids[i + 1] for i in odd):
        return [
            "these labels are shifted: each is the next token; the model shifts them itself, so it "
            "would learn to skip a token: give each token's own id"
        ]
    return [
        f"the label of token {odd[0]} is {labels[odd[0]]}, but the token is {ids[odd[0]]} "
        f"({len(odd)} such labels): the model would learn to write what it does not read"
    ]


def _with_losses(xray: Xray, models: Sequence[Any]) -> Xray:
    if not models:
        return xray
    ids = [token.id for token in xray.tokens]
    targets = [token.label if token.supervised else token.id for token in xray.tokens]
    columns = zip(*(token_losses(one, ids, targets=targets) for one in models), strict=True)
    pairs = zip(xray.tokens, columns, strict=True)
    tokens = tuple(replace(token, losses=losses) for token, losses in pairs)
    return replace(xray, tokens=tokens, losses=("before", "after") if models[1:] else ("loss",))
