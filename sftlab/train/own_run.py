"""A training on your own file in a folder, which the same call takes up where it was left.

RUN/own_data.json    what is trained: written first; another file or setting is another run
RUN/data/            train.jsonl, held_out.jsonl; left_out.jsonl and rejected.jsonl with reasons
RUN/checkpoints/     while it trains
RUN/run.json ...     the trained model and its meter, as `Run.save` writes it; run.json comes last
RUN/report.html      last of all: a run that has it is finished
"""

import json
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout

from sftlab.chat import IGNORED
from sftlab.data import normalise, part_of, validate
from sftlab.integrity import file_hash
from sftlab.machine import processes
from sftlab.measure import generate
from sftlab.paths import write_atomically
from sftlab.profiles import Profile
from sftlab.quiet import quiet_libraries
from sftlab.train.checkpoints import (
    CheckpointWarning,
    checkpoints_in,
    last_whole,
    read_object,
    writing,
)
from sftlab.train.examples import masked, supervise
from sftlab.train.finetuning import finetune, untrained
from sftlab.train.own_data import OwnData, Row
from sftlab.train.run import Run, load_run
from sftlab.train.settings import Settings, SettingsError
from sftlab.train.trainer import mean_loss

SAVES = 10  # checkpoints of a training, about; on the disk are never more than three
ANSWERED = 64  # rows that the model answers itself, at most: writing takes longer than reading


class OwnRunError(ValueError):
    """A folder that another run, or something else, is in."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one model does with all held-out rows."""

    losses: list[float]  # of each row: mean nats of its learned tokens
    loss: float  # mean nats over the learned tokens of all rows
    # What the model writes, greedily, after the questions of some rows: `row` (its index), `text`,
    # `wanted` (the row's own answer), `ended` (by itself; else it was stopped), and `exact` (text
    # is as wanted, but for case and white space).
    answers: list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class OwnRun:
    """A training that is done, and what came of it."""

    folder: Path  # where all of it is
    data: OwnData  # what it was trained and measured on
    run: Run  # the trained model
    before: Outcome | None  # the base, with the same template; `None` when no row is held out
    after: Outcome | None  # the trained model
    skills: dict[str, pd.DataFrame]  # `sftlab.measure.read_meter` of both, before and after


def train_own_data(
    data: OwnData,
    profile: Profile,
    *,
    folder: str | Path,
    wanted: Mapping[str, Any],
    verify: bool = True,
    progress: bool = True,
    tell: Callable[[str], None] = lambda line: None,
) -> OwnRun | None:
    """Measure the base, train, measure again; `tell` gets a line before what takes its time. Where
    several processes train, the main one measures and writes; the others get `None`.

    Interrupted or killed, the same call goes on from the last checkpoint and ends at the same
    weights, bit for bit on the same CPU. The folder is new, or of this very run, whose
    `run_identity` is `wanted`; else an OwnRunError or CheckpointError says what is in it.
    """
    folder = Path(folder)
    if data.settings.early_stopping_patience and not data.held_out:
        raise SettingsError(
            "early_stopping_patience waits for the loss on held-out rows, and none is held out; "
            "leave it out"
        )
    if not processes().is_main_process:
        if not (folder / "run.json").is_file():  # which is not written before all have trained
            _train(data, profile, folder / "checkpoints", progress)
        return None
    run_state(folder, wanted)  # before anything is made in a folder of others
    folder.mkdir(parents=True, exist_ok=True)
    try:
        # The system lets the lock of a process that is killed go.
        with writing(folder), FileLock(folder / ".lock", timeout=0):
            if run_state(folder, wanted) == "new":
                text = json.dumps(wanted, indent=1, allow_nan=False)
                write_atomically(folder / "own_data.json", text)
            return _measure_and_train(data, profile, folder, verify, progress, tell)
    except Timeout:
        raise OwnRunError(
            f"{folder}: another `sftlab train` is at work in it; wait until that ends, or give "
            "--out another folder"
        ) from None


def _measure_and_train(
    data: OwnData, profile: Profile, folder: Path, verify: bool, progress: bool, tell: Callable
) -> OwnRun:
    held_out, checkpoints = data.held_out, folder / "checkpoints"
    _write_data(folder / "data", data)
    tell(f"measuring the base on {len(held_out):,} held-out rows")
    base = untrained(profile, data.settings)
    before, skills = measure(base, held_out), {"before": base.meter()}
    del base  # the training wants its memory
    if (folder / "run.json").is_file():
        run = load_run(folder, verify=verify)
    else:
        step, fault = last_whole(checkpoints)
        if step or fault:
            tell(fault or f"going on from step {step}")
        run = _train(data, profile, checkpoints, progress)
        run.meter()  # what was taken is saved with the run
        run.write(folder)
    for one in checkpoints_in(checkpoints).values():
        shutil.rmtree(one, ignore_errors=True)
    with suppress(OSError):  # where something of others is left in it, the folder stays
        (checkpoints / "training.json").unlink(missing_ok=True)
        checkpoints.rmdir()
    tell(f"measuring the trained model on {len(held_out):,} held-out rows")
    skills["after"], after = run.meter(), measure(run, held_out)
    return OwnRun(folder=folder, data=data, run=run, before=before, after=after, skills=skills)


