"""A training on your own file in a folder, which the same call takes up where it was left."""

import json
import shutil
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from sftlab.measure import read_meter
from sftlab.models import Profile
from sftlab.train.adapters import load_base
from sftlab.train.checkpoints import remove_checkpoints
from sftlab.train.finetuning import finetune
from sftlab.train.outcome import Outcome, measure
from sftlab.train.own_folder import METER_BEFORE, RECIPE, alone, last_step, state, write, write_data
from sftlab.train.own_rows import OwnData
from sftlab.train.run import Run
from sftlab.train.saved_run import load_run
from sftlab.train.settings import Settings, SettingsError
from sftlab.train.speech import teach_tokens

SAVES = 10
"""Checkpoints of a training, about; on the disk are never more than three."""


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
    skills: dict[str, pd.DataFrame]
    """What the model could before, and what it can after: `sftlab.measure.read_meter` of both."""


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
    ends at the same weights, bit for bit on the same CPU.

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
        SettingsError: `early_stopping_patience`, and no row is held out.
        CheckpointError: its checkpoints were made with other versions of the libraries.
    """
    folder = Path(folder)
    if data.settings.early_stopping_patience and not data.held_out:
        raise SettingsError(
            "early_stopping_patience waits for the loss on held-out rows, and none is held out"
        )
    state(folder, wanted)  # before anything is made in a folder of others
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder):
        if state(folder, wanted) == "new":
            write(folder / RECIPE, dict(wanted))
        write_data(folder / "data", data)
        return _carried_out(data, profile, folder, progress, tell)


def _carried_out(data: OwnData, profile: Profile, folder: Path, progress: bool, tell) -> OwnRun:
    before, meter = _before(data, profile, folder, tell)
    if step := last_step(folder):
        tell(f"going on from step {step}")
    run = _trained(folder, data, profile, progress)
    after = _outcome("after", lambda: run, data, folder, tell)
    skills = {"before": meter, "after": run.meter()}
    return OwnRun(folder=folder, data=data, run=run, before=before, after=after, skills=skills)


def _before(
    data: OwnData, profile: Profile, folder: Path, tell
) -> tuple[Outcome | None, pd.DataFrame]:
    """What the base does with the held-out rows, and its reading of the forgetting meter."""
    base = cache(lambda: _base(profile, data.settings))  # loaded when something is missing, once

    def read() -> pd.DataFrame:
        # Of the base as it is trained, perhaps in 4 bits: `base_meter` would load it in full.
        return read_meter(base().model, base().tokenizer, known_corpus=profile.embedded)

    return _outcome("before", base, data, folder, tell), _kept_meter(folder / METER_BEFORE, read)


def _outcome(
    name: str, run: Callable[[], Run], data: OwnData, folder: Path, tell
) -> Outcome | None:
    if not data.held_out:
        return None
    tell(f"measuring the model {name} the training on {len(data.held_out):,} held-out rows")
    return _kept(folder / f"{name}.json", lambda: measure(run(), data.held_out))


def _kept(file: Path, make: Callable[[], Outcome]) -> Outcome:
    """An outcome from its file, or made now and written to it."""
    if not file.is_file():
        write(file, make().as_dict())
    return Outcome.from_dict(json.loads(file.read_text(encoding="utf-8")))


def _kept_meter(file: Path, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """A reading of the forgetting meter from its file, or taken now and written to it."""
    if not file.is_file():
        new = file.with_suffix(".new")
        make().to_parquet(new)
        new.replace(file)
    return pd.read_parquet(file)


def _base(profile: Profile, settings: Settings) -> Run:
    """The base with the template of the training: what is asked alike can be compared."""
    model, tokenizer = load_base(profile, settings)
    teach_tokens(model, tokenizer, template=settings.template)
    return Run(model=model.eval(), tokenizer=tokenizer, history=[], settings=settings,
               seconds=0.0, tokens={}, provenance={})  # fmt: skip


def _trained(folder: Path, data: OwnData, profile: Profile, progress: bool) -> Run:
    if (folder / "run.json").is_file():
        remove_checkpoints(folder / "checkpoints")  # stopped before they were
        return load_run(folder)
    settings = data.settings
    with warnings.catch_warnings():
        # It was counted before, and is told in the report.
        warnings.filterwarnings("ignore", message=r".* are longer than max_length=")
        run = finetune(
            profile,
            [{"messages": row["messages"]} for row in data.train],
            settings=settings,
            eval_dataset=[{"messages": row["messages"]} for row in data.held_out] or None,
            progress=progress,
            output_dir=folder / "checkpoints",
            save_steps=max(5, min(50, data.steps // SAVES)),
        )
    unfinished = folder / "unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    run.meter()  # what was taken is saved with the run
    run.save(unfinished)
    # run.json tells that a run is there, so it comes when all else has.
    for file in sorted(unfinished.iterdir(), key=lambda file: file.name == "run.json"):
        file.replace(folder / file.name)
    unfinished.rmdir()
    remove_checkpoints(folder / "checkpoints")
    return run
