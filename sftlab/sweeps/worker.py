"""One run of an experiment in a worker process: train, measure, and send back what was found."""

import gc
import math
import os
import random
import signal
import threading
import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any

import cloudpickle
import numpy
import pandas as pd
import psutil

from sftlab.profiles import PROFILES, Profile
from sftlab.sweeps.cache import SweepError, base_hash, code_hash
from sftlab.train import Settings

OWN_COLUMNS = ["arm", "seed", "measure", "seconds", "loss", "run", "error"]  # of every frame


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a worker needs for one run."""

    run: str  # its key
    code: str  # hash of the caller's lab
    base: str  # hash of the caller's base model
    profile: Profile
    settings: Settings | None  # how to train; `None` to measure the base as it is
    seed: int  # of what is random in the measures; that of training is in the settings
    data: Mapping[str, list[dict[str, Any]]]  # examples and eval_dataset, where there are any
    measures: bytes  # by cloudpickle, {name: function}: functions of a notebook are sent whole
    arguments: Mapping[str, dict[str, Any]]  # of each measure, besides the run


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
    # What the libraries make when they are imported stays. Left to the garbage collector, it is
    # searched again and again: 2 s of the import, and 0.4 of the 0.9 s of a small fine-tune.
    gc.disable()
    import_module("sftlab.train.finetuning")
    gc.freeze()
    gc.enable()


def carry_out(task: Task) -> dict[str, Any]:
    """Carry out one run: its `record` and `frames` (of each measure a Parquet file), or its
    `error`, such as "KeyError: 'x' (in the measure 'm', line 3)"."""
    import torch

    try:
        with warnings.catch_warnings(record=True) as caught:
            run = _train(task)
            frames = {}
            # Unpickled for each run: what a measure remembers of the last must not reach the next.
            for name, measure in cloudpickle.loads(task.measures).items():
                random.seed(task.seed)
                numpy.random.seed(task.seed)
                torch.manual_seed(task.seed)
                try:
                    found = measure(run, **task.arguments[name])
                    frames[name] = _to_parquet(found)
                except Exception as error:
                    inside = error.__traceback__.tb_next  # where the measure itself was
                    own = inside and inside.tb_frame.f_code.co_filename != __file__
                    place = f", line {inside.tb_lineno}" if own else ""
                    error.add_note(f" (in the measure {name!r}{place})")
                    raise
    except Exception as error:  # the measures are the learner's and raise anything
        return {"error": error_text(error)}
    losses = [row["loss"] for row in run.history]
    last = losses[-math.ceil(len(losses) / 10) :]
    record = {
        "profile": task.profile.name,
        "settings": asdict(run.settings) if task.settings else None,
        "seed": task.seed,
        "seconds": run.seconds,
        "loss": sum(last) / len(last) if last else None,
        "warnings": list(dict.fromkeys(str(warning.message) for warning in caught)),
    }
    return {"record": record, "frames": frames}


def error_text(error: BaseException) -> str:
    """An exception with its notes on one line."""
    text = " ".join(str(error).split()) or "without a message"
    return f"{type(error).__name__}: {text}{''.join(getattr(error, '__notes__', []))}"


def _train(task: Task) -> Any:
    from sftlab.train import finetune, untrained

    if task.code != code_hash():
        raise SweepError(
            "the worker has another version of sftlab than the caller: install the same one on all "
            "machines and restart the workers; or, where its files were edited, restart the kernel"
        )
    profile = task.profile
    if profile.embedded:  # it may lie elsewhere on this machine
        profile = PROFILES.get(profile.name, profile)
    if base_hash(profile) != task.base:
        raise SweepError(f"the worker has other weights of {profile.name} than the caller")
    if task.settings is None:
        return untrained(profile)
    return finetune(profile, settings=task.settings, progress=False, **task.data)


def _to_parquet(found: Any) -> bytes:
    """What a measure returned, as the content of a Parquet file; an index that has a name becomes a
    column, and bins of `pandas.cut` become texts."""
    if isinstance(found, bool | int | float | numpy.bool_ | numpy.number):
        found = pd.DataFrame({"value": [found]})
    if not isinstance(found, pd.DataFrame):
        kind = type(found).__name__
        raise TypeError(f"it returned a {kind}; return a number, or a frame with a row per item")
    if any(found.index.names):
        found = found.reset_index()
    found = found.set_axis(list(map(str, found.columns)), axis=1)
    for column in found.columns.intersection(OWN_COLUMNS):
        raise SweepError(f"it gives a column {column!r}, which every frame has; rename it")
    kinds = found.dtypes.map(lambda dtype: getattr(dtype, "categories", None))
    bins = [name for name, kind in kinds.items() if isinstance(kind, pd.IntervalIndex)]
    return found.astype(dict.fromkeys(bins, str)).to_parquet(index=False)
