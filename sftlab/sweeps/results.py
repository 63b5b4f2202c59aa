"""The store of finished runs: never computed twice, never half-written.

One folder a run, named by the hash of what made it; it appears by one rename, complete:

    <cache>/runs/<hash>/run.json         what it is: settings, seed, hashes, versions, seconds, loss
    <cache>/runs/<hash>/measure-0.parquet    what the first measure gave, and so on
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pandas as pd

from sftlab.paths import cache_folder
from sftlab.sweeps.notes import notes_folder
from sftlab.train import Settings

FORMAT = 1
"""Of the files; part of every hash."""


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


def lessons_folder() -> Path:
    """Where `sftlab.course.familiar` notes which lessons have all of their runs here."""
    return cache_folder() / "lessons"


def write(
    folder: Path, run: str, record: Mapping[str, Any], frames: Mapping[str, pd.DataFrame]
) -> None:
    """Store a run under its hash, in place of what was there, all or nothing.

    Raises:
        ValueError: Parquet can't hold a column, such as one that mixes numbers and texts.
        OSError: the folder can't be written to; a full disk, as a rule.
    """
    try:
        _write(folder, run, record, frames)
    except OSError as error:
        raise OSError(
            f"the run can't be stored in {folder}: {error.strerror or error}; free some room there,"
            " set SFTLAB_CACHE to a folder that has room, or delete the stored runs with "
            "`sftlab cache --clear`"
        ) from error


def _write(
    folder: Path, run: str, record: Mapping[str, Any], frames: Mapping[str, pd.DataFrame]
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{run}-{uuid4().hex[:8]}"
    temporary.mkdir()
    try:
        told = []
        for number, (name, frame) in enumerate(frames.items()):
            raw = _parquet(name, frame)
            (temporary / f"measure-{number}.parquet").write_bytes(raw)
            told.append({"name": name, "rows": len(frame), "columns": list(map(str, frame.columns)),
                         "sha256": hashlib.sha256(raw).hexdigest()})  # fmt: skip
        record = {"format": FORMAT, "run": run, **record, "measures": told}
        text = json.dumps(record, indent=1, ensure_ascii=False)
        (temporary / "run.json").write_text(text + "\n", encoding="utf-8")
        _put(temporary, folder / run)
    finally:
        _remove(temporary)


def _parquet(name: str, frame: pd.DataFrame) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    frame = frame.reset_index(drop=True)
    frame.columns = list(map(str, frame.columns))
    for column in frame.columns[frame.columns.duplicated()]:
        raise ValueError(f"the measure {name!r} gives the column {column!r} twice; rename one")
    for column in frame.columns:
        if _is_bins(frame[column].dtype):
            frame[column] = frame[column].astype(str)
        try:
            pa.Array.from_pandas(frame[column])
        except (pa.ArrowException, TypeError) as error:
            raise ValueError(
                f"the measure {name!r} gives a column {column!r} that a file can't hold ({error}); "
                "make its values all numbers, all texts, or all lists of these"
            ) from error
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), sink)
    return sink.getvalue().to_pybytes()


def _is_bins(kind) -> bool:
    """Whether a column has the type that `pandas.cut` gives, which no Parquet file can hold."""
    return isinstance(kind, pd.CategoricalDtype) and kind.categories.dtype == "interval"


def _put(temporary: Path, final: Path) -> None:
    """Rename a folder to where another may be; a second writer brings the same, so either wins."""
    for _ in range(5):
        try:
            temporary.rename(final)
            return
        except OSError:
            if not final.exists():
                raise
        aside = temporary.with_name(f"{temporary.name}-old")
        try:
            final.rename(aside)
        except FileNotFoundError:
            continue
        finally:
            _remove(aside)
    raise OSError(f"{final.name} can't be replaced, another program may be using it")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def read(folder: Path, run: str) -> Stored | None:
    """A run of the store, or `None` when it is not there, or damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    record = _record(folder / run)
    if record is None:
        return None
    frames = {}
    try:
        for number, told in enumerate(record["measures"]):
            raw = (folder / run / f"measure-{number}.parquet").read_bytes()
            if hashlib.sha256(raw).hexdigest() != told["sha256"]:
                return None
            table = pq.read_table(pa.BufferReader(raw), use_threads=False)
            frame = table.to_pandas()
            for field in table.schema:
                if pa.types.is_list(field.type):  # else they come back as arrays
                    values = table.column(field.name).to_pylist()
                    cells = [None if v is None else tuple(v) for v in values]
                    frame[field.name] = pd.Series(cells, dtype=object)
            frames[told["name"]] = frame
    except (OSError, KeyError, TypeError, pa.ArrowException):
        return None
    return Stored(record=record, frames=frames)


def _record(folder: Path) -> dict[str, Any] | None:
    try:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        sound = record["format"] == FORMAT and record["run"] == folder.name
        return record if sound and isinstance(record["measures"], list) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def stored() -> pd.DataFrame:
    """One row a cached run, the newest first.

    Columns: run (hash), profile, settings (text: those that are not the defaults), seed, measures
    (text), seconds (of the whole run), bytes (on disk), when (UTC).
    """
    usual = {field.name: field.default for field in fields(Settings)}
    rows = []
    for folder in _run_folders():
        record = _record(folder)
        if record is None:
            continue
        chosen = {k: v for k, v in (record["settings"] or {}).items() if v != usual.get(k)}
        chosen.pop("seed", None)
        text = ", ".join(f"{name}={value}" for name, value in chosen.items())
        rows.append({
            "run": record["run"],
            "profile": record["profile"],
            "settings": text if record["settings"] else "untrained",
            "seed": record["seed"],
            "measures": ", ".join(told["name"] for told in record["measures"]),
            "seconds": record["total_seconds"],
            "bytes": sum(file.stat().st_size for file in folder.iterdir()),
            "when": datetime.fromisoformat(record["when"]),
        })  # fmt: skip
    columns = ["run", "profile", "settings", "seed", "measures", "seconds", "bytes", "when"]
    frame = pd.DataFrame(rows, columns=columns)
    return frame.sort_values("when", ascending=False, ignore_index=True)


def clear(*, older_than_days: float | None = None) -> int:
    """Delete cached runs, all of them or those older than some days; how many they were.

    What was noted beside them goes too: it is found out again in a moment.
    """
    _remove(lessons_folder())  # what they need may go now
    _remove(notes_folder())
    limit = None
    if older_than_days is not None:
        if not older_than_days >= 0:
            raise ValueError(f"older_than_days is {older_than_days!r}; give zero or more")
        limit = datetime.now(UTC) - timedelta(days=older_than_days)
    removed = 0
    for folder in _run_folders():
        written = datetime.fromtimestamp(folder.stat().st_mtime, UTC)
        if limit is None or written < limit:
            _remove(folder)
            removed += 1
    sweep_up(older_than=0 if limit is None else 3600)
    return removed


def sweep_up(*, older_than: float = 3600) -> None:
    """Remove what killed processes left half-written, when it is older than some seconds."""
    if not runs_folder().is_dir():
        return
    for left in runs_folder().glob(".*"):
        try:
            if time.time() - left.stat().st_mtime >= older_than:
                _remove(left)
        except FileNotFoundError:  # its writer has just renamed it
            continue


def _run_folders() -> list[Path]:
    if not runs_folder().is_dir():
        return []
    return sorted(Path(e.path) for e in os.scandir(runs_folder()) if not e.name.startswith("."))
