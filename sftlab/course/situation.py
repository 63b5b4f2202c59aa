"""What the decision guide asks about a task, and the thresholds that it holds the answers to."""

import math
from dataclasses import dataclass, fields
from typing import Literal

Task = Literal["format", "domain", "assistant", "reasoning", "facts"]
TASKS: dict[str, str] = {
    "format": "a fixed format or style",
    "domain": "answers in one domain",
    "assistant": "an open general assistant",
    "reasoning": "reasoning in several steps",
    "facts": "facts that change",
}


class SituationError(ValueError):
    """An answer that the guide can't use; the message says what to write instead."""


def _number(owner: object, field: str, *, highest: float = math.inf, remedy: str) -> None:
    value = getattr(owner, field)
    right = isinstance(value, int | float) and not isinstance(value, bool)
    if not (right and math.isfinite(value) and 0 <= value <= highest):
        raise SituationError(f"{field} is {value!r}; {remedy}")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Thresholds of the guide. An instructor may change any: `decide(situation, limits=...)`."""

    # Article P (000) calls 500 examples weak and 5,000 to 10,000 reliable.
    pilot_examples: int = 500
    """Examples of a domain or of reasoning that are enough for a pilot."""
    reliable_examples: int = 5_000
    """Examples of a domain or of reasoning that are enough to rely on."""
    # Article U (001) finds hundreds to a few thousand enough for format; within that range these
    # are the course's working values.
    format_pilot_examples: int = 200
    """Examples of a format or style that are enough for a pilot."""
    format_reliable_examples: int = 2_000
    """Examples of a format or style that are enough to rely on."""
    # Article P: data takes up to three weeks and 60-70% of a project, so a project takes about
    # five. The working value asks that its result is used for twice as long.
    stable_weeks: float = 10
    """Fewest weeks between two changes of the task for which a fine-tune pays."""
    # Article P: an 8B model trains on a card of 12 GB (4-bit base and LoRA).
    gb_per_billion: float = 1.5
    """GB of GPU memory for a billion parameters, the base in 4 bits and LoRA."""
    # Working value: 5,000 examples of 200 tokens, 3 epochs, are 3e6 tokens; at 6 operations for
    # each token and weight, 0.2e9 weights need 3.6e15, ten hours on two cores of 1e11 a second.
    cpu_billions: float = 0.2
    """Largest base, in billions of parameters, that trains overnight without a GPU."""

    def __post_init__(self) -> None:
        for field in fields(self):
            _number(self, field.name, remedy="a threshold is a number, zero or more")
            if field.name.endswith("examples") and not isinstance(getattr(self, field.name), int):
                raise SituationError(
                    f"{field.name} is {getattr(self, field.name)!r}; write a whole number"
                )
        if self.gb_per_billion == 0:
            raise SituationError("gb_per_billion is 0; every base needs some memory")
        for kind in ("", "format_"):
            pilot, reliable = (
                getattr(self, f"{kind}{size}_examples") for size in ("pilot", "reliable")
            )
            if pilot > reliable:
                raise SituationError(
                    f"{kind}pilot_examples is {pilot} and {kind}reliable_examples {reliable}; a "
                    "pilot needs no more examples than a reliable fine-tune"
                )

    def examples(self, task: str) -> tuple[int, int]:
        """Examples for a pilot and for a reliable fine-tune of a kind of task."""
        if task == "format":
            return self.format_pilot_examples, self.format_reliable_examples
        return self.pilot_examples, self.reliable_examples

    def memory_for(self, billions: float) -> float:
        """GB of GPU memory for training a base of so many billion parameters."""
        return self.gb_per_billion * billions

    def largest_base(self, memory_gb: float) -> float:
        """Billions of parameters of the largest base that trains with so many GB, or on a CPU."""
        return max(self.cpu_billions, memory_gb / self.gb_per_billion)

    def fits(self, situation: "Situation") -> bool:
        """Whether the base of a situation can be trained with its memory."""
        largest = self.largest_base(situation.memory_gb)
        return situation.model_billions <= largest * (1 + 1e-9)  # rounding must not decide


@dataclass(frozen=True, kw_only=True)
class Situation:
    """One task and what there is to do it with."""

    task: Task
    """What the answers must show: a key of `TASKS`."""
    examples: int = 0
    """Clean, checked examples at hand; for reasoning, only those that show every step."""
    prompt_score: float | None = None
    """Score of the best prompt so far on held-out questions, 0 to 1; `None` if not measured."""
    needed_score: float | None = None
    """Score at which the task counts as done, 0 to 1; `None` if not decided."""
    prompt_fits: bool = True
    """Whether each request can afford the length of the best prompt, in latency and in price."""
    stable_weeks: float = 52
    """Weeks between two changes of the task's rules, format or style."""
    base_knows: bool | None = None
    """Whether the base completes the facts that the answers need; `None` if not measured."""
    model_billions: float = 0.0037
    """Parameters of the base that would be trained, in billions; the default is `tiny`."""
    memory_gb: float = 0
    """GPU memory for training, in GB; 0 for a CPU only."""

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise SituationError(f"task is {self.task!r}; choose one of {', '.join(TASKS)}")
        _number(self, "examples", remedy="count your clean examples, 0 or more")
        if not isinstance(self.examples, int):
            raise SituationError(f"examples is {self.examples!r}; write a whole number")
        for field in ("prompt_score", "needed_score"):
            if getattr(self, field) is not None:
                _number(self, field, highest=1, remedy="write a share from 0 to 1: 62% is 0.62")
        for field, allowed in (("prompt_fits", (True, False)), ("base_knows", (True, False, None))):
            # by identity: 1 == True, and a count is no answer to a yes-or-no question
            if not any(getattr(self, field) is value for value in allowed):
                choices = ", ".join(str(value) for value in allowed)
                raise SituationError(f"{field} is {getattr(self, field)!r}; choose {choices}")
        _number(self, "stable_weeks", remedy="give weeks, for example 52 for once a year")
        _number(self, "memory_gb", remedy="give GB, and 0 when there is no GPU")
        _number(self, "model_billions", remedy="give billions of parameters: 8 for an 8B model")
        if self.model_billions == 0:
            raise SituationError("model_billions is 0; give billions of parameters: 8 for 8B")

    @property
    def prompt_is_enough(self) -> bool:
        """Whether the best prompt was measured and reaches the needed score."""
        measured = self.prompt_score is not None and self.needed_score is not None
        return measured and self.prompt_score >= self.needed_score


