"""The claims ledger: what was measured for each claim of the articles, and the verdict.

    data/claims.toml --claims()--> Claim with its rule --+
                                                         +-- record() --> Record --> verdict, reason
    Estimate (sftlab.measure) ---------------------------+                   |
                                                                             v
                        rows() <-------------------- cache/claims/<profile>/<id>.json
                                                     data/real/<profile>.json, of `make real`

A verdict is always computed from the intervals and the rule; no function here takes one.
"""

import json
import math
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sftlab.course import rules
from sftlab.course.predictions import settle
from sftlab.course.rules import Claim, ClaimsError, Part, claims
from sftlab.measure import NO_INTERVAL, Estimate
from sftlab.paths import DATA, OTHER_CACHE, cache_folder, check_writable, write_atomically
from sftlab.profiles import Profile, find_profile

RECORDS_VARIABLE = "SFTLAB_RECORDS"
"""Names one more folder for records; the runner sets it to gather those of one lesson."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """The measured parts of a claim; raises ClaimsError when they do not fit its rule."""

    claim: Claim  # with the rule that judges it
    estimates: Mapping[str, Estimate]  # part name -> effect with its 95% interval
    profile: str  # the model it was measured on
    note: str = ""  # a remark for readers of the ledger

    def __post_init__(self) -> None:
        claim, given = self.claim, self.estimates
        names = [part.name for part in claim.rule]
        if set(given) != set(names):
            raise ClaimsError(f"{claim.id} has the parts {names}; got {list(given)}")
        for part in claim.rule:
            found, (lowest, highest) = given[part.name], rules.UNITS[part.unit]
            if not math.isclose(found.level, 0.95, abs_tol=1e-9):
                raise ClaimsError(
                    f"{claim.id}, part {part.name!r}: its interval is at {found.level:.2%}; give "
                    "the plain 95% one, without comparisons=: the rule widens it where it must"
                )
            if not lowest <= found.value <= highest:
                raise ClaimsError(
                    f"{claim.id}, part {part.name!r}: it is {found.value:g}, which no {part.unit} "
                    "can be; 81% is 0.81"
                )

    def judged(self, part: Part) -> str:
        """The verdict on one part of the rule."""
        return part.judge(self.estimates[part.name], len(self.claim.rule))

    @property
    def verdict(self) -> str:
        """`supported` when every part is, `contradicted` when any part is, or `inconclusive`."""
        found = {self.judged(part) for part in self.claim.rule}
        if rules.CONTRADICTED in found:
            return rules.CONTRADICTED
        return rules.SUPPORTED if found == {rules.SUPPORTED} else rules.INCONCLUSIVE

    @property
    def deciding(self) -> Part:
        """The part that decides: the first that fails, or the one that holds most narrowly."""
        verdict, of = self.verdict, self.estimates
        if verdict == rules.SUPPORTED:
            return min(self.claim.rule, key=lambda part: part.slack(of[part.name]))
        return next(part for part in self.claim.rule if self.judged(part) == verdict)

    @property
    def estimate(self) -> Estimate:
        """Effect and interval of the deciding part."""
        return self.estimates[self.deciding.name]

    @property
    def reason(self) -> str:
        """Why the verdict is what it is, with the numbers of the deciding part."""
        part, count = self.deciding, len(self.claim.rule)
        text = part.sentence(self.estimate, count)
        if self.verdict == rules.SUPPORTED and count > 1:
            held = "Both parts hold" if count == 2 else f"All {count} parts hold"
            text = f"{held}. The nearest to its bound is {text}"
        if self.claim.not_testable:
            text += f" Not testable here: {self.claim.not_testable}."
        return text

    @property
    def surprise(self) -> str:
        """A sentence when the verdict is the opposite of the recorded `baseline`, else empty."""
        if {self.verdict, self.claim.baseline} != {rules.SUPPORTED, rules.CONTRADICTED}:
            return ""
        return f"{self.claim.id} was {self.claim.baseline} and is {self.verdict}. {self.reason}"

    def to_dict(self) -> dict[str, Any]:
        """All of it for JSON; verdict and reason are for readers, and never read back."""
        return {
            "id": self.claim.id,
            "profile": self.profile,
            "notebook": self.claim.notebook,
            "verdict": self.verdict,
            "reason": self.reason,
            "part": self.deciding.name,
            "expected": self.claim.expected,
            "baseline": self.claim.baseline,
            "quoted": self.claim.quoted,
            "note": self.note,
            "parts": [
                {
                    "part": part.name,
                    "measures": part.measures,
                    "unit": part.unit,
                    part.kind: part.bound,
                    "verdict": self.judged(part),
                    "estimate": self.estimates[part.name].to_dict(),
                }
                for part in self.claim.rule
            ],
            "rule": self.claim.rule_hash,
        }


def record(
    claim_id: str,
    parts: Estimate | Mapping[str, Estimate],
    *,
    profile: str | Path | Profile,
    note: str = "",
) -> Record:
    """Enter what was measured for a claim into the ledger, and return it with its verdict.

    It is written to the cache, where it replaces an earlier record on the same profile, and to
    the folder named by `SFTLAB_RECORDS` when that is set.

    Args:
        parts: part name -> estimate, for every part of the claim's rule; one estimate alone for a
            rule of one part.
        profile: the model it was measured on; `note` is a remark for readers of the ledger.

    Raises:
        ClaimsError: no such claim or part, or an estimate does not fit it.
        PathError: the cache can't be written to.
    """
    if claim_id not in claims():
        raise ClaimsError(f"no claim {claim_id!r} in data/claims.toml; there are {[*claims()]}")
    claim = claims()[claim_id]
    if not isinstance(parts, Mapping):
        if len(claim.rule) > 1:
            names = ", ".join(part.name for part in claim.rule)
            raise ClaimsError(f"the rule of {claim_id} has parts: give an estimate for {names}")
        parts = {claim.rule[0].name: parts}
    name = profile_name(profile)
    made = Record(claim=claim, estimates=dict(parts), profile=name, note=note)
    folders = [records_folder(name), os.environ.get(RECORDS_VARIABLE)]
    check_writable(folders[0], remedy=OTHER_CACHE)
    for folder in filter(None, folders):
        text = json.dumps(made.to_dict(), indent=2, allow_nan=False) + "\n"
        write_atomically(Path(folder) / f"{claim.id}.json", text)
    settle(claim.id, {part: estimate.value for part, estimate in made.estimates.items()})
    return made


def profile_name(profile: str | Path | Profile) -> str:
    """The name of a profile; of a model folder the whole path, which leads there from anywhere."""
    found = find_profile(profile)
    named = found.embedded or found.fetched or found.on_hub
    return found.name if named else found.source


def records_folder(profile: str) -> Path:
    """The cache's folder for records made on `profile`, whose name may be a path or a hub id."""
    # A file system has names of 255 bytes at most; the ends of two paths differ.
    return cache_folder() / "claims" / quote(profile, safe="")[-150:]


