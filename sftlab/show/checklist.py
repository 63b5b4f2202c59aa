"""The way from data to deployment as a page of boxes, filled from what a run's folder holds.

The items are those of the articles' checklists ("Quality checklist (data)", "A Minimal End-to-End
Checklist"), and stand in checklist.toml. What no file shows stays open, with the command that would
fill it: a box is never ticked on somebody's word.
"""

import json
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

import pandas as pd

from sftlab.chat import CONTRACT
from sftlab.data import checklist, read
from sftlab.integrity import GATE, RECORD
from sftlab.show.report import Report
from sftlab.train import RunError

YES, NO, OPEN = "yes", "no", "not measured"
_ITEMS = tomllib.loads(Path(__file__).with_name("checklist.toml").read_text(encoding="utf-8"))
_MEASURED = ("format", "consistency", "deduplication", "privacy", "leakage")
"""Aspects of `sftlab.data.checklist` whose last count should be 0."""
_KEEP = "sftlab train FILE --out DIR keeps its rows, which can be measured then"


class Box(NamedTuple):
    """One item."""

    part: str
    item: str
    state: str  # yes, no, or not measured
    evidence: str  # what was found, or what would measure it


def _box(name: str, found: str = "", *, good: bool = True, run: str = "") -> Box:
    """An item with what was found, or open with how to find it."""
    part, item, how = _ITEMS[name]
    if not found:
        return Box(part, item, OPEN, Template(how).substitute(run=run, keep=_KEEP))
    return Box(part, item, YES if good else NO, found)


class Checklist(Report):
    """The page, and its `boxes`."""

    def __init__(self, title: str, boxes: list[Box]) -> None:
        self.boxes = boxes
        counts = {state: sum(box.state == state for box in boxes) for state in (YES, NO, OPEN)}
        super().__init__("checklist.report", pictures={}, title=title, boxes=boxes, counts=counts)


def run_checklist(folder: str | Path, *, release: str | Path | None = None) -> Checklist:
    """The checklist of a saved run; `release` is the folder that `sftlab ship` made of it.

    Nothing is loaded or measured but the rows that `sftlab train` keeps. RunError: no run is there.
    """
    folder, release = Path(folder), Path(release or folder)
    record = _read(folder / RECORD)
    if not record:
        raise RunError(f"{folder} holds no {RECORD}; give the folder of a saved run")
    boxes = [*_data(folder), *_training(folder, record), *_evaluation(folder)]
    boxes += [*_release(folder, release), _box("monitoring"), _box("feedback")]
    return Checklist(f"{folder.resolve().name}: from data to deployment", boxes)


def _read(file: Path) -> dict[str, Any]:
    """A JSON object, or an empty one where there is none."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _first(folder: Path, *patterns: str) -> str:
    """The name of a file in the folder or below it, or nothing."""
    places = (found for one in patterns for found in sorted(folder.rglob(one)))
    return next((found.relative_to(folder).as_posix() for found in places), "")


def _data(folder: Path) -> Iterator[Box]:
    rows, held = (folder / "data" / f"{name}.jsonl" for name in ("train", "held_out"))
    measured: dict[str, Any] = {}
    if rows.is_file():
        test = {"test": read(held)} if held.is_file() and held.stat().st_size else {}
        measured = checklist(read(rows), **test).groupby("aspect").last().to_dict("index")
    for aspect in _MEASURED:
        one = measured.get(aspect)
        yield _box(aspect, one["reading"], good=not one["value"]) if one else _box(aspect)
    yield from map(_box, ("coverage", "diversity", "correctness", "harm"))
    yield _box("card", _first(folder, "data_card.md", "card.md"))


def _training(folder: Path, record: dict[str, Any]) -> Iterator[Box]:
    settings, origin = record.get("settings", {}), record.get("provenance", {})
    used = f"{settings.get('method')}, learning rate {settings.get('learning_rate')}, "
    used += f"{settings.get('num_train_epochs')} epochs, seed {settings.get('seed')}"
    yield _box("settings", used, good=bool(settings))
    base = origin.get("base_weights", "")
    yield _box("base", f"SHA-256 {base[:12]}", good=bool(base))
    passed = _read(folder / "own_data.json").get("anyway") is False
    yield _box("template", "the template doctor found no error" if passed else "")
    trained = record.get("trained", 0)
    yield _box("weights", f"{trained:,} weights trained", good=bool(trained))


def _evaluation(folder: Path) -> Iterator[Box]:
    yield _box("baseline", _first(folder, "evaluation*.html", "report.html"))
    yield _box("preferences")
    said, meter = "", folder / "meter.parquet"
    if meter.is_file():
        right = pd.read_parquet(meter)["right"].dropna().astype(float)
        said = f"{right.mean():.0%} of {len(right)} items of the meter; compare with the base"
    yield _box("skills", said)
    yield _box("safety", _first(folder, "safety*.html", "safety*.json"))


def _release(folder: Path, release: Path) -> Iterator[Box]:
    run, gate, contract = shlex.quote(str(folder)), _read(release / GATE), _read(release / CONTRACT)
    said = "; ".join(f"{one['check']}: {one['measured']}" for one in gate.get("checks", ()))
    opened = {True: "passed", False: "refused"}.get(gate.get("passed"), "")
    yield _box("gate", opened and (said or opened), good=opened == "passed", run=run)
    said = f"stop ids {contract.get('stop_ids')}, {len(contract.get('files') or ())} files"
    yield _box("contract", said if contract else "", run=run)
    system = contract.get("system_prompt") or {}
    text, count = system.get("text"), system.get("different")
    several = f"{count} different ones in the training rows"
    said = repr(text) if text else "none" if count == 1 else several
    yield _box("system", said if system else "", good=count == 1)