ARCHETYPES: dict[str, Situation] = {
    "Support bot in house style": Situation(
        task="format", examples=3_000, prompt_score=0.71, needed_score=0.9,
        base_knows=True, model_billions=8, memory_gb=24,
    ),
    "JSON extraction, answers in 100 ms": Situation(
        task="format", examples=150, prompt_score=0.96, needed_score=0.95, prompt_fits=False,
        base_knows=True, model_billions=0.135,
    ),
    "Clinic letters, nothing measured yet": Situation(
        task="domain", examples=2_400, needed_score=0.85, model_billions=8, memory_gb=12,
    ),
    "Price list of the week": Situation(
        task="facts", examples=8_000, prompt_score=0.4, needed_score=0.98, stable_weeks=1,
        base_knows=False, model_billions=8, memory_gb=24,
    ),
    "Tax questions in several steps": Situation(
        task="reasoning", examples=600, prompt_score=0.45, needed_score=0.9,
        base_knows=True, model_billions=8, memory_gb=24,
    ),
    "General assistant": Situation(
        task="assistant", examples=1_000, prompt_score=0.3, needed_score=0.8,
        base_knows=True, model_billions=8, memory_gb=80,
    ),
    "Meeting summaries": Situation(
        task="format", examples=500, prompt_score=0.93, needed_score=0.9,
        base_knows=True, model_billions=8, memory_gb=24,
    ),
}  # fmt: skip
"""Invented situations, one for each kind of advice; their scores are examples, not measurements."""