def _train(data: OwnData, profile: Profile, checkpoints: Path, progress: bool) -> Run:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CheckpointWarning)  # it was just told
        return finetune(
            profile,
            data.train,
            settings=data.settings,
            eval_dataset=data.held_out or None,
            progress=progress,
            output_dir=checkpoints,
            save_steps=max(5, min(50, data.steps // SAVES)),
        )


def run_identity(file: str | Path, profile: Profile, settings: Settings, **options: Any) -> dict:
    """What makes a run this one and no other: plain values, to be compared and kept."""
    values = {
        "data": file_hash(file),
        "profile": profile.name,
        "template_text": settings.template_for(profile).text,  # a file's may have changed
        "settings": asdict(settings.filled(profile)),
        **options,
    }
    return json.loads(json.dumps(values, allow_nan=False))


def run_state(folder: str | Path, wanted: Mapping[str, Any]) -> str:
    """`new`, `begun` or `finished`: how far the run of that identity is in the folder."""
    folder = Path(folder)
    file = folder / "own_data.json"
    if not file.is_file():
        # A kill may have left a lock, or an unfinished file of `write_atomically`.
        if folder.is_file() or any(one.name[0] != "." for one in folder.glob("*")):
            raise OwnRunError(
                f"{folder} holds no run of `sftlab train` and is not empty; give --out a new folder"
            )
        return "new"
    before = read_object(file, OwnRunError)
    # Settings that differ are named by themselves.
    one, two = ({**v, **v["settings"], "settings": None} for v in (before, wanted))
    if other := sorted(key for key in {*one, *two} if one.get(key) != two.get(key)):
        raise OwnRunError(
            f"{folder} holds another run (other {', '.join(other)}), and nothing of it is "
            "overwritten; give --out a new folder, or repeat the command it was begun with"
        )
    return "finished" if (folder / "report.html").is_file() else "begun"


def _write_data(folder: Path, data: OwnData) -> None:
    """Write the rows that are trained on, held out and left out, and the bad ones, to a folder."""
    folder.mkdir(exist_ok=True)
    left_out = [{**row, "meta": {**row["meta"], "left_out": why}} for why, row in data.left_out]
    files = {"train": data.train, "held_out": data.held_out, "left_out": left_out}
    for name, rows in files.items():
        with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as stream:
            for row in rows:
                stream.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
    if data.report.bad:
        validate(data.file, bad=folder / "rejected.jsonl", meta=data.meta)


def measure(run: Run, rows: Sequence[Row]) -> Outcome | None:
    """Measure a run, trained or not, on rows that it was not trained on; `None` without any. Which
    are answered, and how long an answer may get, depends on the rows alone."""
    if not rows:
        return None
    tokenizer, pad = run.tokenizer, run.tokenizer.pad_token_id
    labelled = supervise(rows, tokenizer, run.settings)
    prompts = [run.prompt_ids(row["messages"][:-1], row.get("tools")) for row in rows]
    # A question longer than what was trained on, or than the model reads, leaves no room.
    fitting = [n for n, prompt in enumerate(prompts) if len(prompt) < run.settings.max_length]
    chosen = sorted(Random("answered").sample(fitting, min(ANSWERED, len(fitting))))
    right = [_answer(run, rows[n]) for n in chosen]
    tokens = [len(tokenizer(one, add_special_tokens=False).input_ids) for one in right]
    longest = max(tokens, default=0)
    most = min(longest + longest // 2 + 8, 1024 if "</think>" in "".join(right) else 256)
    with quiet_libraries():
        losses = [mean_loss(run.model, [row], pad) for row in labelled]
        loss = mean_loss(run.model, labelled, pad)
        asked, how = [prompts[n] for n in chosen], {"max_new_tokens": most, "batch_size": 16}
        made = generate(run.model, asked, pad=pad, **how) if chosen else []
    answers = []
    for n, new, text, wanted in zip(chosen, made, run.texts(made), right, strict=True):
        exact = normalise(text) == normalise(wanted)
        ended = len(new) < most
        answers.append({"row": n, "text": text, "wanted": wanted, "ended": ended, "exact": exact})
    return Outcome(losses=losses, loss=loss, answers=answers)


def _answer(run: Run, row: Row) -> str:
    """What the model should write after the prompt: thinking and calls as the template has them."""
    *before, last = row["messages"]
    if not ({"reasoning_content", "tool_calls"} & last.keys() or "<think>" in last["content"]):
        return part_of(row, "answer")
    wanted = {**row, "messages": [*before, {**last, "train": True}]}
    how = run.settings.changed(turns="last", start="generation")
    (one,) = masked([wanted], run.tokenizer, how)
    ids = [label for label in one.labels if label != IGNORED]
    return run.texts([ids])[0]
