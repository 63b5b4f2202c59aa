"""The folder of a training on your own file: whose it is, how far it is, and what is written.

RUN/own_data.json    what is trained: written first; another file or setting is another run
RUN/data/            train.jsonl, held_out.jsonl; left_out.jsonl and rejected.jsonl with reasons
RUN/before.json      what the base does with the held-out rows
RUN/before.parquet   the base's reading of the forgetting meter
RUN/checkpoints/     while it trains
RUN/run.json ...     the trained model and its meter, as `Run.save` writes it; run.json comes last
RUN/after.json       what the trained model does with them
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sftlab.chat import find_template
from sftlab.data import validate
from sftlab.models import Profile
from sftlab.train.checkpoints import whole_checkpoints
from sftlab.train.own_data import file_hash
from sftlab.train.own_rows import OwnData
from sftlab.train.settings import Settings

RECIPE = "own_data.json"
METER_BEFORE = "before.parquet"
REPORT = "report.html"
"""What is written last: a run that has it is finished."""
LOCK = ".lock"
"""Held while a process is at work in the folder; the system lets it go when that is killed."""


class OwnRunError(ValueError):
    """A folder that another run, or something else, is in."""


def recipe(file: str | Path, profile: Profile, settings: Settings, **options: Any) -> dict:
    """What makes a run this one and no other: plain values, to be compared and kept."""
    told = {
        "data": file_hash(file),
        "profile": profile.name,
        "template_text": find_template(settings.template).text,  # a file's may have changed
        "settings": asdict(settings.filled(profile)),
        **options,
    }
    return json.loads(json.dumps(told))


def state(folder: str | Path, wanted: Mapping[str, Any]) -> str:
    """`new`, `begun` or `finished`: how far the run of that recipe is in the folder.

    Raises:
        OwnRunError: the folder holds another run, or something else.
    """
    folder = Path(folder)
    file = folder / RECIPE
    if folder.exists() and not folder.is_dir():
        raise OwnRunError(f"{folder} is a file; give --out a new folder")
    if not file.is_file():
        if folder.exists() and any(
            one.name not in (_new(file).name, LOCK) for one in folder.iterdir()
        ):
            raise OwnRunError(
                f"{folder} is not empty and holds no run of `sftlab train`; give --out a new folder"
            )
        return "new"
    try:
        before = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OwnRunError(f"{file} can't be read: {error}; give --out a new folder") from error
    if other := _differing(before, dict(wanted)):
        raise OwnRunError(
            f"{folder} holds another run (other {', '.join(other)}), and nothing of it is "
            "overwritten; give --out a new folder, or repeat the command it was begun with"
        )
    return "finished" if (folder / REPORT).is_file() else "begun"


def _differing(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Names of what differs, those of settings by themselves."""
    flat = [{**told, **told.get("settings", {}), "settings": None} for told in (before, now)]
    return sorted(key for key in {*flat[0], *flat[1]} if flat[0].get(key) != flat[1].get(key))


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Refuse a second process: two trainings would write over each other's checkpoints."""
    from filelock import FileLock, Timeout

    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise OwnRunError(
            f"{folder}: another `sftlab train` is at work in it; wait until that ends, or give "
            "--out another folder"
        ) from None
    try:
        yield
    finally:
        lock.release()
        (folder / LOCK).unlink(missing_ok=True)


def last_step(folder: str | Path) -> int:
    """The step of the last whole checkpoint; 0 when there is none."""
    return max(whole_checkpoints(Path(folder, "checkpoints")), default=0)


def write_data(folder: Path, data: OwnData) -> None:
    """Write the rows that are trained on, held out and left out, and the bad ones, to a folder."""
    folder.mkdir(exist_ok=True)
    _write_rows(folder / "train.jsonl", data.train)
    _write_rows(folder / "held_out.jsonl", data.held_out)
    if data.left_out:
        _write_rows(
            folder / "left_out.jsonl", [{"left_out": why, **row} for why, row in data.left_out]
        )
    if data.report.bad:
        validate(data.file, bad=folder / "rejected.jsonl")


def _write_rows(file: Path, rows: Iterable[dict[str, Any]]) -> None:
    flat = ({**row, **row["meta"], "messages": row["messages"]} for row in rows)
    lines = [json.dumps({k: v for k, v in row.items() if k != "meta"}, ensure_ascii=False) + "\n"
             for row in flat]  # fmt: skip
    file.write_text("".join(lines), encoding="utf-8")


def write(file: Path, told: Any) -> None:
    """Whole or not at all: a kill leaves the old file, or none."""
    new = _new(file)
    new.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    new.replace(file)


def _new(file: Path) -> Path:
    return file.with_suffix(".new")
