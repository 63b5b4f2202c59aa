"""The way from data to deployment as a page of boxes, filled from what a run's folder holds.

The items are those of the articles' checklists ("Quality checklist (data)", "A Minimal End-to-End
Checklist"). What no file shows stays open, with the command that would fill it: a box is never
ticked on somebody's word.
"""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from sftlab.chat import CONTRACT
from sftlab.data import checklist, read
from sftlab.integrity import GATE, RECORD
from sftlab.show.report import Report
from sftlab.train import RunError

YES, NO, OPEN = "yes", "no", "not measured"


class Box(NamedTuple):
    """One item."""

    part: str
    item: str
    state: str  # yes, no, or not measured
    evidence: str  # what was found, or what would measure it


def _box(part: str, item: str, found: str, how: str) -> Box:
    """Yes with what was found; where nothing was, open with how to find it."""
    return Box(part, item, YES if found else OPEN, found or how)


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
    boxes += _release(folder, release)
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
    keep = "sftlab train FILE --out DIR keeps its rows, which can be measured then"
    for aspect, item in _ASPECTS.items():
        if one := measured.get(aspect):
            yield Box("data", item, NO if one["value"] else YES, one["reading"])
        else:
            yield Box("data", item, OPEN, keep)
    for item, how in _BY_HAND.items():
        yield Box("data", item, OPEN, how)
    card, how = _first(folder, "data_card.md", "card.md"), "write_card(rows, about, checks=...)"
    yield _box("data", "data card, license and rights", card, f"{how} of sftlab.data")


_ASPECTS = {  # of `sftlab.data.checklist`, whose last count should be 0
    "format": "no marks of a chat format",
    "consistency": "consistency",
    "deduplication": "deduplication",
    "privacy": "privacy",
    "leakage": "no leakage into held-out rows",
}
_BY_HAND = {
    "coverage": "checklist(rows, cover={...}) of sftlab.data, for what production will ask",
    "diversity": "loss_scores and lengths of lesson 03 say how alike the rows are",
    "correctness": "read a random sample of the rows, and count the wrong ones",
    "safety": "read the rows that a guard or a list of words finds (lesson 10)",
}


def _training(folder: Path, record: dict[str, Any]) -> Iterator[Box]:
    settings, origin = record.get("settings", {}), record.get("provenance", {})
    used = f"{settings.get('method')}, learning rate {settings.get('learning_rate')}, "
    used += f"{settings.get('num_train_epochs')} epochs, seed {settings.get('seed')}"
    yield Box("training", "settings and versions are recorded", YES if settings else NO, used)
    base = origin.get("base_weights", "")
    yield Box("training", "base model is identified", YES if base else NO, f"SHA-256 {base[:12]}")
    passed = _read(folder / "own_data.json").get("anyway") is False
    said = "the template doctor found no error" if passed else ""
    how = "sftlab train without --anyway, or sftlab doctor TEMPLATE"
    yield _box("training", "template and masks are checked", said, how)
    trained = record.get("trained", 0)
    yield Box("training", "weights changed", YES if trained else NO, f"{trained:,} weights trained")


def _evaluation(folder: Path) -> Iterator[Box]:
    report = _first(folder, "evaluation*.html", "report.html")
    how = "evaluation_report of lesson 09, against the base with a few-shot prompt"
    yield _box("evaluation", "held-out test against a baseline", report, how)
    how = "ask them about pairs of answers (lesson 09)"
    yield Box("evaluation", "preferences of people", OPEN, how)
    said, meter = "", folder / "meter.parquet"
    if meter.is_file():
        right = pd.read_parquet(meter)["right"].dropna().astype(float)
        said = f"{right.mean():.0%} of {len(right)} items of the meter; compare with the base"
    yield _box("evaluation", "old skills", said, "run.meter() before run.save (lesson 08)")
    safety = _first(folder, "safety*.html", "safety*.json")
    how = "safety_report of lesson 10: refusals, over-refusal, memorization"
    yield _box("evaluation", "safety", safety, how)


def _release(folder: Path, release: Path) -> Iterator[Box]:
    command = f"sftlab ship {shlex.quote(str(folder))} --out DIR --to merged"
    gate, contract = _read(release / GATE), _read(release / CONTRACT)
    passed = {True: YES, False: NO}.get(gate.get("passed"), OPEN)
    said = "; ".join(f"{one['check']}: {one['measured']}" for one in gate.get("checks", ()))
    yield Box("release", "the gate opened", passed, said or command)
    said = f"stop ids {contract.get('stop_ids')}, {len(contract.get('files') or ())} files"
    yield _box("release", "contract of prompt and tokens", said if contract else "", command)
    system = contract.get("system_prompt") or {}
    count = system.get("different")
    said = "train again"
    if system:
        several = f"{count} different ones in the training rows"
        said = repr(system["text"]) if system.get("text") else "none" if count == 1 else several
    state = {None: OPEN, 1: YES}.get(count, NO)
    yield Box("release", "one system prompt, recorded", state, said)
    how = "sftlab serve has /metrics; set an alarm whose false alarms were counted (lesson 11)"
    yield Box("operation", "monitoring and drift", OPEN, how)
    how = "collect failures as rows, validate them, train again (lesson 11)"
    yield Box("operation", "feedback", OPEN, how)
