r"""Token ids and labels of conversations, for any chat template and any fast tokenizer.

    text      <|im_start|> assistant \n Ho . <|im_end|> \n
    ids                  7       101  9 41 5          8  9
    labels            -100      -100 -100 41 5        8 -100        unshifted: the model shifts

The mask is made on the whole conversation and cut with it: truncation never moves a mask, but it
may remove supervised tokens, which are counted. No token is added to what the template writes.
Whoever tokenizes the text again must pass `add_special_tokens=False` too, or it has two bos.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from sftlab.chat.spans import Messages, Spans, assistant_spans
from sftlab.chat.templates import Template, TemplateError, find_template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100
"""The label of a token that the loss leaves out (PyTorch's `ignore_index`)."""


class MaskError(ValueError):
    """A conversation with nothing supervised; names its index and a remedy."""


@dataclass(frozen=True, kw_only=True)
class Labels(Spans):
    """One conversation as the model is trained on it, beside its whole render."""

    ids: list[int]  # after truncation
    labels: list[int]  # for each token its own id if it is supervised, else -100
    offsets: list[tuple[int, int]]  # for each token its characters in `text`
    tokens: int = 0  # of the whole conversation, before truncation
    removed: int = 0  # supervised tokens that truncation removed
    # Tokens that hold characters of a span and others outside, white space apart: not supervised.
    straddling: tuple[int, ...] = ()

    @property
    def supervised(self) -> int:
        """How many tokens are supervised."""
        return len(self.labels) - self.labels.count(IGNORED)


def labels(
    tokenizer: "PreTrainedTokenizerBase", row: Messages | Mapping[str, Any], **options: Any
) -> Labels:
    """Ids and labels of one conversation; the options are those of `label_rows`."""
    return label_rows(tokenizer, [row], **options)[0]


def label_rows(
    tokenizer: "PreTrainedTokenizerBase",
    rows: Iterable[Messages | Mapping[str, Any]],
    *,
    template: str | Template | None = None,
    max_length: int | None = None,
    on_empty: Literal["raise", "keep"] = "raise",
    **options: Any,
) -> list[Labels]:
    """Ids and labels of many conversations, tokenized in one batch.

    Args:
        tokenizer: a fast one: its offsets say which characters a token holds.
        rows: lists of messages, or mappings with `messages` and perhaps `tools`.
        template: whatever `find_template` takes; None is the tokenizer's own.
        max_length: tokens to keep of each conversation, from its beginning; None keeps all.
        on_empty: whether a row without a supervised token raises a MaskError.
        options: `turns`, `start`, `end_of_turn` and `append_eos`, as for `assistant_spans`.
    """
    if not tokenizer.is_fast:
        raise ValueError(
            f"{type(tokenizer).__name__} gives no offsets, so it is unknown which characters its "
            "tokens hold; load the fast tokenizer"
        )
    if max_length is not None and max_length < 1:
        raise ValueError(f"max_length is {max_length} tokens; give at least 1")
    found = find_template(template, tokenizer=tokenizer)
    rendered = []
    for index, row in enumerate(rows):
        own = row if isinstance(row, Mapping) else {"messages": row}
        try:
            spans = assistant_spans(found, own["messages"], tools=own.get("tools"), **options)
            rendered.append(spans)
        except TemplateError as error:
            raise TemplateError(f"row {index}: {error}") from error
    if not rendered:
        return []
    options = {"add_special_tokens": False, "return_offsets_mapping": True, "verbose": False}
    encoded = tokenizer([one.text for one in rendered], **options)
    made = []
    for index, one in enumerate(rendered):
        ids, offsets = encoded["input_ids"][index], encoded["offset_mapping"][index]
        made.append(_labelled(ids, offsets, one, len(ids) if max_length is None else max_length))
        if on_empty == "raise" and not made[-1].supervised:
            raise _nothing_left(made[-1], index, max_length)
    return made


def _labelled(ids: list[int], offsets: list[tuple[int, int]], one: Spans, most: int) -> Labels:
    """The row, cut to `most` tokens."""
    inside = bytearray(len(one.text))
    for span in one.spans:
        inside[span.start : span.end] = b"\1" * (span.end - span.start)
    labels, straddling = [IGNORED] * len(ids), set()
    for span in one.spans:
        first, stop = (bisect_left(offsets, (at,)) for at in (span.start, span.end))
        while first and offsets[first - 1][1] > span.start:
            first -= 1
        labels[first:stop] = ids[first:stop]
        for token in range(first, stop):
            start, end = offsets[token]
            if (start < span.start or end > span.end) and any(
                not inside[at] and not one.text[at].isspace() for at in range(start, end)
            ):
                labels[token] = IGNORED
                straddling.add(token)
    return Labels(
        **vars(one),
        ids=ids[:most],
        labels=labels[:most],
        offsets=offsets[:most],
        tokens=len(ids),
        removed=len(labels[most:]) - labels[most:].count(IGNORED),
        straddling=tuple(sorted(token for token in straddling if token < most)),
    )


def _nothing_left(row: Labels, index: int, max_length: int | None) -> MaskError:
    if row.removed:
        return MaskError(
            f"row {index} has no supervised token left: truncation to {max_length} tokens "
            f"removed all {row.removed}; raise max_length, shorten the row, or drop it"
        )
    why = "; ".join(row.warnings) or "it has no assistant turn, or only ones with train: false"
    return MaskError(f"row {index} has no supervised token: {why}; correct the row or drop it")
