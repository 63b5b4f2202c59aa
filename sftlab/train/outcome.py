"""What a model does with held-out rows: the loss of the answers, and what it says itself.

row       user: Capital of Peru?   assistant: Lima.
loss      mean nats of the tokens of `Lima.<|im_end|>`, given what comes before them
answer    what the model writes after `Capital of Peru?` on its own, greedily
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from random import Random
from typing import Any

from sftlab.data import normalise, part_of
from sftlab.measure import generate
from sftlab.quiet import quiet_libraries
from sftlab.train.run import Run
from sftlab.train.supervision import supervise
from sftlab.train.validation import mean_loss

ANSWERED = 64
"""Rows that the model answers itself, at most: writing takes longer than reading."""
SHORT = 12
"""Words up to which an answer is expected word for word."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One row, and what a model makes of it."""

    row: int
    """Index of the row among the rows held out."""
    text: str
    """What the model wrote."""
    ended: bool
    """Whether it ended by itself; else it was stopped."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one model does with all held-out rows."""

    losses: list[float]
    """Of each row: mean nats of its learned tokens."""
    loss: float
    """Mean nats over the learned tokens of all rows."""
    answers: list[Answer]
    """Of some rows."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, told: dict[str, Any]) -> "Outcome":
        """The same from plain values."""
        return cls(**{**told, "answers": [Answer(**one) for one in told["answers"]]})


def measure(run: Run, rows: Sequence[dict[str, Any]]) -> Outcome:
    """Measure a run, trained or not, on rows that it was not trained on.

    Which rows are answered, and how long an answer may get, depends on the rows alone.

    Raises:
        ExampleError: a row can't be masked with the run's template.
    """
    settings = run.settings
    asked = [{"messages": row["messages"]} for row in rows]
    labelled, _ = supervise(asked, run.tokenizer, settings, max_length=settings.max_length)
    pad = run.tokenizer.pad_token_id
    with quiet_libraries():
        return Outcome(
            losses=[mean_loss(run.model, [row], pad) for row in labelled],
            loss=mean_loss(run.model, labelled, pad),
            answers=_answers(run, asked, pad),
        )


def _answers(run: Run, rows: list[dict[str, Any]], pad: int) -> list[Answer]:
    def ids(text: str) -> list[int]:
        return run.tokenizer(text, add_special_tokens=False)["input_ids"]

    prompts = {
        index: ids(
            run.tokenizer.apply_chat_template(
                row["messages"][:-1], tokenize=False, add_generation_prompt=True
            )
        )
        for index, row in enumerate(rows)
    }
    # A question longer than what was trained on, or than the model reads, leaves no room.
    fitting = [n for n, prompt in prompts.items() if len(prompt) < run.settings.max_length]
    chosen = sorted(Random("answered").sample(fitting, min(ANSWERED, len(fitting))))
    if not chosen:
        return []
    longest = max(len(ids(part_of(rows[n], "answer"))) for n in chosen)
    most = min(longest + longest // 2 + 8, 256)
    new = generate(
        run.model, [prompts[n] for n in chosen], pad=pad, max_new_tokens=most, batch_size=16
    )
    return [
        Answer(
            row=n,
            text=run.tokenizer.decode(made, skip_special_tokens=True),
            ended=len(made) < most,
        )
        for n, made in zip(chosen, new, strict=True)
    ]


def is_short(rows: Sequence[dict[str, Any]]) -> bool:
    """Whether answers are so short that a good one is the reference, word for word."""
    words = sorted(len(part_of(row, "answer").split()) for row in rows)
    return words[len(words) // 2] <= SHORT


def is_exact(answer: str, row: dict[str, Any]) -> bool:
    """Whether an answer is the row's, but for case and white space."""
    return normalise(answer) == normalise(part_of(row, "answer"))


def first_difference(answer: str, row: dict[str, Any]) -> int:
    """Words of an answer that agree with the row's before the first that does not."""
    given, wanted = answer.split(), part_of(row, "answer").split()
    pairs = zip(given, wanted, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(given), len(wanted)))
