r"""The tokens of a conversation with what is known of each: text, label, role, loss.

    <|im_start|>  user  \n  Hi    <|im_end|>  \n  <|im_start|>  assistant  \n  Ho  <|im_end|>
    template   template  .  user  template     .  template      template    .  assistant (both)

What a message's author writes has the author's role; the end of an answer is written by the model,
so it is the assistant's. All else is written by the template.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sftlab.chat import IGNORED, Labels, Template, TemplateError, assistant_spans, trace

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TEMPLATE, PADDING = "template", "padding"
"""Roles of the tokens that no message holds."""
Region = tuple[int, int, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """One token of a picture."""

    id: int
    """Its number in the vocabulary."""
    text: str
    """Its characters; none where it is a piece of a character that another token shows."""
    label: int | None = None
    """What is to be predicted here, -100 for nothing; None where no labels were given."""
    role: str | None = None
    """Who wrote it: a message's role, `template` or `padding`; None where that is not known."""
    special: bool = False
    """Whether it was added to the vocabulary whole, as `<|im_end|>` is."""
    losses: tuple[float | None, ...] = ()
    """Nats, one number a model."""

    @property
    def supervised(self) -> bool:
        """Whether the loss counts it."""
        return self.label not in (None, IGNORED)


def tokens_of(
    made: Labels, tokenizer: "PreTrainedTokenizerBase", regions: Sequence[Region]
) -> list[Token]:
    """The tokens of a rendered conversation; of those that share a character the first shows it."""
    special, done, tokens = _special(tokenizer), 0, []
    for token, label, (start, end) in zip(made.ids, made.labels, made.offsets, strict=True):
        role = next((who for a, b, who in regions if a < end and start < b), TEMPLATE)
        tokens.append(
            Token(
                id=token, text=made.text[max(start, done) : end], label=label, role=role,
                special=token in special,
            )
        )  # fmt: skip
        done = max(done, end)
    return tokens


def tokens_of_ids(
    ids: Sequence[int], labels: Sequence[int] | None, tokenizer: "PreTrainedTokenizerBase"
) -> list[Token]:
    """The tokens of bare ids; of those that share a character the last shows it."""
    from tokenizers.decoders import DecodeStream

    if not tokenizer.is_fast:
        raise ValueError(
            f"{type(tokenizer).__name__} can't decode one token after the other; load the fast "
            "tokenizer"
        )
    stream, special = DecodeStream(skip_special_tokens=False), _special(tokenizer)
    given = [None] * len(ids) if labels is None else labels
    return [
        Token(
            id=token, label=label, special=token in special,
            text=stream.step(tokenizer.backend_tokenizer, token) or "",
        )
        for token, label in zip(ids, given, strict=True)
    ]  # fmt: skip


def _special(tokenizer: "PreTrainedTokenizerBase") -> set[int]:
    return {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}


def regions_of(
    template: Template,
    messages: Sequence[Mapping[str, Any]],
    *,
    tools: Sequence[Any] | None = None,
) -> tuple[list[Region], str | None, list[str]]:
    """Which characters of the render come from which role; the end of turn; warnings."""
    bare = [{k: v for k, v in message.items() if k != "train"} for message in messages]
    regions: list[Region] = []
    end, warnings = None, []
    try:
        answers = assistant_spans(template, bare, tools=tools)
        regions = [(span.start, span.end, "assistant") for span in answers.spans]
        end = answers.end_of_turn
    except TemplateError:
        pass  # The caller's own mask, from the generation prompt on, may stand all the same.
    try:
        pieces = trace(template, bare, tools=tools, roles=None).pieces
    except TemplateError:
        pieces = ()
        warnings.append(
            "whose words the others are can't be told for this template, so only the answers have "
            "a role"
        )
    spoken = [(piece.start, piece.end, str(bare[piece.message]["role"])) for piece in pieces]
    return spoken + regions, end, warnings


def flat(values: Any, name: str) -> list[int]:
    """Whole numbers from a list, an array or a tensor of one row.

    Raises ValueError for several rows, or for anything else.
    """
    values = values.tolist() if hasattr(values, "tolist") else list(values)
    if len(values) == 1 and isinstance(values[0], Iterable):
        values = list(values[0])
    for index, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(
                f"{name}[{index}] is {value!r:.60}; give the whole numbers of one conversation"
            )
    return values


def check_labels(ids: Sequence[int], labels: Sequence[int]) -> list[str]:
    """Warnings about labels made by hand; ValueError when there is not one for each token."""
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
            "these labels are shifted: each is the token that comes next; the model shifts them "
            "itself, so it would learn to leave a token out: give each token's own id"
        ]
    return [
        f"the label of token {odd[0]} is {labels[odd[0]]}, and the token is {ids[odd[0]]}"
        f" ({len(odd)} such): the model would learn to write what it does not read"
    ]
