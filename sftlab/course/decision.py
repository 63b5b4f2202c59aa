"""When to prompt, to fine-tune, or neither: rules that explain their advice (claim B7).

The rules stand in an order. The first that applies decides; each rule that was passed over leaves
the sentence that says why it did not apply. So the reasons of an advice are the path through

    changing facts? -> prompt enough? -> open assistant? -> facts missing? -> not measured?
        -> changes too often? -> no worked steps? -> too large? -> too few examples? -> fine-tune

They follow articles P (000), U (001) and V (004), which the table of rules names row by row.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

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


def _check_number(owner: object, name: str, *, highest: float = math.inf, hint: str) -> None:
    value, kind = getattr(owner, name), (int, float)
    if name.endswith("examples"):
        kind, hint = int, f"{hint}, a whole number"
    right = isinstance(value, kind) and not isinstance(value, bool)
    if not (right and math.isfinite(value) and 0 <= value <= highest):
        raise SituationError(f"{name} is {value!r}; give {hint}")


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
        for one in fields(self):
            _check_number(self, one.name, hint="a threshold of zero or more")
        if self.gb_per_billion == 0:
            raise SituationError("gb_per_billion is 0; every base needs some memory")

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
        _check_number(self, "examples", hint="how many clean examples there are")
        for name in ("prompt_score", "needed_score"):
            if getattr(self, name) is not None:
                _check_number(self, name, highest=1, hint="a share from 0 to 1: 62% is 0.62")
        for name, allowed in (("prompt_fits", (True, False)), ("base_knows", (True, False, None))):
            # by identity: 1 == True, and a count is no answer to a yes-or-no question
            if not any(getattr(self, name) is value for value in allowed):
                choices = ", ".join(map(str, allowed))
                raise SituationError(f"{name} is {getattr(self, name)!r}; choose one of {choices}")
        _check_number(self, "stable_weeks", hint="weeks, for example 52 for once a year")
        _check_number(self, "memory_gb", hint="GB, and 0 when there is no GPU")
        _check_number(self, "model_billions", hint="billions of parameters: 8 for an 8B model")
        if self.model_billions == 0:
            raise SituationError("model_billions is 0; give billions of parameters: 8 for 8B")

    @property
    def prompt_is_enough(self) -> bool:
        """Whether the best prompt was measured and reaches the needed score."""
        measured = self.prompt_score is not None and self.needed_score is not None
        return measured and self.prompt_score >= self.needed_score


_8B = {"model_billions": 8, "memory_gb": 24}
ARCHETYPES: dict[str, Situation] = {
    name: Situation(task=task, examples=examples, prompt_score=score, needed_score=needed, **rest)
    for name, task, examples, score, needed, rest in (
        ("Support bot in house style", "format", 3_000, 0.71, 0.9, {"base_knows": True, **_8B}),
        ("JSON extraction, answers in 100 ms", "format", 150, 0.96, 0.95,
         {"base_knows": True, "prompt_fits": False, "model_billions": 0.135}),
        ("Clinic letters, nothing measured yet", "domain", 2_400, None, 0.85,
         {"model_billions": 8, "memory_gb": 12}),
        ("Price list of the week", "facts", 8_000, 0.4, 0.98,
         {"base_knows": False, "stable_weeks": 1, **_8B}),
        ("Tax questions in several steps", "reasoning", 600, 0.45, 0.9,
         {"base_knows": True, **_8B}),
        ("General assistant", "assistant", 1_000, 0.3, 0.8,
         {"base_knows": True, "model_billions": 8, "memory_gb": 80}),
        ("Meeting summaries", "format", 500, 0.93, 0.9, {"base_knows": True, **_8B}),
    )
}  # fmt: skip
"""Invented situations, one for each kind of advice; their scores are examples, not measurements."""


Choice = Literal[
    "measure a prompt first", "prompt", "fine-tune", "collect data first", "retrieve", "neither"
]
CHOICES: dict[str, str] = {
    "measure a prompt first": "A number is missing. Measure it before you choose.",
    "prompt": "Work on the prompt. Train nothing.",
    "fine-tune": "Fine-tune, and compare with the best prompt on the same test.",
    "collect data first": "Fine-tuning fits the task, but there are too few clean examples.",
    "retrieve": "Look the facts up and put them into the prompt. Training does not add them.",
    "neither": "Change the model before you prompt or train this one.",
}
Finding = tuple[bool, str]


def _facts(s: Situation, limits: Limits) -> Finding:
    if s.task != "facts":
        return False, ""
    return True, "task is 'facts': weights keep what was true on the day of training."


def _prompt(s: Situation, limits: Limits) -> Finding:
    if s.prompt_score is None or s.needed_score is None:
        return False, ""
    scores = f"prompt_score is {s.prompt_score:g} and needed_score is {s.needed_score:g}: "
    if not s.prompt_is_enough:
        short = s.needed_score - s.prompt_score
        return False, f"{scores}the best prompt falls short by {short:.2g}."
    if not s.prompt_fits:
        return False, f"{scores}good enough, but prompt_fits is no: the prompt costs too much."
    return True, f"{scores}good enough, and prompt_fits is yes: training would gain nothing."


def _assistant(s: Situation, limits: Limits) -> Finding:
    if s.task != "assistant":
        return False, ""
    return True, "task is 'assistant': ready instruction-tuned models saw far broader data."


def _missing(s: Situation, limits: Limits) -> Finding:
    if s.task != "domain" or s.base_knows is None:
        return False, ""
    if s.base_knows:
        return False, "base_knows is yes: fine-tuning can bring out what the base already holds."
    return True, "base_knows is no: fine-tuning teaches how to answer, it does not add the facts."


def _unmeasured(s: Situation, limits: Limits) -> Finding:
    empty = [f for f in ("prompt_score", "needed_score") if getattr(s, f) is None]
    if s.task == "domain" and s.base_knows is None:
        empty.append("base_knows")
    if not empty:
        return False, ""
    are, them = ("is", "it") if len(empty) == 1 else ("are", "them")
    return True, f"{' and '.join(empty)} {are} still open: the later rules need {them}."


def _changing(s: Situation, limits: Limits) -> Finding:
    known = f"stable_weeks is {s.stable_weeks:g}"
    if s.stable_weeks < limits.stable_weeks:
        least = f"{limits.stable_weeks:g}"
        return True, f"{known}, under {least}: the task changes before a fine-tune has paid."
    return False, f"{known}: the task holds still long enough to train for it."


def _unworked(s: Situation, limits: Limits) -> Finding:
    if s.task != "reasoning" or s.prompt_is_enough:
        return False, ""
    known, least = f"task is 'reasoning' and examples is {s.examples:,}", limits.examples(s.task)[1]
    if s.examples < least:
        return True, f"{known}, under {least:,}: too few worked examples to teach the steps."
    return False, f"{known}: there are enough worked examples."


def _too_large(s: Situation, limits: Limits) -> Finding:
    if s.model_billions <= limits.cpu_billions:
        return False, f"model_billions is {s.model_billions:g}: so small a base trains on a CPU."
    known = f"model_billions is {s.model_billions:g} and memory_gb is {s.memory_gb:g}"
    need = f"{limits.memory_for(s.model_billions):.3g} GB"
    if limits.fits(s):
        return False, f"{known}: training needs about {need}, so it fits."
    return True, f"{known}: training needs about {need} even with the base in 4 bits."


def _few(s: Situation, limits: Limits) -> Finding:
    pilot, reliable = limits.examples(s.task)
    known = f"examples is {s.examples:,}"
    if s.examples < pilot:
        return True, f"{known}, under {pilot:,}: so few teach their own faults along with the task."
    if s.examples < reliable:
        return False, f"{known}, under {reliable:,}: enough for a pilot, with weak results likely."
    return False, f"{known}: enough to expect a reliable result."


def _otherwise(s: Situation, limits: Limits) -> Finding:
    return True, ""  # the sentences of the rules passed over are the reasons


RULES: tuple[tuple[Choice, Callable[[Situation, Limits], Finding]], ...] = (
    ("retrieve", _facts),  # P (stale data), V: weights keep the state of the training day
    ("prompt", _prompt),  # V, U: training would add work and gain nothing
    ("neither", _assistant),  # P: ready models had far more and broader data
    ("retrieve", _missing),  # V, claim B5: fine-tuning teaches behaviour, not knowledge
    ("measure a prompt first", _unmeasured),  # V, U: prompting is the cheaper rival
    ("prompt", _changing),  # V: a prompt is changed in minutes
    ("neither", _unworked),  # P, claim B9: answers alone do not teach the steps
    ("neither", _too_large),  # P, course: training would not start
    ("collect data first", _few),  # P, U, V: little or poor data can make the model worse
    ("fine-tune", _otherwise),  # P, U, V: all that fine-tuning needs is there
)
"""What each rule advises, and its check: whether it applies, and the sentence for the learner."""


def _steps_measure(s: Situation, limits: Limits) -> Iterator[str]:
    if s.needed_score is None:
        yield "Fix the metric and the score that the task needs, before you see any result."
    if s.prompt_score is None:
        # 100 answers, exact binomial at 50%: 40% to 60%
        yield "Write 100 test questions with right answers; they tell a score to about 10 points."
        yield "Score three prompts: the bare question, clear instructions, four worked examples."
        yield "Ask each question in a second wording, and note how far the score moves."
        yield "Note tokens and seconds of an answer, and decide whether the prompt fits."
        if s.task == "format":
            yield "If a grammar or schema states the format, score constrained decoding as well."
    if s.task == "domain" and s.base_knows is None:
        yield "Let the base complete plain statements of the facts, and count the right ones."


def _steps_prompt(s: Situation, limits: Limits) -> Iterator[str]:
    if s.stable_weeks < limits.stable_weeks:
        yield "Keep the rules that change in one block of the prompt, so one edit follows a change."
    if not s.prompt_fits:
        yield "Remove one part of the prompt at a time and score again; cache what stays the same."
    if s.prompt_score is not None and s.needed_score is not None:
        if s.prompt_score < s.needed_score:
            yield "Read the wrong answers, change one thing in the prompt, and score again."
            yield "Score the same prompt on a stronger model."
        else:
            yield "Score a second wording of each question: the prompt must hold for both."
    yield "Version the prompt with its test, and rerun the test when prompt or model changes."


def _steps_tune(s: Situation, limits: Limits) -> Iterator[str]:
    reliable = limits.examples(s.task)[1]
    yield "Split the data 70/15/15 into train, validation and test, with no prompt in two parts."
    if s.examples < reliable:
        yield (
            f"Call it a pilot: train on half and on all. If the score still rises, collect toward "
            f"{reliable:,}."
        )
    # bytes for each weight, as in the preflight: 16 for full fine-tuning in float32 with Adam;
    # 4 for LoRA on a float32 base, and some for activations
    if s.model_billions <= limits.cpu_billions or s.memory_gb >= 16 * s.model_billions:
        method = "Train with full fine-tuning and with LoRA"
    elif s.memory_gb >= 5 * s.model_billions:
        method = "Train LoRA"
    else:
        method = "Train LoRA on a base in 4 bits (QLoRA)"
    yield f"Run the preflight for this base. {method}."
    yield "Mix in 10-20% general examples, and score old skills before and after."
    yield "Compare with the best prompt on the same test: three seeds or more, with intervals."


def _steps_collect(s: Situation, limits: Limits) -> Iterator[str]:
    pilot, reliable = limits.examples(s.task)
    yield f"Collect {pilot - s.examples:,} more clean examples for a pilot of {pilot:,}."
    yield "Let the best prompt write drafts, and let someone who knows the task correct each one."
    yield "Remove duplicates, use one format, and keep the test questions apart."
    yield "Serve the best prompt until then."
    yield f"Plan for {reliable:,} examples if the pilot helps."


def _steps_retrieve(s: Situation, limits: Limits) -> Iterator[str]:
    yield "Keep the facts in a table or search index that someone updates."
    yield "Score the search alone: how often it finds the right entry."
    yield "Put the entries found into the prompt, and score the answers."
    yield "If only the form of the answers is wrong then, ask this guide again with task 'format'."


def _steps_another(s: Situation, limits: Limits) -> Iterator[str]:
    if s.task == "assistant":
        yield "Score two or three ready instruction-tuned models on your own test questions."
        yield "Read their licences, and compare the price of an answer."
        yield "Adapt the best one by prompt; ask this guide again for each narrow task that fails."
    elif s.task == "reasoning" and s.examples < limits.reliable_examples:
        yield "Score a stronger model that reasons in steps, on your own test questions."
        yield "Split the task, and let code do what can be calculated or looked up."
        yield "To fine-tune later, collect examples that show each step, not only the answer."
    else:
        largest, need = limits.largest_base(s.memory_gb), limits.memory_for(s.model_billions)
        if largest > 0:
            yield f"Score a base of at most {largest:.3g} billion parameters: it can be trained."
        yield f"Or rent a GPU with at least {need:.3g} GB for the training."
        yield "Run the preflight for the base that you choose, before you start."


STEPS: dict[str, Callable[[Situation, Limits], Iterator[str]]] = {
    "measure a prompt first": _steps_measure,
    "prompt": _steps_prompt,
    "fine-tune": _steps_tune,
    "collect data first": _steps_collect,
    "retrieve": _steps_retrieve,
    "neither": _steps_another,
}
"""For each advice, the steps that follow it."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """One answer that, changed alone, changes the advice."""

    field: str
    """The field of the situation."""
    value: Any
    """A value that changes the advice."""
    wording: str
    """The same in words, such as `at least 500`."""
    choice: Choice
    """The advice with that value."""

    def __str__(self) -> str:
        return f"{self.field} {self.wording} → {self.choice}"


@dataclass(frozen=True, kw_only=True)
class Advice:
    """What to do, and why."""

    situation: Situation
    """The situation that was judged."""
    limits: Limits = field(repr=False)
    """The thresholds that were used."""
    choice: Choice
    """The advice: a key of `CHOICES`."""
    rule: int
    """Number of the rule that decided, in `RULES`, from 1."""
    reasons: tuple[str, ...]
    """The rule that decided, then why each rule before it did not."""
    next_steps: tuple[str, ...]
    """What to do now, in order."""

    @property
    def would_change(self) -> tuple[Change, ...]:
        """Single answers that change the advice, found by asking `decide` again with each.

        The task stays as it is, and nothing measured is forgotten again.
        """
        found: dict[tuple[str, str], Change] = {}
        for name, value, wording in _flips(self.situation, self.limits):
            choice = decide(replace(self.situation, **{name: value}), limits=self.limits).choice
            if choice != self.choice:
                change = Change(field=name, value=value, wording=wording, choice=choice)
                found.setdefault((name, choice), change)  # the first is the nearest
        return tuple(found.values())

    def __str__(self) -> str:
        lines = [f"{self.choice}: {CHOICES[self.choice]}"]
        for title, items in (
            ("Reasons", self.reasons),
            ("Next steps", self.next_steps),
            ("Would change it", self.would_change),
        ):
            lines += [f"{title}:", *(f"  - {item}" for item in items or ("no single answer",))]
        return "\n".join(lines)


def decide(situation: Situation, *, limits: Limits | None = None) -> Advice:
    """Advise on one situation.

    Args:
        situation: the task and the means at hand.
        limits: thresholds other than the course's.
    """
    limits = limits or Limits()
    passed: list[str] = []
    for number, (choice, check) in enumerate(RULES, start=1):
        applies, sentence = check(situation, limits)
        if applies:
            return Advice(
                situation=situation,
                limits=limits,
                choice=choice,
                rule=number,
                reasons=tuple(text for text in (sentence, *passed) if text),
                next_steps=tuple(STEPS[choice](situation, limits)),
            )
        passed.append(sentence)
    raise AssertionError("the last rule applies to every situation")


def _flips(s: Situation, limits: Limits) -> Iterator[tuple[str, Any, str]]:
    """Values on the other side of each threshold, the nearest first: (field, value, wording)."""
    if s.needed_score is not None:
        if not s.prompt_is_enough:
            yield "prompt_score", s.needed_score, f"at least {s.needed_score:g}"
        if (s.prompt_score is None or s.prompt_is_enough) and s.needed_score > 0:
            yield "prompt_score", s.needed_score * 0.99, f"below {s.needed_score:g}"
    if s.prompt_score is not None:
        if not s.prompt_is_enough:
            yield "needed_score", s.prompt_score, f"at most {s.prompt_score:g}"
        if (s.needed_score is None or s.prompt_is_enough) and s.prompt_score < 1:
            yield "needed_score", (s.prompt_score + 1) / 2, f"above {s.prompt_score:g}"
    yield "prompt_fits", not s.prompt_fits, "no" if s.prompt_fits else "yes"
    for value in (True, False):
        if value is not s.base_knows:
            yield "base_knows", value, "yes" if value else "no"
    sizes = limits.examples(s.task)
    more = [(size, f"at least {size:,}") for size in sizes if size > s.examples]
    fewer = [(size - 1, f"under {size:,}") for size in reversed(sizes) if 0 < size <= s.examples]
    yield from (("examples", *size) for size in more + fewer)
    if s.stable_weeks < limits.stable_weeks:
        yield "stable_weeks", limits.stable_weeks, f"at least {limits.stable_weeks:g}"
    elif limits.stable_weeks > 0:
        yield "stable_weeks", limits.stable_weeks / 2, f"under {limits.stable_weeks:g}"
    largest, need = limits.largest_base(s.memory_gb), limits.memory_for(s.model_billions)
    if limits.fits(s):
        yield "model_billions", largest * 2 + 1, f"above {largest:.3g}"
        yield "memory_gb", 0, f"under {need:.3g}"
    else:
        if largest > 0:
            yield "model_billions", largest, f"at most {largest:.3g}"
        yield "memory_gb", need, f"at least {need:.3g}"
