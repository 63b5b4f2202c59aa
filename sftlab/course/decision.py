"""When to prompt, to fine-tune, or neither: rules that explain their advice.

The rules stand in an order. The first that applies decides; each rule that was passed over leaves
the sentence that says why it did not apply. So the reasons of an advice are the path through

    changing facts? -> prompt enough? -> open assistant? -> facts missing? -> not measured?
        -> changes too often? -> no worked steps? -> too large? -> too few examples? -> fine-tune

Rules, sentences, next steps and example situations are in decision.toml; the conditions that they
name are here, in `_facts`.
"""

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

_GUIDE = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
TASKS: dict[str, str] = _GUIDE["tasks"]
"""Kind of task -> what its answers must show."""
CHOICES: dict[str, str] = _GUIDE["choices"]
"""Advice -> what it means."""


class SituationError(ValueError):
    """An answer that the guide can't use; the message says what to write instead."""


# Examples for a pilot, and to rely on. Of a domain or of reasoning article P (000) calls 500 weak
# and 5,000 to 10,000 reliable. For a format or style article U (001) finds hundreds to a few
# thousand enough; within that range these are the course's working values.
PILOT, RELIABLE = 500, 5_000
FORMAT_PILOT, FORMAT_RELIABLE = 200, 2_000
LEAST_WEEKS = 10
"""Fewest weeks between two changes of the task. Article P: data takes up to three weeks and 60-70%
of a project, so a project takes about five; its result is used for twice as long."""
GB_PER_BILLION = 1.5
"""GB of GPU memory for a billion parameters, the base in 4 bits and LoRA. Article P: an 8B model
trains on a card of 12 GB."""
CPU_BILLIONS = 0.2
"""Largest base that trains overnight without a GPU. 5,000 examples of 200 tokens, 3 epochs, are 3e6
tokens; at 6 operations for each token and weight, 0.2e9 weights need 3.6e15, ten hours on two cores
of 1e11 a second."""


