"""The ledger of a course run: `claims.json`, gathered from what each lesson recorded."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sftlab.course.execution import Result
from sftlab.course.recording import rows
from sftlab.course.records import Record, StaleRecordError


def write_claims(
    results: Sequence[Result], *, folder: Path, notebooks: Path
) -> list[dict[str, Any]]:
    """Write `folder/claims.json` and return its rows: one a claim, in the order of claims.toml.

    A row is that of the table of claims with `parts`, `profile` and `parameters`, and what else a
    record holds. A lesson that ran to its end replaces all its rows. Rows of lessons that did not
    run, or did not come as far, stay as an earlier run left them, if that was on the same profile
    and under the same rules: so `sftlab run 01` after the whole course keeps the rest.
    """
    file = folder / "claims.json"
    profiles = {result.profile for result in results}
    replaced = {result.name for result in results if result.status == "passed"}
    records: dict[str, Record | StaleRecordError] = {}
    parameters: dict[str, dict[str, Any]] = {}
    for row in _earlier(file):
        used = row.get("parameters") or {}
        if used.get("profile", row["profile"]) not in profiles or row["notebook"] in replaced:
            continue
        try:
            records[row["id"]] = Record.from_dict(row)
        except StaleRecordError as stale:
            records[row["id"]] = stale
        parameters[row["id"]] = used
    for result in results:
        records.update(result.records)
        used = {**result.lesson.defaults, **result.parameters}
        parameters.update(dict.fromkeys(result.records, used))
    found = [
        {**row, "parameters": parameters.get(row["id"]) if row["parts"] else None}
        for row in rows(records, notebooks=notebooks)
    ]
    unfinished = folder / f".claims.{os.getpid()}"
    unfinished.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    os.replace(unfinished, file)
    return found


def _earlier(file: Path) -> list[dict[str, Any]]:
    """The measured rows of an earlier run; none where the file is missing or damaged."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    if not isinstance(found, list):
        return []
    needed = {"id", "parts", "profile", "notebook"}
    return [r for r in found if isinstance(r, dict) and needed <= set(r) and r["parts"]]
