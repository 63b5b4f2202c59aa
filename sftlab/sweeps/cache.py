"""The cache of finished runs: none is computed twice, none is half-written.

One folder a run, named by its key; it appears by one rename, complete:

    <cache>/runs/<key>/run.json             what it is: settings, seed, code, seconds, loss, ...
    <cache>/runs/<key>/measure-0.parquet    what the first measure gave, and so on
"""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from sftlab.paths import cache_folder, folder_written_atomically
from sftlab.train import Settings

FORMAT = 2
"""Of the files; part of every key."""


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A run read back."""

    record: dict[str, Any]
    """What run.json holds."""
    frames: dict[str, pd.DataFrame]
    """What each measure gave; a number is one row with the column `value`."""


def runs_folder() -> Path:
    """Where the runs are; `SFTLAB_CACHE` moves it."""
    return cache_folder() / "runs"


def to_parquet(name: str, frame: pd.DataFrame) -> bytes:
    """The Parquet file of what a measure gave.

    Raises:
        ValueError: it can't hold a column, such as one that mixes numbers and texts.
    """
    for column in frame.columns:
        kind = frame[column].dtype
        if isinstance(kind, pd.CategoricalDtype) and kind.categories.dtype == "interval":
            frame[column] = frame[column].astype(str)  # bins of `pandas.cut`
        try:
            pa.Array.from_pandas(frame[column])
        except (pa.ArrowException, TypeError) as error:
            raise ValueError(
                f"the measure {name!r} gives a column {column!r} that a Parquet file can't hold "
                f"({error}); make its values all numbers, all texts, or all lists of these"
            ) from error
    content = BytesIO()
    table = pa.Table.from_pandas(frame, preserve_index=False)
    pq.write_table(table, content, write_page_checksum=True)
    return content.getvalue()


def write(run: str, record: Mapping[str, Any], frames: Mapping[str, bytes]) -> None:
    """Store a run, in place of what was there.

    Raises:
        OSError: the folder can't be written to; as a rule the disk is full.
    """
    record = {"format": FORMAT, "run": run, **record, "measures": list(frames)}
    try:
        with folder_written_atomically(runs_folder() / run) as folder:
            for number, content in enumerate(frames.values()):
                (folder / f"measure-{number}.parquet").write_bytes(content)
            text = json.dumps(record, indent=1, ensure_ascii=False)
            (folder / "run.json").write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise OSError(
            f"the run can't be stored in {runs_folder()}: {error.strerror or error}; free some "
            "space there, set SFTLAB_CACHE to a folder on another disk, or delete the stored runs "
            "with `sftlab cache --clear`"
        ) from error


def read(run: str) -> Stored | None:
    """A run of the cache, or `None` when it is not there, or damaged."""
    record = _record(runs_folder() / run)
    if record is None:
        return None
    frames = {}
    try:
        for number, name in enumerate(record["measures"]):
            file = runs_folder() / run / f"measure-{number}.parquet"
            table = pq.read_table(file, use_threads=False, page_checksum_verification=True)
            frames[name] = table.to_pandas()
            for field in table.schema:
                if pa.types.is_list(field.type):  # else they come back as arrays
                    cells = table.column(field.name).to_pylist()
                    cells = [None if cell is None else tuple(cell) for cell in cells]
                    frames[name][field.name] = pd.Series(cells, dtype=object)
    except (OSError, pa.ArrowException):
        return None
    return Stored(record=record, frames=frames)


def _record(folder: Path) -> dict[str, Any] | None:
    try:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        return record if (record["format"], record["run"]) == (FORMAT, folder.name) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def stored() -> pd.DataFrame:
    """One row a cached run, the newest first.

    Columns: run (key), profile, settings (text: those that are not the defaults), seed, measures
    (text), seconds (of the whole run), bytes (on disk), when (UTC).
    """
    usual = {field.name: field.default for field in fields(Settings)}
    rows = []
    for folder in _run_folders():
        if (record := _record(folder)) is None:
            continue
        chosen = {k: v for k, v in (record["settings"] or {}).items() if v != usual.get(k)}
        chosen.pop("seed", None)
        text = ", ".join(f"{name}={value}" for name, value in chosen.items())
        rows.append({
            "run": record["run"],
            "profile": record["profile"],
            "settings": text if record["settings"] else "untrained",
            "seed": record["seed"],
            "measures": ", ".join(record["measures"]),
            "seconds": record["total_seconds"],
            "bytes": sum(file.stat().st_size for file in folder.iterdir()),
            "when": datetime.fromisoformat(record["when"]),
        })  # fmt: skip
    columns = ["run", "profile", "settings", "seed", "measures", "seconds", "bytes", "when"]
    frame = pd.DataFrame(rows, columns=columns)
    return frame.sort_values("when", ascending=False, ignore_index=True)


def clear(*, older_than_days: float | None = None) -> int:
    """Delete cached runs, all of them or those older than some days; returns how many."""
    if older_than_days is not None and not older_than_days >= 0:
        raise ValueError(f"older_than_days is {older_than_days!r}; give zero or more")
    limit = datetime.now(UTC) - timedelta(days=older_than_days or 0)
    removed = 0
    for folder in _run_folders(hidden=True):
        if older_than_days is None or datetime.fromtimestamp(folder.stat().st_mtime, UTC) < limit:
            shutil.rmtree(folder, ignore_errors=True)
            removed += folder.name[0] != "."
    return removed


def _run_folders(*, hidden: bool = False) -> list[Path]:
    """Of finished runs; with `hidden` those too that a killed process left half-written."""
    if not runs_folder().is_dir():
        return []
    found = [Path(entry.path) for entry in os.scandir(runs_folder()) if entry.is_dir()]
    return sorted(folder for folder in found if hidden or folder.name[0] != ".")
