"""What one claim measured to. The verdict is computed from it each time it is asked for.

`sftlab.course.recording` is the door to this room; lessons import from there.
"""

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sftlab.course.rulebook import Claim, ClaimsError, claims
from sftlab.course.verdict import CONTRADICTED, SUPPORTED, UNITS, Part, combine
from sftlab.measure import POINTS, SHARE, Estimate
from sftlab.paths import cache_folder

RECORDS_VARIABLE = "SFTLAB_RECORDS"
"""Names one more folder for records; the runner sets it to gather those of one lesson."""

MIXED = ({POINTS, "share"}, {SHARE, "difference of shares"})
"""Unit of an estimate with that of a part, where the two can only be a mistake."""


class StaleRecordError(ClaimsError):
    """A record that no longer counts; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """The measured parts of a claim; raises ClaimsError when they do not fit its rule."""

    claim: Claim
    """The claim with the rule that judges it."""
    estimates: Mapping[str, Estimate]
    """Part name -> effect and interval, each at the level `claim.level`."""
    profile: str
    """The model it was measured on."""
    notebook: str
    """The lesson that measured it."""
    note: str = ""
    """What a reader of the ledger should know besides."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Versions of Python and of the packages that decide the numbers."""
    when: str = ""
    """Date and time of the measurement, UTC."""

    def __post_init__(self) -> None:
        _check(self.claim, self.estimates)

    @property
    def verdict(self) -> str:
        """`supported` when every part is, `contradicted` when any part is, or `inconclusive`."""
        return combine([part.judge(self.estimates[part.name]) for part in self.claim.rule])

    @property
    def deciding(self) -> Part:
        """The part that decides: the first that fails, or the one that holds most narrowly."""
        verdict = self.verdict
        if verdict == SUPPORTED:
            return min(self.claim.rule, key=lambda part: part.slack(self.estimates[part.name]))
        failing = (p for p in self.claim.rule if p.judge(self.estimates[p.name]) == verdict)
        return next(failing)

    @property
    def estimate(self) -> Estimate:
        """Effect and interval of the deciding part."""
        return self.estimates[self.deciding.name]

    @property
    def reason(self) -> str:
        """Why the verdict is what it is, with the numbers of the deciding part."""
        part, count = self.deciding, len(self.claim.rule)
        text = part.sentence(self.estimate)
        if self.verdict == SUPPORTED and count > 1:
            held = "Both parts hold" if count == 2 else f"All {count} parts hold"
            text = f"{held}. The nearest to its bound is {text}"
        if self.claim.not_testable:
            text += f" Not testable here: {self.claim.not_testable}."
        return text

    @property
    def surprise(self) -> str:
        """A sentence when the verdict is the opposite of what the lesson expects, else empty."""
        if {self.verdict, self.claim.expected} != {SUPPORTED, CONTRADICTED}:
            return ""
        return (
            f"{self.claim.id} was expected to be {self.claim.expected} and is {self.verdict}. "
            f"{self.reason}"
        )

    def to_dict(self) -> dict[str, Any]:
        """All of it for JSON; verdicts and reasons stand there for readers, and are never read."""
        return {
            "id": self.claim.id,
            "profile": self.profile,
            "notebook": self.notebook,
            "verdict": self.verdict,
            "reason": self.reason,
            "part": self.deciding.name,
            "expected": self.claim.expected,
            "quoted": self.claim.quoted,
            "note": self.note,
            "parts": [
                {
                    "part": part.name,
                    "measures": part.measures,
                    "unit": part.unit,
                    part.kind: part.bound,
                    "verdict": part.judge(self.estimates[part.name]),
                    "estimate": self.estimates[part.name].to_dict(),
                }
                for part in self.claim.rule
            ],
            "rule": self.claim.rule_hash,
            "versions": dict(self.versions),
            "when": self.when,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Record":
        """The record that `to_dict` wrote, judged anew by the rule that stands now.

        Raises StaleRecordError when it was made under another rule, or is no whole record.
        """
        try:
            claim = claims().get(data["id"])
            if claim is None:
                raise StaleRecordError(f"{data['id']} is no claim any more")
            if data["rule"] != claim.rule_hash:
                raise StaleRecordError("its rule has changed since it was measured")
            return cls(
                claim=claim,
                estimates={p["part"]: Estimate.from_dict(p["estimate"]) for p in data["parts"]},
                profile=data["profile"],
                notebook=data["notebook"],
                note=data["note"],
                versions=data["versions"],
                when=data["when"],
            )
        except StaleRecordError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise StaleRecordError(f"its record is damaged ({type(error).__name__})") from error

    def write(self, folder: Path) -> Path:
        """Write `<folder>/<id>.json`, whole or not at all; returns the path."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.claim.id}.json"
        unfinished = folder / f".{self.claim.id}.{os.getpid()}"
        unfinished.write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")
        os.replace(unfinished, path)
        return path


def read_records(folder: Path) -> dict[str, Record | StaleRecordError]:
    """Claim id -> the record in `folder`, or the reason why it does not count."""
    found: dict[str, Record | StaleRecordError] = {}
    for path in sorted(folder.glob("*.json")):
        try:
            found[path.stem] = Record.from_dict(json.loads(path.read_text(encoding="utf-8")))
        except StaleRecordError as stale:
            found[path.stem] = stale
        except ValueError:
            found[path.stem] = StaleRecordError("its record is damaged (no JSON)")
    return found


def records_folder(profile: str) -> Path:
    """The cache's folder for records made on `profile`, whose name may be a path or a hub id."""
    name = profile
    if not re.fullmatch(r"\w[\w.-]{0,80}", profile):
        slug = re.sub(r"[^\w.-]+", "-", profile).strip("-.")[-60:]
        name = f"{slug}-{hashlib.sha256(profile.encode()).hexdigest()[:8]}"
    return cache_folder() / "claims" / name


def by_part(claim: Claim, parts: Estimate | Mapping[str, Estimate]) -> dict[str, Estimate]:
    """Part name -> estimate in the order of the rule; one estimate serves a rule of one part."""
    if isinstance(parts, Mapping):
        names = [name for name in claim.part_names if name in parts]
        return {name: parts[name] for name in [*names, *(n for n in parts if n not in names)]}
    if len(claim.rule) == 1:
        return {claim.rule[0].name: parts}
    raise ClaimsError(
        f"{claim.id} has {len(claim.rule)} parts; give a dict with {_listed(claim.part_names)}"
    )


def _check(claim: Claim, estimates: Mapping[str, Estimate]) -> None:
    if not claim.rule:
        raise ClaimsError(f"{claim.id} has no rule, so nothing can be recorded: it is not testable")
    missing = [name for name in claim.part_names if name not in estimates]
    unknown = [name for name in estimates if name not in claim.part_names]
    if missing or unknown:
        said = [f"{claim.id} has the parts {_listed(claim.part_names)}"]
        said += [f"missing: {_listed(missing)}"] if missing else []
        said += [f"unknown: {_listed(unknown)}"] if unknown else []
        raise ClaimsError("; ".join(said))
    for part in claim.rule:
        estimate, where = estimates[part.name], f"{claim.id}, part {part.name!r}"
        if not isinstance(estimate, Estimate):
            raise ClaimsError(
                f"{where} is a {type(estimate).__name__}; give the Estimate that mean or "
                "difference of sftlab.measure.stats returns"
            )
        if not math.isclose(estimate.level, claim.level, abs_tol=1e-9):
            raise ClaimsError(
                f"{where} has an interval at {estimate.level:.2%}; {len(claim.rule)} parts share "
                f"5%, so it must be at {claim.level:.2%}: pass comparisons={claim.comparisons} "
                f"(claims()[{claim.id!r}].comparisons) and leave level alone"
            )
        if {estimate.unit, part.unit} in MIXED:
            raise ClaimsError(
                f"{where} is a {part.unit}, and the estimate is in {estimate.unit}: mean gives a "
                "share, difference gives points"
            )
        lowest, highest = UNITS[part.unit]
        if not lowest <= estimate.value <= highest:
            raise ClaimsError(
                f"{where} is {estimate.value:g}, which no {part.unit} can be; 81% is 0.81"
            )


def _listed(names) -> str:
    return ", ".join(map(repr, names)) or "none"
