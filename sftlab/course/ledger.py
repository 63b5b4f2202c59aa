"""The claims ledger: what was measured for each claim of the articles, and the verdict.

    data/claims.toml --claims()--> Claim with its rule --+
                                                         +-- record() --> Record --> verdict, reason
    Estimate (sftlab.measure) ---------------------------+                   |
                                                                             v
                        rows() <-------------------- cache/claims/<profile>/<id>.json

A verdict is always computed from the intervals and the rule; no function here takes one.
"""

import hashlib
import importlib.metadata
import json
import math
import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sftlab.course import rules
from sftlab.course.rules import Claim, ClaimsError, Part, claims, find_claim
from sftlab.measure import POINTS, SHARE, Estimate
from sftlab.models import Profile, find_profile
from sftlab.paths import NOTEBOOKS, cache_folder, write_atomically

RECORDS_VARIABLE = "SFTLAB_RECORDS"
"""Names one more folder for records; the runner sets it to gather those of one lesson."""
COLUMNS = "id claim source notebook effect unit low high seeds items verdict reason".split()
_MIXED = ({POINTS, "share"}, {SHARE, "difference of shares"})
"""Unit of an estimate and of a part, where the two together can only be a mistake."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """The measured parts of a claim; raises ClaimsError when they do not fit its rule."""

    claim: Claim  # with the rule that judges it
    estimates: Mapping[str, Estimate]  # part name -> effect and interval at the level `claim.level`
    profile: str  # the model it was measured on
    note: str = ""  # a remark for readers of the ledger
    versions: Mapping[str, str] = field(default_factory=dict)  # of what decides the numbers
    when: str = ""  # date and time of the measurement, UTC

    def __post_init__(self) -> None:
        claim, given = self.claim, self.estimates
        if not claim.rule:
            said = f"{claim.id} has no rule (not testable here): nothing can be recorded"
            raise ClaimsError(said)
        if set(given) != set(claim.part_names):
            raise ClaimsError(
                f"{claim.id} has the parts {', '.join(map(repr, claim.part_names))}; got "
                f"{', '.join(map(repr, given)) or 'none'}"
            )
        for part in claim.rule:
            found, (lowest, highest) = given[part.name], rules.UNITS[part.unit]
            if not isinstance(found, Estimate):
                kind = type(found).__name__
                wrong = f"expected the Estimate of sftlab.measure's mean or difference, got {kind}"
            elif not math.isclose(found.level, claim.level, abs_tol=1e-9):
                wrong = (
                    f"it has an interval at {found.level:.2%}; {len(claim.rule)} parts share 5%, "
                    f"so it must be at {claim.level:.2%}: pass comparisons={claim.comparisons} "
                    f"(claims()[{claim.id!r}].comparisons) and leave level alone"
                )
            elif {found.unit, part.unit} in _MIXED:
                units = f"the part is a {part.unit}, the estimate in {found.unit}"
                wrong = f"{units}: mean gives a share, difference gives points"
            elif not lowest <= found.value <= highest:
                wrong = f"it is {found.value:g}, which no {part.unit} can be; 81% is 0.81"
            else:
                continue
            raise ClaimsError(f"{claim.id}, part {part.name!r}: {wrong}")

    @property
    def verdict(self) -> str:
        """`supported` when every part is, `contradicted` when any part is, or `inconclusive`."""
        found = {part.judge(self.estimates[part.name]) for part in self.claim.rule}
        if rules.CONTRADICTED in found:
            return rules.CONTRADICTED
        return rules.SUPPORTED if found == {rules.SUPPORTED} else rules.INCONCLUSIVE

    @property
    def deciding(self) -> Part:
        """The part that decides: the first that fails, or the one that holds most narrowly."""
        verdict, of = self.verdict, self.estimates
        if verdict == rules.SUPPORTED:
            return min(self.claim.rule, key=lambda part: part.slack(of[part.name]))
        return next(part for part in self.claim.rule if part.judge(of[part.name]) == verdict)

    @property
    def estimate(self) -> Estimate:
        """Effect and interval of the deciding part."""
        return self.estimates[self.deciding.name]

    @property
    def reason(self) -> str:
        """Why the verdict is what it is, with the numbers of the deciding part."""
        part, count = self.deciding, len(self.claim.rule)
        text = part.sentence(self.estimate)
        if self.verdict == rules.SUPPORTED and count > 1:
            held = "Both parts hold" if count == 2 else f"All {count} parts hold"
            text = f"{held}. The nearest to its bound is {text}"
        if self.claim.not_testable:
            text += f" Not testable here: {self.claim.not_testable}."
        return text

    @property
    def surprise(self) -> str:
        """A sentence when the verdict is the opposite of the expected one, else empty."""
        if {self.verdict, self.claim.expected} != {rules.SUPPORTED, rules.CONTRADICTED}:
            return ""
        expected = f"{self.claim.id} was expected to be {self.claim.expected}"
        return f"{expected} and is {self.verdict}. {self.reason}"

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
            rule of one part. With k parts, make each with `comparisons=k`.
        profile: the model it was measured on; `note` is a remark for readers of the ledger.

    Raises:
        ClaimsError: no such claim or part, or an estimate does not fit it.
    """
    claim = find_claim(claim_id)
    if not isinstance(parts, Mapping):
        if len(claim.rule) > 1:
            names = ", ".join(map(repr, claim.part_names))
            raise ClaimsError(f"{claim.id} has {len(claim.rule)} parts; give a dict with {names}")
        parts = dict.fromkeys(claim.part_names, parts)
    made = Record(
        claim=claim,
        estimates=dict(parts),
        profile=profile_name(profile),
        note=note,
        versions=versions(),
        when=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    folders = [records_folder(made.profile), os.environ.get(RECORDS_VARIABLE)]
    for folder in filter(None, folders):
        text = json.dumps(made.to_dict(), indent=2) + "\n"
        write_atomically(Path(folder) / f"{claim.id}.json", text)
    return made


def profile_name(profile: str | Path | Profile) -> str:
    """The name of a profile; of a model folder the whole path, which leads there from anywhere."""
    found = find_profile(profile)
    return found.name if found.embedded or found.on_hub else str(Path(found.source).resolve())


def versions() -> dict[str, str]:
    """Versions of what decides the numbers; a package that is not installed is left out."""
    found = {"python": platform.python_version()}
    for name in ("sftlab", "torch", "transformers", "trl", "peft", "bitsandbytes", "datasets"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _read(data: Any) -> Record | str:
    """The record that `to_dict` wrote, judged by the rule that stands now, or why not."""
    try:
        claim = claims().get(data["id"])
        if claim is None:
            return f"{data['id']} is not in claims.toml any more"
        if data["rule"] != claim.rule_hash:
            return "its rule has changed since it was measured"
        kept = {key: data[key] for key in ("profile", "note", "versions", "when")}
        estimates = {p["part"]: Estimate.from_dict(p["estimate"]) for p in data["parts"]}
        return Record(claim=claim, estimates=estimates, **kept)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return f"its record is damaged ({type(error).__name__})"


def read_records(folder: Path) -> dict[str, Record | str]:
    """Claim id -> the record in `folder`, or the reason why it does not count."""
    found: dict[str, Record | str] = {}
    for path in sorted(folder.glob("*.json")):
        try:
            found[path.stem] = _read(json.loads(path.read_text(encoding="utf-8")))
        except ValueError:
            found[path.stem] = "its record is damaged (not JSON)"
    return found


def stored_records(profile: str | Path | Profile = "tiny") -> dict[str, Record | str]:
    """Claim id -> the cache's record on `profile`, or the reason why it does not count."""
    return read_records(records_folder(profile_name(profile)))


def records_folder(profile: str) -> Path:
    """The cache's folder for records made on `profile`, whose name may be a path or a hub id."""
    name = re.sub(r"[^\w.-]+", "-", profile).strip("-.")[-60:]
    if name != profile:
        name += f"-{hashlib.sha256(profile.encode()).hexdigest()[:8]}"
    return cache_folder() / "claims" / name


def rows(
    records: Mapping[str, Record | str], *, notebooks: Path = NOTEBOOKS
) -> list[dict[str, Any]]:
    """The ledger, one row a claim in the order of the file, for JSON.

    Each has `COLUMNS`, and all that `to_dict` gives where the claim was measured; one that was not
    says why and holds None. `notebooks` is the folder that tells which lessons are written.
    """
    written = {path.stem for path in notebooks.glob("*.ipynb")}
    made = []
    for claim in claims().values():
        found = records.get(claim.id)
        row = dict.fromkeys(COLUMNS) | {
            "id": claim.id,
            "claim": claim.claim,
            "source": " ".join(claim.source),
            "notebook": claim.notebook,
            "unit": claim.rule[0].unit if claim.rule else "",
            "parts": [],
            "profile": None,
        }
        if isinstance(found, Record):
            estimate = found.estimate
            row |= {"effect": estimate.value, "unit": found.deciding.unit}
            row |= {key: getattr(estimate, key) for key in ("low", "high", "seeds", "items")}
            row |= found.to_dict()
        elif not claim.rule:
            row |= {"verdict": rules.NOT_TESTABLE, "reason": claim.not_testable}
        else:
            number, stale = claim.notebook.split("_")[0], f"{found}: " if found else ""
            missing = f"lesson {number} is not written yet"
            reason = f"{stale}run lesson {number}" if claim.notebook in written else missing
            row |= {"verdict": rules.NOT_MEASURED, "reason": reason}
        made.append(row)
    return made


def write_claims(results: Sequence[Any], *, folder: Path, notebooks: Path) -> list[dict[str, Any]]:
    """Write `folder/claims.json` from the results of a course run, and return its rows.

    A row is that of `rows` with `parameters`. A lesson that ran to its end replaces all its rows.
    Rows of lessons that did not run, or did not get as far, stay as an earlier run left them, if
    that was on the same profile and under the same rules: `sftlab run 01` after the whole course
    keeps the rest.
    """
    file = folder / "claims.json"
    try:
        earlier = json.loads(file.read_text(encoding="utf-8"))
        earlier = [row for row in earlier if row["parts"] and row["profile"] and row["notebook"]]
    except (OSError, ValueError, KeyError, TypeError):
        earlier = []  # none, or damaged
    profiles = {result.profile for result in results}
    replaced = {result.name for result in results if result.status == "passed"}
    records: dict[str, Record | str] = {}
    parameters: dict[str, dict[str, Any]] = {}
    for row in earlier:
        used = row.get("parameters") or {}
        if used.get("profile", row["profile"]) in profiles and row["notebook"] not in replaced:
            records[row["id"]], parameters[row["id"]] = _read(row), used
    for result in results:
        records |= result.records
        used = {**result.lesson.defaults, **result.parameters}
        parameters |= dict.fromkeys(result.records, used)
    found = rows(records, notebooks=notebooks)
    for row in found:
        row["parameters"] = parameters.get(row["id"]) if row["parts"] else None
    write_atomically(file, json.dumps(found, indent=2) + "\n")
    return found