def read_records(folder: Path) -> dict[str, Record]:
    """Claim id -> its record in `folder`, judged by the rule that stands now.

    A record made under another rule does not count: the claim was committed before the run.
    """
    found = {}
    for path in sorted(folder.glob("*.json")):
        with suppress(ValueError, KeyError, TypeError):  # damaged, or of another version of the lab
            if made := _from_dict(json.loads(path.read_text(encoding="utf-8"))):
                found[path.stem] = made
    return found


def _from_dict(data: dict[str, Any]) -> Record | None:
    """What `to_dict` gave, judged again; None where the rule has changed since."""
    claim = claims().get(data["id"])
    if claim is None or data["rule"] != claim.rule_hash:
        return None
    estimates = {p["part"]: Estimate.from_dict(p["estimate"]) for p in data["parts"]}
    return Record(claim=claim, estimates=estimates, profile=data["profile"], note=data["note"])


def real_records(folder: Path = DATA / "real") -> dict[str, list[Record]]:
    """Claim id -> its records on real models, which come with the course: those that
    `make real` wrote, judged by the rule that stands now."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        for data in json.loads(path.read_text(encoding="utf-8")).get("records", ()):
            if made := _from_dict(data):
                found.setdefault(made.claim.id, []).append(made)
    return found


def stored_records(profile: str | Path | Profile = "tiny") -> dict[str, Record]:
    """Claim id -> the cache's record on `profile`."""
    return read_records(records_folder(profile_name(profile)))


def rows(records: Mapping[str, Record]) -> list[dict[str, Any]]:
    """The ledger for JSON, one row a claim in the order of the file: what `to_dict` gives, with the
    numbers of the deciding part; of a claim that was not measured the reason, and no `parts`.
    `real` has what `to_dict` gives of each record on a real model."""
    made, real = [], real_records()
    for claim in claims().values():
        row = {"id": claim.id, "claim": claim.claim, "source": " ".join(claim.source)}
        row |= {"notebook": claim.notebook, "parts": [], "effect": None}
        row |= {"expected": claim.expected, "baseline": claim.baseline}
        row["real"] = [one.to_dict() for one in real.get(claim.id, ())]
        if found := records.get(claim.id):
            estimate = found.estimate
            row |= {"effect": estimate.value, "unit": found.deciding.unit}
            level, (low, high) = found.deciding.deciding(estimate, len(claim.rule))
            none = estimate.method == NO_INTERVAL  # JSON has no infinity
            row |= {"level": level, "low": None if none else low, "high": None if none else high}
            row |= {key: getattr(estimate, key) for key in ("seeds", "items", "method")}
            row |= found.to_dict()
        else:
            reason = f"run lesson {claim.notebook.split('_')[0]}"
            row |= {"verdict": "not measured", "reason": reason}
        made.append(row)
    return made
