"""One run of a sweep, in a process of its own: train, measure, store."""

import logging
import math
import os
import random
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sftlab.models import Profile
from sftlab.sweeps import results
from sftlab.train import Settings

LOGGERS = ("", "transformers", "trl", "peft", "datasets", "accelerate", "huggingface_hub")
"""The root, and those that keep what they say to themselves."""
_LAB, _PYTHON = Path(__file__).parents[2], Path(os.__file__).parent
_NO_FILES = ("<string>", "<frozen importlib._bootstrap>", "<frozen importlib._bootstrap_external>")
"""What code that a library wrote, and that of the interpreter, call their file."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """What a process needs for one run."""

    run: str
    """Hash of all that makes it, under which it is stored."""
    profile: Profile
    """The base model."""
    settings: Settings | None
    """How to train, all filled in; `None` when the base is measured as it is."""
    seed: int
    """Of training, and of what is random in the measures."""
    examples: list[dict[str, Any]] | None
    """Checked conversations."""
    eval_dataset: list[dict[str, Any]] | None
    """Others, to measure the loss on after each epoch."""
    calls: bytes
    """By cloudpickle, {measure: (callable, arguments)}."""
    reserved: tuple[str, ...]
    """Names that no column of a measure may have."""
    record: Mapping[str, Any]
    """What run.json shall hold besides."""
    store: Path
    """The folder of all runs."""
    threads: int
    """Of torch."""
    paths: tuple[str, ...] = field(default_factory=lambda: tuple(sys.path))
    """Where the caller finds modules."""
    folder: str = field(default_factory=os.getcwd)
    """Where the caller stands: a measure may open a file by a relative name."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run went."""

    error: str | None = None
    """`ExampleError: example 3 ...`, or `None`: it is stored."""
    fatal: bool = False
    """No matter of this run: all the others would fail like it."""
    training: float = 0.0
    """Seconds of training alone."""
    total: float = 0.0
    """Seconds of the whole run, imports apart."""


def conduct(experiment: Experiment) -> Outcome:
    """Carry out one run and store it; a failure comes back as text."""
    for path in experiment.paths:
        if path not in sys.path:
            sys.path.append(path)
    _import(experiment)
    begun = time.perf_counter()
    training = 0.0
    try:
        if os.getcwd() != experiment.folder:
            os.chdir(experiment.folder)
        noted: list[str] = []
        with _warnings_into(noted):
            run, record = _train(experiment)
            training = record["seconds"]
            frames = _measure(experiment, run)
        results.write(
            experiment.store,
            experiment.run,
            {
                **experiment.record,
                **record,
                "warnings": list(dict.fromkeys(noted)),
                "total_seconds": time.perf_counter() - begun,
                "when": datetime.now(UTC).isoformat(timespec="seconds"),
            },
            frames,
        )
    except (Exception, SystemExit) as error:
        text = " ".join(str(error).split()) or "no further word"
        where = "".join(getattr(error, "__notes__", []))
        return Outcome(
            error=f"{type(error).__name__}: {text}{where}", fatal=isinstance(error, ColumnError),
            training=training, total=time.perf_counter() - begun,
        )  # fmt: skip
    return Outcome(training=training, total=time.perf_counter() - begun)


def _import(experiment: Experiment) -> None:
    """What takes seconds the first time in a process, and would spoil the estimate."""
    import torch

    import sftlab.train.finetuning  # noqa: F401
    from sftlab.quiet import quiet_libraries

    torch.set_num_threads(experiment.threads)
    if experiment.settings:
        with quiet_libraries():
            from peft import LoraConfig  # noqa: F401
            from trl import SFTTrainer  # noqa: F401


