"""What a template and a tokenizer make of the conversations that somebody wants to train on."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sftlab.chat.case import Case
from sftlab.chat.diagnosis import Finding, Level
from sftlab.chat.masking import labels
from sftlab.chat.rendering import TemplateError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

THOUGHTS = ("<think>", "</think>")
"""A template may write these, and so may an answer: the model thinks inside its content."""

KINDS: tuple[tuple[Level, str, str, str], ...] = (
    (
        "error",
        "rows-refused",
        "cannot be rendered; row {row}: {detail}",
        "correct these rows or drop them, or take a template that renders them",
    ),
    (
        "error",
        "rows-hold-markers",
        "hold a token that only the template may write (row {row}: {detail}), which ends or begins "
        "a turn in the middle of a text",
        "take these tokens out of the contents, or drop the rows",
    ),
    (
        "error",
        "rows-without-answer",
        "have no token to learn: no assistant's message, or none that is trained",
        "end each conversation with an assistant's message, or drop it",
    ),
    (
        "error",
        "rows-masked",
        "lose their whole answer when they are cut to {most} tokens: nothing of them is learned, "
        "packed or not, and a batch of such rows has no loss at all",
        "raise the maximum length, shorten the questions, or drop these rows",
    ),
    (
        "warning",
        "rows-cut",
        "lose the end of their answers when they are cut to {most} tokens, and with it the end of "
        "turn: from them a model learns to break off, not to stop ({lost:,} supervised tokens are "
        "lost in all)",
        "raise the maximum length, or drop these rows",
    ),
    (
        "warning",
        "rows-straddle",
        "have an answer whose edge the tokenizer joins with what stands beside it into one token, "
        "which is left out of what is learned",
        "put a line break or a special token between the header and the answer",
    ),
)
"""Level, code, what and remedy of what can be wrong with rows."""


def row_symptoms(
    case: Case,
    conversations: Sequence[Sequence[Mapping[str, Any]]],
    *,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    max_length: int | None = None,
) -> Iterator[Finding]:
    """Everything that goes wrong in the given conversations, each counted over all of them."""
    found: dict[str, dict[int, str]] = {code: {} for _, code, _, _ in KINDS}
    markers, lost = control_tokens(case, tokenizer), 0
    for row, messages in enumerate(conversations, start=1):
        text = "\n".join(str(message.get("content") or "") for message in messages)
        if held := [marker for marker in markers if marker in text]:
            found["rows-hold-markers"][row] = repr(held[0])
        try:
            if tokenizer is None:
                case.template.render(messages)
                continue
            made = labels(
                tokenizer, messages, template=case.template, max_length=max_length,
                on_empty="keep", on_full="keep",
            )  # fmt: skip
        except TemplateError as error:
            found["rows-refused"][row] = str(error).removeprefix("row 0: ")
            continue
        lost += made.removed
        if not made.supervised:
            found["rows-masked" if made.removed else "rows-without-answer"][row] = ""
        elif made.removed:
            found["rows-cut"][row] = ""
        if made.straddling:
            found["rows-straddle"][row] = ""
    total = len(conversations)
    for level, code, what, remedy in KINDS:
        if rows := found[code]:
            row, detail = next(iter(rows.items()))
            said = what.format(row=row, detail=detail, most=max_length, lost=lost)
            counted = f"{_counted(list(rows), total)} {said}"
            yield Finding(level=level, code=code, what=counted, remedy=remedy, rows=tuple(rows))
    if not any(found.values()):
        yield Finding(
            level="ok",
            code="rows",
            what=f"each of the {total:,} conversations can be rendered"
            + (" and keeps its answers" if tokenizer else ""),
        )


def control_tokens(
    case: Case, tokenizer: "PreTrainedTokenizerBase | None" = None
) -> tuple[str, ...]:
    """The tokens that no content may hold: those that the template writes, and special ones."""
    special = []
    if tokenizer is not None:
        added = tokenizer.added_tokens_decoder.values()
        special = [*tokenizer.all_special_tokens, *(t.content for t in added if t.special)]
    return tuple(t for t in dict.fromkeys([*case.markers, *special]) if t not in THOUGHTS)


def _counted(rows: list[int], total: int) -> str:
    """How many of the rows, and the first of them."""
    first = ", ".join(map(str, rows[:5])) + (", ..." if len(rows) > 5 else "")
    return f"{len(rows):,} of {total:,} conversations (row{'s' * (len(rows) > 1)} {first})"
