"""A training on your own file in a folder, which the same call takes up where it was left.

RUN/own_data.json    what is trained: written first; another file or setting is another run
RUN/data/            train.jsonl, held_out.jsonl; left_out.jsonl and rejected.jsonl with reasons
RUN/before.json      what the base does with the held-out rows
RUN/checkpoints/     while it trains
RUN/run.json ...     the trained model, as `Run.save` writes it; run.json comes last
RUN/after.json       what the trained model does with them
"""

import json
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sftlab.chat.templates import find_template
from sftlab.data.records import validate
from sftlab.models import Profile
from sftlab.train.adapters import load_base
from sftlab.train.finetune import Run, SettingsError, finetune, load_run
from sftlab.train.outcome import Outcome, measure
from sftlab.train.own_data import OwnData, file_hash
from sftlab.train.settings import Settings
from sftlab.train.speech import teach_tokens

RECIPE = "own_data.json"
REPORT = "report.html"
"""What is written last: a run that has it is finished."""
LOCK = ".lock"
"""Held while a process is at work in the folder; the system lets it go when that is killed."""
SAVES = 10
"""Checkpoints of a training, about; on the disk are never more than three."""


class OwnRunError(ValueError):
    """A folder that another run, or something else, is in."""


@dataclass(frozen=True, kw_only=True)
class OwnRun:
    """A training that is done, and what came of it."""

    folder: Path
    """Where all of it is."""
    data: OwnData
    """What it was trained and measured on."""
    run: Run
    """The trained model."""
    before: Outcome | None
    """The base on the held-out rows, asked with the same template; `None` when none is held out."""
    after: Outcome | None
    """The trained model on them."""


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


def carry_out(
    data: OwnData,
    profile: Profile,
    *,
    folder: str | Path,
    wanted: Mapping[str, Any],
    progress: bool = True,
    tell: Callable[[str], None] = lambda line: None,
) -> OwnRun:
    """Measure the base, train, measure again; what an earlier call did is not done again.

    Interrupted (`KeyboardInterrupt`) or killed, the same call goes on from the last checkpoint and
    ends at the same weights, bit for bit on a CPU.

    Args:
        data: what `prepare` gave.
        profile: the model to train.
        folder: new, or of this very run.
        wanted: its `recipe`.
        progress: show the bar of the training.
        tell: called with a line before each thing that takes its time.

    Raises:
        OwnRunError: the folder holds another run, or something else; or another process is at work
            in it.
        SettingsError: `patience`, and no row is held out.
        CheckpointError: its checkpoints were made with other versions of the libraries.
    """
    folder = Path(folder)
    if data.settings.patience and not data.held_out:
        raise SettingsError("patience waits for the loss on held-out rows, and none is held out")
    state(folder, wanted)  # before anything is made in a folder of others
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        if state(folder, wanted) == "new":
            _write(folder / RECIPE, dict(wanted))
        _write_data(folder / "data", data)
        return _carried_out(data, profile, folder, progress, tell)


def _carried_out(data: OwnData, profile: Profile, folder: Path, progress: bool, tell) -> OwnRun:
    held, sides = data.held_out, {}

    def measured(name: str, run: Callable[[], Run]) -> None:
        if not held:
            sides[name] = None
            return
        tell(f"measuring the model {name} the training on {len(held):,} held-out rows")
        sides[name] = _kept(folder / f"{name}.json", lambda: measure(run(), held))

    measured("before", lambda: _base(profile, data.settings))
    if step := last_step(folder):
        tell(f"going on from step {step}")
    run = _trained(folder, data, profile, progress)
    measured("after", lambda: run)
    return OwnRun(folder=folder, data=data, run=run, **sides)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
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
    whole = Path(folder, "checkpoints").glob("checkpoint-*/whole")
    return max((int(one.parent.name.rpartition("-")[2]) for one in whole), default=0)


def _write_data(folder: Path, data: OwnData) -> None:
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


def _write(file: Path, told: Any) -> None:
    """Whole or not at all: a kill leaves the old file, or none."""
    new = _new(file)
    new.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    new.replace(file)


def _new(file: Path) -> Path:
    return file.with_suffix(".new")


def _kept(file: Path, make: Callable[[], Outcome]) -> Outcome:
    """An outcome from its file, or made now and written to it."""
    if not file.is_file():
        _write(file, make().as_dict())
    return Outcome.from_dict(json.loads(file.read_text(encoding="utf-8")))


def _base(profile: Profile, settings: Settings) -> Run:
    """The base with the template of the training: what is asked alike can be compared."""
    model, tokenizer = load_base(profile, settings)
    teach_tokens(model, tokenizer, template=settings.template)
    return Run(model=model.eval(), tokenizer=tokenizer, history=[], settings=settings,
               seconds=0.0, tokens={}, provenance={})  # fmt: skip


def _trained(folder: Path, data: OwnData, profile: Profile, progress: bool) -> Run:
    if (folder / "run.json").is_file():
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # stopped before they were
        return load_run(folder)
    settings = data.settings
    with warnings.catch_warnings():
        # It was counted before, and is told in the report.
        warnings.filterwarnings("ignore", message=r".* are longer than max_length=")
        run = finetune(
            profile,
            [{"messages": row["messages"]} for row in data.train],
            settings=settings,
            validation=[{"messages": row["messages"]} for row in data.held_out] or None,
            progress=progress,
            checkpoints=folder / "checkpoints",
            save_every=max(5, min(50, data.steps // SAVES)),
        )
    unfinished = folder / "unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    run.save(unfinished)
    # run.json tells that a run is there, so it comes when all else has.
    for file in sorted(unfinished.iterdir(), key=lambda file: file.name == "run.json"):
        file.replace(folder / file.name)
    unfinished.rmdir()
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return run
