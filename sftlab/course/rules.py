"""What the articles claim, the rule that judges each claim, and the verdict on each of its parts.

`data/claims.toml` holds the claims. A rule has one or more parts, each with one bound; the verdicts
of the parts together are that of the claim (`ledger.Record.verdict`):

    at_least b    supported: low >= b           contradicted: high < b
    at_most  b    supported: high <= b          contradicted: low > b
    within   m    supported: inner inside +-m   contradicted: interval outside +-m

and inconclusive otherwise. `low` and `high` are the 95% interval; `inner` is the 90% one, that of
an equivalence test by two one-sided tests: "no difference was found" is not "the two are equal"
(Schuirmann 1987). A claim is supported when all of its k parts are, which needs no correction
(intersection-union test), and contradicted when any part is, which has k chances to err: that takes
the interval at 1 - 0.05 / k. Numbers that are the same in all runs, and one number of one seed,
have no interval, and are inconclusive; a figure in which nothing is random is `computed`.
"""

import hashlib
import json
import math
import tomllib
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic import model_validator as validator

from sftlab.measure import CONSTANT, NO_INTERVAL, Estimate, equivalent, percent
from sftlab.paths import DATA

SUPPORTED, CONTRADICTED, INCONCLUSIVE = "supported", "contradicted", "inconclusive"
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
LESSONS = """
    00_start_here 01_base_model_problem 02_data 03_data_quality 04_chat_templates 05_loss_masking
    06_training 07_lora_qlora 08_forgetting 09_evaluation 10_safety 11_shipping 12_classification
    13_beyond_sft 14_real_model A1_data_hazards A2_training_settings A3_more_metrics A4_memorization
    A5_in_use A6_hard_labels A7_larger_runs A8_bug_zoo
""".split()
"""File stems of the course's notebooks."""

ARTICLES = {
    "P": "Supervised Fine-Tuning for Large Language Models: A Practical Guide for Real-World Use",
    "U": "What is Supervised Fine-Tuning (SFT)",
    "G": "Supervised Fine-Tuning (SFT) for LLMs",
    "L": "Supervised Fine Tuning: Enhancing Your LLM Accuracy",
    "V": "Supervised Fine-Tuning (SFT)",
}
"""Letter of a claim's source -> title of the article."""

Text = Annotated[str, StringConstraints(strict=True, strip_whitespace=True, min_length=1)]


class ClaimsError(ValueError):
    """A mistake in `claims.toml`, or a claim, part or estimate that does not fit it."""


