"""The cache of finished runs: none is computed twice, none is half-written.

One folder a run, named by its key; it appears by one rename, complete:

    <cache>/runs/<key>/run.json             what it is: settings, seed, code, seconds, loss, ...
    <cache>/runs/<key>/measure-0.parquet    what the first measure gave, and so on
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from sftlab.paths import cache_folder, folder_written_atomically
from sftlab.train import Settings

FORMAT = 2  # of the files; part of every key


class Stored(NamedTuple):
    """A run read back: what run.json holds, and what each measure gave."""

    record: dict[str, Any]
    frames: dict[str, pd.DataFrame]


def _runs() -> Path:
    return cache_folder() / "runs"


def to_parquet(frame: pd.DataFrame) -> bytes:
    """A frame as the content of a Parquet file; bins of `pandas.cut` become texts. A column that
    mixes types, or stands there twice, raises a ValueError."""
    categories = frame.select_dtypes("category")
    bins = [name for name in categories if isinstance(frame[name].cat.categories, pd.IntervalIndex)]
    table = pa.Table.from_pandas(frame.astype(dict.fromkeys(bins, str)), preserve_index=False)
    content = BytesIO()
    pq.write_table(table, content, write_page_checksum=True)
    return content.getvalue()


def write(run: str, record: Mapping[str, Any], frames: Mapping[str, bytes]) -> None:
    """Store a run, with what `to_parquet` makes of its frames, in place of what was there."""
    record = {"format": FORMAT, "run": run, **record, "measures": list(frames)}
    try:
        with folder_written_atomically(_runs() / run) as folder:
            for number, content in enumerate(frames.values()):
                (folder / f"measure-{number}.parquet").write_bytes(content)
            text = json.dumps(record, indent=1, ensure_ascii=False)
            (folder / "run.json").write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise OSError(
            f"the run can't be stored in {_runs()}: {error.strerror or error}; free some space "
            "there, set SFTLAB_CACHE to a folder on another disk, or delete the stored runs with "
            "`sftlab cache --clear`"
        ) from error


def read(run: str) -> Stored | None:
    """A run of the cache, or `None` when it is not there, or damaged."""
    folder, frames = _runs() / run, {}
    if (record := _record(folder)) is None:
        return None
    try:
        for number, name in enumerate(record["measures"]):
            file = folder / f"measure-{number}.parquet"
            table = pq.read_table(file, use_threads=False, page_checksum_verification=True)
            frames[name] = table.to_pandas()
            for column in table.schema:
                if pa.types.is_list(column.type):  # else they come back as arrays
                    cells = table.column(column.name).to_pylist()
                    cells = [None if cell is None else tuple(cell) for cell in cells]
                    frames[name][column.name] = pd.Series(cells, dtype=object)
    except (OSError, pa.ArrowException):
        return None
    return Stored(record, frames)


def _record(folder: Path) -> dict[str, Any] | None:
    try:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        return record if (record["format"], record["run"]) == (FORMAT, folder.name) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def stored() -> pd.DataFrame:
    """One row a cached run, the newest first: run (key), profile, settings (text: those that are
    not the defaults), seed, measures (text), seconds (of the whole run), bytes (on disk), when
    (UTC)."""
    usual, rows = asdict(Settings()), []
    for folder in _runs().glob("[!.]*"):
        if (record := _record(folder)) is None:
            continue
        settings = (record["settings"] or {}).items()
        changed = [f"{k}={v}" for k, v in settings if k != "seed" and v != usual.get(k)]
        known = {
            "run": folder.name,
            "profile": record["profile"],
            "settings": ", ".join(changed) if settings else "untrained",
            "seed": record["seed"],
            "measures": ", ".join(record["measures"]),
            "seconds": record["total_seconds"],
            "bytes": sum(file.stat().st_size for file in folder.iterdir()),
            "when": datetime.fromisoformat(record["when"]),
        }
        rows.append(known)
    columns = "run profile settings seed measures seconds bytes when".split()
    frame = pd.DataFrame(rows, columns=columns)
    return frame.sort_values("when", ascending=False, ignore_index=True)


def clear(*, older_than_days: float | None = None) -> int:
    """Delete cached runs, all of them or those older than some days; returns how many."""
    if older_than_days is not None and not older_than_days >= 0:
        raise ValueError(f"older_than_days is {older_than_days!r}; give zero or more")
    limit = datetime.now(UTC) - timedelta(days=older_than_days or 0)
    removed = 0
    for folder in _runs().glob("*"):  # those too that a killed process left half-written
        if older_than_days is None or datetime.fromtimestamp(folder.stat().st_mtime, UTC) < limit:
            shutil.rmtree(folder, ignore_errors=True)
            removed += folder.name[0] != "."
    return removed
