"""One run of a sweep in a worker process: train, measure, and send back what was found."""

import logging
import math
import os
import random
import signal
import threading
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cloudpickle
import numpy
import pandas as pd
import psutil

from sftlab.models import PROFILES, Profile
from sftlab.sweeps.cache import to_parquet
from sftlab.sweeps.keys import code_hash, is_own
from sftlab.train import Settings


class SweepError(ValueError):
    """A sweep that can't begin, or that would fail in every run."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a worker needs for one run."""

    run: str  # its key
    code: str  # hash of the caller's lab
    weights: str  # hash of the caller's base model
    profile: Profile
    settings: Settings | None  # how to train; `None` to measure the base as it is
    seed: int  # of what is random in the measures; that of training is in the settings
    data: Mapping[str, list[dict[str, Any]]]  # examples and eval_dataset, where there are any
    measures: bytes  # by cloudpickle, {name: function}: functions of a notebook are sent whole
    # Of each measure; `run` stands among them where the measure has a parameter of that name.
    arguments: Mapping[str, dict[str, Any]]
    reserved: tuple[str, ...]  # names that no column of a measure may have


def start(parent: int, *_: Any) -> None:
    """Set up a worker process on this machine."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it reaches all processes: the parent answers it
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # what libraries print would land in the notebook
        os.dup2(null, stream)

    def end_with_parent() -> None:  # one that was killed, such as a kernel, can't end its workers
        while os.getppid() == parent and psutil.pid_exists(parent):
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def carry_out(task: Task) -> dict[str, Any]:
    """Carry out one run: its `record` and `frames` (of each measure a Parquet file), or its
    `error`, such as "KeyError: 'x' (in the measure 'm', a cell, line 3)".

    Raises:
        SweepError: every run would fail: the worker has another version of the lab or of the base
            model, or a measure gives a column that the sweep's frame has already.
    """
    if task.code != code_hash():
        raise SweepError(
            "a worker has another version of sftlab than this process: install the same one on all "
            "machines and restart the workers; or, where its files were edited, restart the kernel"
        )
    began, messages = time.perf_counter(), []
    try:
        with _warnings_into(messages):
            run = _train(task)
            frames = _measure(task, run)
    except SweepError:
        raise
    except (Exception, SystemExit) as error:  # the measures are the learner's and raise anything
        return {"error": error_text(error)}
    losses = [row["loss"] for row in run.history]
    last = losses[-math.ceil(len(losses) / 10) :]
    record = {
        "settings": asdict(run.settings) if task.settings else None,
        "seconds": run.seconds,
        "loss": sum(last) / len(last) if last and math.isfinite(sum(last)) else None,
        "tokens": run.tokens,
        "warnings": list(dict.fromkeys(messages)),
        "total_seconds": time.perf_counter() - began,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return {"record": record, "frames": frames}


def error_text(error: BaseException) -> str:
    """An exception with its notes on one line."""
    text = " ".join(str(error).split()) or "without a message"
    return f"{type(error).__name__}: {text}{''.join(getattr(error, '__notes__', []))}"


def _train(task: Task) -> Any:
    from sftlab.train import finetune, untrained

    profile = task.profile
    if profile.embedded and profile.name in PROFILES:  # it may lie elsewhere on this machine
        profile = replace(profile, source=PROFILES[profile.name].source)
    if task.settings:
        run = finetune(profile, settings=task.settings, progress=False, **task.data)
    else:
        run = untrained(profile)
    if run.provenance["base_weights"] != task.weights:
        raise SweepError(f"a worker has other weights of {profile.name} than this process")
    return run


def _measure(task: Task, run: Any) -> dict[str, bytes]:
    """What each measure gives, as the content of a Parquet file."""
    import torch

    frames = {}
    # Unpickled for each run: what a measure remembers of the last one must not reach the next.
    for name, measure in cloudpickle.loads(task.measures).items():
        random.seed(task.seed)
        numpy.random.seed(task.seed)
        torch.manual_seed(task.seed)
        given = task.arguments[name]
        try:
            found = measure(**{**given, "run": run}) if "run" in given else measure(run, **given)
            frame = _items(found)
            frames[name] = to_parquet(frame)
        except (Exception, SystemExit) as error:
            error.add_note(f" (in the measure {name!r}{_place(error)})")
            raise
        for column in frame.columns.intersection(task.reserved):
            raise SweepError(
                f"the measure {name!r} gives a column {column!r}, and the sweep has one of that "
                "name; rename it"
            )
    return frames


def _items(found: Any) -> pd.DataFrame:
    """What a measure returned, as a frame; index levels that have names become columns."""
    if isinstance(found, bool | int | float | numpy.bool_ | numpy.number):
        return pd.DataFrame({"value": [found]})
    if not isinstance(found, pd.DataFrame):
        kind = type(found).__name__
        raise TypeError(f"it returned a {kind}; return a number, or a frame with one row per item")
    frame = found.set_axis(list(map(str, found.columns)), axis=1)
    named = [level for level in frame.index.names if level is not None]
    return (frame.reset_index(named) if named else frame).reset_index(drop=True)


def _place(error: BaseException) -> str:
    """Where in the learner's own code an error arose: `, helpers.py, line 3`, or nothing."""
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        file = Path(frame.f_code.co_filename)
        compiled = file.suffix in {".pyx", ".pxi"}  # relative names, such as pyarrow/error.pxi
        if is_own(file) and not compiled and not file.name.startswith(("<string>", "<frozen")):
            in_cell = any("ipykernel_" in part or "ipython-input" in part for part in file.parts)
            return f", {'a cell' if in_cell else file.name}, line {line}"
    return ""


@contextmanager
def _warnings_into(messages: list[str]) -> Iterator[None]:
    """Collect warnings, and what is logged as one: nobody sees the output of a worker."""
    handler = logging.Handler(level=logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())
    # Those of Hugging Face do not pass on to the root what they say.
    names = (None, "transformers", "trl", "peft", "datasets", "accelerate", "huggingface_hub")
    loggers = [logging.getLogger(name) for name in names]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        with warnings.catch_warnings(record=True) as caught:
            yield
        messages += [str(warning.message) for warning in caught]
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
