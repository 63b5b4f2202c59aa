"""The rule of one part of a claim, and the verdict that follows from an interval.

    at_least b    supported: low >= b     contradicted: high < b              otherwise
    at_most  b    supported: high <= b    contradicted: low > b               inconclusive
    within   m    supported: inner inside +-m   contradicted: interval outside +-m

`inner` is the interval of two one-sided tests, at 1 - 2(1 - level): sameness is shown, not assumed
because no difference was found (Schuirmann 1987). Numbers that all runs gave alike have no
interval, and are inconclusive; a figure in which nothing is random is `computed`.
"""

import math
from dataclasses import dataclass
from typing import Literal

from sftlab.measure import CONSTANT, Estimate, equivalent, percent

SUPPORTED, CONTRADICTED, INCONCLUSIVE = "supported", "contradicted", "inconclusive"
NOT_TESTABLE, NOT_MEASURED = "not testable here", "not measured"
VERDICTS = (SUPPORTED, CONTRADICTED, INCONCLUSIVE, NOT_TESTABLE)
KINDS = ("at_least", "at_most", "within")
UNITS = {
    "share": (0.0, 1.0),
    "difference of shares": (-1.0, 1.0),
    "relative difference": (-math.inf, math.inf),
    "nats": (-math.inf, math.inf),
    "ratio": (0.0, math.inf),
    "correlation": (-2.0, 2.0),  # a rule may take the difference of two
    "GB": (-math.inf, math.inf),
    "files": (0.0, math.inf),
}
"""Unit -> the smallest and largest value that it can have."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part of a claim's rule, committed before the run."""

    name: str
    """What `record` calls it, such as `gain`."""
    measures: str
    """What is measured, in one sentence."""
    unit: str
    """One of `UNITS`."""
    kind: Literal["at_least", "at_most", "within"]
    """Which side of `bound` counts."""
    bound: float
    """The smallest effect that counts, or the margin of sameness, in `unit`."""

    def judge(self, estimate: Estimate) -> str:
        """`supported`, `contradicted` or `inconclusive`."""
        if estimate.method == CONSTANT:
            return INCONCLUSIVE
        low, high = estimate.low, estimate.high
        if self.kind == "at_least":
            held, broken = low >= self.bound, high < self.bound
        elif self.kind == "at_most":
            held, broken = high <= self.bound, low > self.bound
        else:
            held = equivalent(estimate, self.bound)
            broken = low > self.bound or high < -self.bound
        return SUPPORTED if held else CONTRADICTED if broken else INCONCLUSIVE

    def slack(self, estimate: Estimate) -> float:
        """How far the interval lies inside what the rule asks, in its own widths."""
        low, high = estimate.inner if self.kind == "within" else (estimate.low, estimate.high)
        room = {
            "at_least": low - self.bound,
            "at_most": self.bound - high,
            "within": min(low + self.bound, self.bound - high),
        }[self.kind]
        width = high - low
        return room / width if width > 0 else math.inf

    @property
    def asks(self) -> str:
        """The rule in words, such as `at least +10 points`."""
        if self.kind == "within":
            return f"a difference within ±{in_unit(self.bound, self.unit).lstrip('+')}"
        return f"{self.kind.replace('_', ' ')} {in_unit(self.bound, self.unit)}"

    def sentence(self, estimate: Estimate) -> str:
        """What was measured and how it stands to the rule, with the numbers that decide."""
        said = f"{self.name}: {interval(estimate, self.unit)}; the rule asks for {self.asks}, and"
        verdict = self.judge(estimate)
        if estimate.method == CONSTANT:
            return f"{said} all runs gave this number, so how far another may lie is not known."
        if verdict == CONTRADICTED:
            return f"{said} the whole interval misses it."
        if self.kind == "within":
            reaches = "lies inside" if verdict == SUPPORTED else "reaches beyond"
            inner = span(*estimate.inner, self.unit)
            return f"{said} the interval of two one-sided tests, {inner}, {reaches}."
        if verdict == SUPPORTED:
            return f"{said} the whole interval meets it."
        return f"{said} the interval holds values on both sides of it."


def in_unit(value: float, unit: str) -> str:
    """A value as it is read: `81%`, `+34 points`, `−0.31 nats`, `1.5 times`, `12%` for relative."""
    if unit == "share":
        return percent(value)
    sign = "−" if value < 0 else "+"
    if unit == "difference of shares":
        points = _points(abs(100 * value))
        return f"{'' if points == '0' else sign}{points} point{'' if points == '1' else 's'}"
    if unit == "relative difference":
        return f"{sign}{abs(value):.0%}"
    if unit == "nats":
        if abs(value) < 1e-6:  # float32 carries no more of a loss
            return "0 nats"
        return f"{'−' if value < 0 else ''}{abs(value):.2g} nats"
    if unit == "ratio":
        return f"{value:.3g} times"
    number = f"{value:.2f}" if unit == "correlation" else f"{value:.3g}"
    return (number if unit == "correlation" else f"{number} {unit}").replace("-", "−")


def _points(points: float) -> str:
    """With a digit more where whole points would hide something."""
    if 0.005 <= points < 0.05:
        return f"{points:.2f}"
    text = f"{points:.{1 if points < 9.95 or 99.5 <= points < 100 else 0}f}"
    return text.removesuffix(".0")


def span(low: float, high: float, unit: str) -> str:
    """`74% to 87%`, `+28 to +41 points`: the unit's word is said once."""
    first, last = in_unit(low, unit), in_unit(high, unit)
    number, _, word = first.partition(" ")
    return f"{number if word and last.endswith(word) else first} to {last}"


def between(low: float, high: float, unit: str) -> str:
    """`74% to 87%`, `+28 to +41`: for a place where the unit's word has just been said."""
    return " to ".join(in_unit(end, unit).partition(" ")[0] for end in (low, high))


def interval(estimate: Estimate, unit: str) -> str:
    """`+34 points (+28 to +41)`: the effect and its interval as they are read."""
    return f"{in_unit(estimate.value, unit)} ({between(estimate.low, estimate.high, unit)})"


def combine(verdicts: list[str]) -> str:
    """The verdict of a claim from those of its parts."""
    if CONTRADICTED in verdicts:
        return CONTRADICTED
    return SUPPORTED if set(verdicts) == {SUPPORTED} else INCONCLUSIVE
