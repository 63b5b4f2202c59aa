"""The claims ledger: what the articles assert, what was measured, and the verdict.

    data/claims.toml --claims()--> Claim + its rule --+
                                                      +-- record() --> Record --> verdict, reason
    Estimate (sftlab.measure.stats) ------------------+                   |
                                                                          v
                        table() <------------------ cache/claims/<profile>/<id>.json

A verdict is computed from intervals and the rule; nothing here takes one.
"""

import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from sftlab.course.records import (
    RECORDS_VARIABLE,
    Record,
    StaleRecordError,
    by_part,
    read_records,
    records_folder,
)
from sftlab.course.rulebook import LESSONS, Claim, ClaimsError, claims, find_claim
from sftlab.course.surroundings import versions
from sftlab.course.verdict import NOT_MEASURED, NOT_TESTABLE, Part
from sftlab.measure import Estimate
from sftlab.paths import NOTEBOOKS
from sftlab.profiles import Profile, find_profile

__all__ = [
    "COLUMNS", "Claim", "ClaimsError", "Part", "Record", "StaleRecordError", "claims",
    "find_claim", "record", "rows", "stored_records", "table",
]  # fmt: skip

COLUMNS = (
    "id", "claim", "source", "notebook", "effect", "unit", "low", "high", "seeds", "items",
    "verdict", "reason",
)  # fmt: skip


def record(
    claim_id: str,
    parts: Estimate | Mapping[str, Estimate],
    *,
    profile: str | Path | Profile,
    notebook: str | None = None,
    note: str = "",
) -> Record:
    """Enter what was measured for a claim into the ledger, and return it with its verdict.

    Written to the cache, where it takes the place of an earlier record on the same profile, and to
    the folder named by `SFTLAB_RECORDS` when that is set.

    Args:
        claim_id: such as `B3`.
        parts: part name -> estimate, for every part of the claim's rule; one estimate alone for a
            rule of one part. With k parts, make each with `comparisons=k`: see
            `Claim.comparisons`.
        profile: the model it was measured on.
        notebook: the lesson that measured it, when not the claim's own.
        note: what a reader of the ledger should know besides.

    Raises:
        ClaimsError: no such claim, part or lesson, parts are missing, an estimate is not finite,
            of another level, or beyond what its unit can be.
        UnknownProfileError: no such profile.
    """
    claim = find_claim(claim_id)
    if notebook is not None and notebook not in LESSONS:
        raise ClaimsError(f"no lesson {notebook!r}; there are: {', '.join(LESSONS)}")
    made = Record(
        claim=claim,
        estimates=by_part(claim, parts),
        profile=_name(profile),
        notebook=notebook or claim.notebook,
        note=note,
        versions=versions(),
        when=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    made.write(records_folder(made.profile))
    if folder := os.environ.get(RECORDS_VARIABLE):
        made.write(Path(folder))
    return made


def stored_records(profile: str | Path | Profile = "tiny") -> dict[str, Record | StaleRecordError]:
    """Claim id -> the cache's record on `profile`, or the reason why it does not count."""
    return read_records(records_folder(_name(profile)))


def table(
    profile: str | Path | Profile = "tiny",
    records: Mapping[str, Record | StaleRecordError] | Iterable[Record] | None = None,
    *,
    notebooks: Path = NOTEBOOKS,
) -> pd.DataFrame:
    """The ledger, one row a claim in the order of the file, with exactly the columns `COLUMNS`.

    Effect, unit, interval, seeds and items are those of the part that decides; a claim that was
    not measured says why and holds missing values.

    Args:
        profile: whose records of the cache to show.
        records: these instead of the cache's.
        notebooks: the folder that tells which lessons are written.
    """
    found = rows(stored_records(profile) if records is None else records, notebooks=notebooks)
    frame = pd.DataFrame([{key: row[key] for key in COLUMNS} for row in found], columns=COLUMNS)
    numbers = dict.fromkeys(("effect", "low", "high"), "float64")
    return frame.astype({**numbers, "seeds": "Int64", "items": "Int64"})


def rows(
    records: Mapping[str, Record | StaleRecordError] | Iterable[Record],
    *,
    notebooks: Path = NOTEBOOKS,
) -> list[dict[str, Any]]:
    """The rows of `table` as JSON takes them: None for what is missing, and `parts` besides.

    A measured one holds all else that `Record.to_dict` gives as well.
    """
    if not isinstance(records, Mapping):
        records = {found.claim.id: found for found in records}
    written = {path.stem for path in notebooks.glob("*.ipynb")}
    return [_row(claim, records.get(claim.id), written) for claim in claims().values()]


def _row(claim: Claim, found: Record | StaleRecordError | None, written: set[str]) -> dict:
    row = dict.fromkeys(COLUMNS) | {
        "id": claim.id, "claim": claim.claim, "source": " ".join(claim.source),
        "notebook": claim.notebook, "unit": claim.rule[0].unit if claim.rule else "",
        "parts": [], "profile": None,
    }  # fmt: skip
    if isinstance(found, Record):
        estimate = found.estimate
        numbers = {
            "effect": estimate.value, "unit": found.deciding.unit, "low": estimate.low,
            "high": estimate.high, "seeds": estimate.seeds, "items": estimate.items,
        }  # fmt: skip
        return row | numbers | found.to_dict()
    number = claim.notebook.split("_")[0]
    if not claim.rule:
        return row | {"verdict": NOT_TESTABLE, "reason": claim.not_testable}
    if claim.notebook not in written:
        return row | {"verdict": NOT_MEASURED, "reason": f"lesson {number} is not written yet"}
    stale = f"{found}: " if found is not None else ""
    return row | {"verdict": NOT_MEASURED, "reason": f"{stale}run lesson {number}"}


def _name(profile: str | Path | Profile) -> str:
    found = find_profile(profile)
    return found.name if found.embedded or found.on_hub else str(Path(found.source).resolve())
