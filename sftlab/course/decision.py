"""When to prompt, to fine-tune, or neither: rules that explain their answer (claim B7).

The rules stand in an order. The first that applies decides; each rule that was passed over leaves
the sentence that says why it did not apply. So the reasons of an advice are the path through

    changing facts? -> prompt enough? -> open assistant? -> facts missing? -> not measured?
        -> changes too often? -> no worked steps? -> too large? -> too few examples? -> fine-tune

They follow articles P (000), U (001) and V (004), which the table of rules names row by row.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any

import pandas as pd

from sftlab.course.decision_rules import CHOICES, RULES, Choice
from sftlab.course.decision_steps import STEPS
from sftlab.course.situation import ARCHETYPES, TASKS, Limits, Situation, SituationError

__all__ = [
    "ARCHETYPES", "CHOICES", "RULES", "TASKS", "Advice", "Change", "Limits", "Situation",
    "SituationError", "decide", "rules_table",
]  # fmt: skip


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
    """Number of the rule that decided, as in `rules_table`."""
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
        for title, items in (("Reasons", self.reasons), ("Next steps", self.next_steps),
                             ("Would change it", self.would_change)):  # fmt: skip
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
    for rule in RULES:
        applies, sentence = rule.check(situation, limits)
        if applies:
            break
        passed.append(sentence)
    return Advice(
        situation=situation,
        limits=limits,
        choice=rule.choice,
        rule=RULES.index(rule) + 1,
        reasons=tuple(text for text in (sentence, *passed) if text),
        next_steps=tuple(STEPS[rule.choice](situation, limits)),
    )


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


def rules_table(*, limits: Limits | None = None) -> pd.DataFrame:
    """The rules in the order in which they are asked, with the thresholds written in."""
    limits = limits or Limits()
    values = {f.name: getattr(limits, f.name) for f in fields(limits)}
    rows = [
        {"if": rule.condition.format(**values), "advice": rule.choice, "because": rule.because,
         "from": rule.source}
        for rule in RULES
    ]  # fmt: skip
    return pd.DataFrame(rows, index=pd.RangeIndex(1, len(rows) + 1, name="rule"))