@dataclass(frozen=True, kw_only=True)
class Situation:
    """One task and what there is to do it with."""

    task: str  # what the answers must show: a key of TASKS
    examples: int = 0  # clean and checked; for reasoning, only those that show every step
    prompt_score: float | None = None  # of the best prompt, held-out questions; None: not measured
    needed_score: float | None = None  # at which the task counts as done; None: not decided
    prompt_fits: bool = True  # each request can afford the best prompt, in latency and in price
    stable_weeks: float = 52  # between two changes of the task's rules, format or style
    base_knows: bool | None = None  # the base completes the facts needed; None: not measured
    model_billions: float = 0.0037  # parameters of the base to train; the default is `tiny`
    memory_gb: float = 0  # GPU memory for training; 0 for a CPU only

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise SituationError(f"task is {self.task!r}; choose one of {', '.join(TASKS)}")
        for name in ("prompt_score", "needed_score"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise SituationError(f"{name} is {value!r}; give a share from 0 to 1: 62% is 0.62")


ARCHETYPES = {name: Situation(**values) for name, values in _GUIDE["archetypes"].items()}
"""Invented situations, one for each kind of advice; their scores are examples, not measurements."""


class Change(NamedTuple):
    """One answer that, changed alone, changes the advice."""

    field: str  # of the situation
    value: Any
    wording: str  # the value in words, such as `at least 500`
    choice: str  # the advice with that value

    def __str__(self) -> str:
        return f"{self.field} {self.wording} → {self.choice}"


@dataclass(frozen=True, kw_only=True)
class Advice:
    """What to do, and why."""

    situation: Situation
    choice: str  # the advice: a key of CHOICES
    rule: int  # number of the rule that decided, from 1
    reasons: tuple[str, ...]  # the rule that decided, then why each rule before it did not
    next_steps: tuple[str, ...]  # what to do now, in order

    @property
    def would_change(self) -> tuple[Change, ...]:
        """Single answers that change the advice, found by asking `decide` again with each.

        The task stays as it is, and nothing measured is forgotten again.
        """
        found: dict[tuple[str, str], Change] = {}
        for name, value, wording in _flips(self.situation):
            choice = decide(replace(self.situation, **{name: value})).choice
            if choice != self.choice:
                # the first is the nearest
                found.setdefault((name, choice), Change(name, value, wording, choice))
        return tuple(found.values())

    def __str__(self) -> str:
        lines = [f"{self.choice}: {CHOICES[self.choice]}"]
        lists = {"Reasons": self.reasons, "Next steps": self.next_steps}
        for title, items in (lists | {"Would change it": self.would_change}).items():
            lines += [f"{title}:", *(f"  - {item}" for item in items or ("no single answer",))]
        return "\n".join(lines)


def decide(situation: Situation) -> Advice:
    """Advise on one situation."""
    holds, values = _facts(situation)
    rules = _GUIDE["rules"]
    number = next(n for n, rule in enumerate(rules) if holds[rule["when"]])
    reasons = [rules[number]["because"]]
    for rule in rules[:number]:
        reasons += [text for when, text in rule.get("passed", {}).items() if holds[when]][:1]
    choice = rules[number]["choice"]
    steps = [s["do"] for s in _GUIDE["steps"][choice] if holds[s.get("when", "always")]]
    return Advice(
        situation=situation,
        choice=choice,
        rule=number + 1,
        reasons=tuple(text.format(**values) for text in reasons if text),
        next_steps=tuple(text.format(**values) for text in steps),
    )


def _examples(task: str) -> tuple[int, int]:
    """Examples for a pilot and for a reliable fine-tune of a kind of task."""
    return (FORMAT_PILOT, FORMAT_RELIABLE) if task == "format" else (PILOT, RELIABLE)


def _largest_base(memory_gb: float) -> float:
    """Billions of parameters of the largest base that trains with so many GB, or on a CPU."""
    return max(CPU_BILLIONS, memory_gb / GB_PER_BILLION)


def _facts(s: Situation) -> tuple[dict[str, bool], dict[str, Any]]:
    """Whether each condition of decision.toml holds, and the values that its sentences mention."""
    pilot, reliable = _examples(s.task)
    largest = _largest_base(s.memory_gb)
    domain, reasoning = s.task == "domain", s.task == "reasoning"
    # What has to be measured or decided before the later rules can be asked.
    needed = ["prompt_score", "needed_score", *["base_knows"] * domain]
    missing = [name for name in needed if getattr(s, name) is None]
    measured = s.prompt_score is not None and s.needed_score is not None
    enough = measured and s.prompt_score >= s.needed_score
    few = reasoning and s.examples < reliable
    small = s.model_billions <= CPU_BILLIONS
    other_base = s.task != "assistant" and not few
    # Bytes for each weight, as in the preflight: 16 for full fine-tuning in float32 with Adam;
    # 4 for LoRA on a float32 base, and some for activations.
    full = small or s.memory_gb >= 16 * s.model_billions
    lora = not full and s.memory_gb >= 5 * s.model_billions
    holds = {
        "always": True,
        "facts change": s.task == "facts",
        "prompt is enough": enough,
        "prompt is enough and fits": enough and s.prompt_fits,
        "prompt falls short": measured and not enough,
        "prompt too long": not s.prompt_fits,
        "open assistant": s.task == "assistant",
        "facts missing": domain and s.base_knows is False,
        "facts known": domain and s.base_knows is True,
        "facts not probed": domain and s.base_knows is None,
        "no prompt score": s.prompt_score is None,
        "no prompt score of a format": s.prompt_score is None and s.task == "format",
        "no needed score": s.needed_score is None,
        "something is open": bool(missing),
        "task changes": s.stable_weeks < LEAST_WEEKS,
        "few worked examples": few,
        "steps not taught": few and not enough,
        "steps taught": reasoning and not few and not enough,
        "base too large": s.model_billions > largest * (1 + 1e-9),  # rounding aside
        "base trains on a CPU": small,
        "too few for a pilot": s.examples < pilot,
        "enough for a pilot only": s.examples < reliable,
        "room for full fine-tuning": full,
        "room for LoRA": lora,
        "room for QLoRA": not full and not lora,
        "another base is needed": other_base,
        "a smaller base would do": other_base,
    }
    return holds, vars(s) | {
        "least_weeks": LEAST_WEEKS,
        "short": (s.needed_score or 0) - (s.prompt_score or 0),
        "open": f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} still open",
        "them": "it" if len(missing) == 1 else "them",
        "pilot": pilot,
        "reliable": reliable,
        "more": pilot - s.examples,
        "largest": largest,
        "need": GB_PER_BILLION * s.model_billions,
    }


def _flips(s: Situation) -> Iterator[tuple[str, Any, str]]:
    """Values on both sides of each threshold, the nearest first: (field, value, wording).

    A value on the side where the situation already is changes nothing and is not listed.
    """
    if s.needed_score is not None:
        yield "prompt_score", s.needed_score, f"at least {s.needed_score:g}"
        yield "prompt_score", s.needed_score * 0.99, f"below {s.needed_score:g}"
    if s.prompt_score is not None:
        yield "needed_score", s.prompt_score, f"at most {s.prompt_score:g}"
        yield "needed_score", (s.prompt_score + 1) / 2, f"above {s.prompt_score:g}"
    yield "prompt_fits", not s.prompt_fits, "no" if s.prompt_fits else "yes"
    yield "base_knows", True, "yes"
    yield "base_knows", False, "no"
    sizes = _examples(s.task)
    yield from (("examples", n, f"at least {n:,}") for n in sizes if n > s.examples)
    fewer = (n for n in reversed(sizes) if 0 < n <= s.examples)
    yield from (("examples", n - 1, f"under {n:,}") for n in fewer)
    yield "stable_weeks", LEAST_WEEKS, f"at least {LEAST_WEEKS:g}"
    yield "stable_weeks", LEAST_WEEKS / 2, f"under {LEAST_WEEKS:g}"
    largest = _largest_base(s.memory_gb)
    need = GB_PER_BILLION * s.model_billions
    yield "model_billions", largest * 2 + 1, f"above {largest:.3g}"
    yield "model_billions", largest, f"at most {largest:.3g}"
    yield "memory_gb", 0, f"under {need:.3g}"
    yield "memory_gb", need, f"at least {need:.3g}"