def _train(experiment: Experiment):
    from sftlab.train import finetune, untrained

    if experiment.settings is None:
        run, loss = untrained(experiment.profile), None
    else:
        run = finetune(
            experiment.profile,
            experiment.examples,
            settings=experiment.settings,
            eval_dataset=experiment.eval_dataset,
            progress=False,
        )
        losses = [row["loss"] for row in run.history]
        last = losses[-math.ceil(len(losses) / 10) :]
        loss = sum(last) / len(last) if last else None
    return run, {
        "settings": asdict(run.settings) if experiment.settings else None,
        "seconds": run.seconds,
        "loss": loss if loss is None or math.isfinite(loss) else None,
        "tokens": run.tokens,
    }


def _measure(experiment: Experiment, run) -> dict[str, Any]:
    import cloudpickle
    import numpy
    import torch

    frames = {}
    # Anew for each run: a measure that remembers something may not bring it along from the last.
    for name, (measure, arguments) in cloudpickle.loads(experiment.calls).items():
        random.seed(experiment.seed)
        numpy.random.seed(experiment.seed)
        torch.manual_seed(experiment.seed)
        positional, named = ((), {"run": run}) if "run" in arguments else ((run,), {})
        try:
            found = measure(*positional, **{**arguments, **named})
            frames[name] = _frame(name, found, experiment.reserved)
        except (Exception, SystemExit) as error:
            if not isinstance(error, ResultError | ColumnError):
                error.add_note(f" (in the measure {name!r}{_place(error)})")
            raise
    return frames


def _place(error: BaseException) -> str:
    """Where in the learner's own code an error arose: `, helpers.py, line 3`, or nothing."""
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        file = Path(frame.f_code.co_filename)
        packages = {"site-packages", "dist-packages"} & set(file.parts)
        if not (packages or {_LAB, _PYTHON} & set(file.parents) or file.name in _NO_FILES):
            in_cell = any("ipykernel_" in part or "ipython-input" in part for part in file.parts)
            return f", {'a cell' if in_cell else file.name}, line {line}"
    return ""


class ResultError(ValueError):
    """A measure gave something that is neither a frame of items nor a number."""


class ColumnError(ValueError):
    """A measure gave a column with a name that the sweep's own frame has."""


def _frame(name: str, found: Any, reserved: tuple[str, ...]):
    import numpy
    import pandas as pd

    if isinstance(found, bool | int | float | numpy.bool_ | numpy.number):
        return pd.DataFrame({"value": [found]})
    if not isinstance(found, pd.DataFrame):
        raise ResultError(
            f"the measure {name!r} gave a {type(found).__name__}; let it return a number, or a "
            "frame with one row an item"
        )
    found = _with_index(name, found)
    taken = [column for column in found.columns if column in reserved]
    if taken:
        raise ColumnError(
            f"the measure {name!r} gives a column {taken[0]!r}, and the sweep has one of that name;"
            " rename it"
        )
    return found


def _with_index(name: str, found):
    """The frame with an index that has a name, such as that of `groupby`, as columns at the left.

    An index without a name only counts the rows, and is dropped.
    """
    labels = [(str(level), found.index.get_level_values(place))
              for place, level in enumerate(found.index.names) if level is not None]  # fmt: skip
    frame = found.set_axis(list(map(str, found.columns)), axis=1).reset_index(drop=True)
    for place, (label, values) in enumerate(labels):
        if label in frame.columns:
            raise ResultError(
                f"the measure {name!r} gives a frame whose index has the name {label!r}, and so has"
                " a column or another level; rename it with rename_axis, or drop it with "
                "reset_index(drop=True)"
            )
        frame.insert(place, label, values)
    return frame


@contextmanager
def _warnings_into(noted: list[str]) -> Iterator[None]:
    """Collect warnings, and what is logged as one: nobody sees the screen of this process."""

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            noted.append(record.getMessage())

    handler = Collect(level=logging.WARNING)
    # The root gets what the others pass on.
    loggers = [logging.getLogger(name) for name in LOGGERS]
    loggers = [one for one in loggers if one is logging.root or not one.propagate]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        with warnings.catch_warnings(record=True) as caught:
            yield
        noted += [str(warning.message) for warning in caught]
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