class Part(BaseModel):
    """One part of a claim's rule, committed before the run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Text  # the key that `record` expects, such as `gain`
    measures: Text  # what is measured, in one sentence
    unit: Literal[tuple(UNITS)]
    kind: Literal[KINDS]  # which side of `bound` counts
    # The smallest effect that counts, or the margin of the equivalence test, in `unit`.
    bound: Annotated[float, Field(strict=True, allow_inf_nan=False)]

    @validator(mode="after")
    def _bound_is_possible(self) -> "Part":
        lowest, highest = UNITS[self.unit]
        if not lowest <= self.bound <= highest or (self.kind == "within" and self.bound <= 0):
            raise ValueError(f"{self.kind} = {self.bound!r} can't be of a {self.unit}; 10% is 0.1")
        return self

    @property
    def allowed(self) -> tuple[float, float]:
        """The values that count."""
        least = {"at_least": self.bound, "at_most": -math.inf, "within": -self.bound}[self.kind]
        return least, math.inf if self.kind == "at_least" else self.bound

    def judge(self, estimate: Estimate, parts: int = 1) -> str:
        """`supported`, `contradicted` or `inconclusive`, as one of so many parts of a rule."""
        if estimate.method == CONSTANT:  # the same in all runs: there is no interval
            return INCONCLUSIVE
        least, most = self.allowed
        if self.kind == "within":
            held = equivalent(estimate, self.bound)
        else:
            held = least <= estimate.low and estimate.high <= most
        if held:
            return SUPPORTED
        low, high = estimate.among(parts)
        return CONTRADICTED if low > most or high < least else INCONCLUSIVE

    def slack(self, estimate: Estimate) -> float:
        """Distance from the interval to the bound that it meets, in widths of the interval."""
        least, most = self.allowed
        within = self.kind == "within"
        low, high = estimate.inner if within else (estimate.low, estimate.high)
        return min(low - least, most - high) / (high - low) if high > low else math.inf

    @property
    def asks(self) -> str:
        """The rule in words, such as `at least +10 points`."""
        if self.kind == "within":
            return f"a difference within ±{in_unit(self.bound, self.unit).lstrip('+')}"
        return f"{self.kind.replace('_', ' ')} {in_unit(self.bound, self.unit)}"

    def deciding(self, estimate: Estimate, parts: int = 1) -> tuple[int, tuple[float, float]]:
        """Level in percent and ends of the interval that decides: 90% for sameness, 95% else."""
        unlike = estimate.method == NO_INTERVAL or self.judge(estimate, parts) == CONTRADICTED
        if self.kind == "within" and not unlike:
            return 90, estimate.inner
        return 95, (estimate.low, estimate.high)

    def effect(self, estimate: Estimate, parts: int = 1) -> str:
        """`+34 points (+28 to +41)`: the effect and the interval that decides, named if 90%."""
        level, ends = self.deciding(estimate, parts)
        named = "90% interval " * (level == 90)
        return f"{in_unit(estimate.value, self.unit)} ({named}{between(*ends, self.unit)})"

    def sentence(self, estimate: Estimate, parts: int = 1) -> str:
        """What was measured and whether the rule holds, with the numbers that decide."""
        said = f"{self.name}: {self.effect(estimate, parts)}; the rule asks for {self.asks}, and"
        verdict, (least, most) = self.judge(estimate, parts), self.allowed
        if estimate.method in (CONSTANT, NO_INTERVAL):
            alike = "all runs gave this number, so " * (estimate.method == CONSTANT)
            return f"{said} {alike}how far another may lie is not known."
        if verdict == CONTRADICTED:
            return f"{said} the whole interval misses it."
        if verdict == SUPPORTED:
            return f"{said} the whole interval meets it."
        if estimate.low > most or estimate.high < least:
            return f"{said} the interval misses it, but not the wider one that {parts} parts need."
        if self.kind == "within":
            return f"{said} the interval reaches beyond it."
        return f"{said} the interval holds values on both sides of it."


class Claim(BaseModel):
    """One statement of the articles, and what would show that it holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str  # such as `B3`
    claim: Text  # the statement, in the course's words
    source: tuple[Literal[tuple(ARTICLES)], ...]
    notebook: Literal[tuple(LESSONS)]  # the lesson that measures it
    quoted: Text | Literal[""] = ""  # the figure that the article gives, if it gives one
    expected: Literal[SUPPORTED, CONTRADICTED, INCONCLUSIVE]  # before the first run; never edited
    # As last recorded, which CI holds to; inconclusive where whole runs of the course differed.
    baseline: Literal[SUPPORTED, CONTRADICTED, INCONCLUSIVE]
    not_testable: Text | Literal[""] = ""  # what of it no run here can test, and why
    rule: Annotated[tuple[Part, ...], Field(min_length=1, max_length=5)]  # all must hold

    @property
    def rule_hash(self) -> str:
        """The rule as it stands, in short: a record made under another one does not count."""
        text = json.dumps([self.id, [part.model_dump() for part in self.rule]], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@cache
def claims(path: Path = DATA / "claims.toml") -> dict[str, Claim]:
    """Id -> claim, in the order of the file, by default the course's own; read once.

    ClaimsError names the id, the key and what is wrong with it.
    """
    made = {}
    for claim_id, row in tomllib.loads(path.read_text(encoding="utf-8")).items():
        unit, source = row.pop("unit", None), row.pop("source", "").split()
        try:
            parts = [_part(part, unit) for part in row.pop("rule", [])]
            made[claim_id] = Claim(id=claim_id, rule=parts, source=source, **row)
        except ValueError as error:
            raise ClaimsError(f"{path.name}, {claim_id}: {error}") from None
    return made


def _part(row: dict[str, Any], unit: str | None) -> dict[str, Any]:
    """A part as `Part` takes it: `at_least = 0.1` is kind and bound."""
    kinds = [kind for kind in KINDS if kind in row]
    if len(kinds) != 1:
        raise ValueError(f"part {row.get('part')!r}: give exactly one of {', '.join(KINDS)}")
    row = {"unit": unit, "name": row.get("part"), **row, "kind": kinds[0], "bound": row[kinds[0]]}
    return {key: value for key, value in row.items() if key not in ("part", kinds[0])}


def in_unit(value: float, unit: str) -> str:
    """A value as text: `81%`, `+34 points`, `−0.31 nats`, `1.5 times`, `12%` for relative."""
    size, minus = abs(value), "−" if value < 0 else ""
    sign = minus or "+"
    if unit == "share":
        return f"{100 * value:.2g}%" if 0 < value < 0.0095 else percent(value)
    if unit == "difference of shares":
        points = 100 * size
        # one more digit where whole points would hide something
        digits = 1 if points < 9.95 or 99.5 <= points < 100 else 0
        text = f"{points:.{2 if 0.005 <= points < 0.05 else digits}f}".removesuffix(".0")
        return f"{sign * (text != '0')}{text} point{'s' * (text != '1')}"
    if unit == "relative difference":
        return f"{sign}{size:.0%}"
    if unit == "nats":  # float32 carries no more of a loss
        return f"{minus}{size:.2g} nats" if size >= 1e-6 else "0 nats"
    if unit == "correlation":
        return f"{minus}{size:.2f}"
    named = "file" if (unit, size) == ("files", 1) else "times" if unit == "ratio" else unit
    return f"{minus}{size:.3g} {named}"


def between(low: float | None, high: float | None, unit: str) -> str:
    """`74% to 87%`, `+28 to +41`: for a place that names the unit already; of infinite ends, which
    are None in JSON, `no interval, one seed`."""
    if None in (low, high) or math.isinf(high - low):
        return "no interval, one seed"
    return " to ".join(in_unit(end, unit).partition(" ")[0] for end in (low, high))
