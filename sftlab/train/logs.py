"""What a training says while it runs: a bar, rows for a function, event files for TensorBoard.

finetune(..., on_step=curve)          curve({"step": 1, "epoch": .25, "loss": 3.1, ...})
finetune(..., logging_dir="logs/a")   logs/a/events.out.tfevents...  train/loss, eval/loss
tensorboard --logdir logs             all runs below it, in a browser
read_logs("logs/a")                   the same numbers as a frame
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pandas as pd
from tqdm import tqdm
from transformers import TrainerCallback

from sftlab.machine import progress_stream

EVENTS = "events.out.tfevents.*"
_STEP = ("step", "epoch", "loss", "learning_rate", "grad_norm", "mean_token_accuracy")


class LogError(ValueError):
    """A folder of logs that holds another run's, or none."""


def history(log: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """One row a step of the Trainer's log."""
    return [{name: row[name] for name in _STEP if name in row} for row in log if "loss" in row]


def validation_losses(log: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """One row an evaluation in the Trainer's log: epoch, step, loss."""
    rows = [row for row in log if "eval_loss" in row]
    return [{"epoch": row["epoch"], "step": row["step"], "loss": row["eval_loss"]} for row in rows]


class Report(TrainerCallback):
    """Calls a function with the row of each step and of each evaluation."""

    def __init__(self, on_step: Callable[[dict[str, float]], object]) -> None:
        self._on_step = on_step

    def on_log(self, args, state, control, logs, **kwargs):
        if "loss" in logs:
            self._on_step(history(state.log_history[-1:])[0])
        elif "eval_loss" in logs:
            last = state.log_history[-1]
            self._on_step({name: last[name] for name in ("epoch", "step", "eval_loss")})


class ProgressBar(TrainerCallback):
    """One bar of plain text: it renders alike in a terminal, in Jupyter and in an exported page."""

    def __init__(self, name: str) -> None:
        stream = progress_stream()
        self._bar = tqdm(desc=f"fine-tuning {name}", unit="step", file=stream, mininterval=0.5,
                         dynamic_ncols=stream.isatty())  # fmt: skip

    def on_log(self, args, state, control, logs, **kwargs):
        if "loss" in logs:
            self._bar.total = state.max_steps
            self._bar.set_postfix(loss=f"{logs['loss']:.3f}", refresh=False)
            self._bar.update(state.global_step - self._bar.n)

    def close(self) -> None:
        self._bar.close()


@contextmanager
def event_files(folder: Path, step: int | None) -> Iterator[TrainerCallback]:
    """What writes event files to a folder, and closes them whatever happens.

    Args:
        folder: new, or of a run that goes on.
        step: at which the run goes on, and what was written of later ones no longer counts; `None`
            for a run without checkpoints, which can only begin.

    Raises:
        LogError: the folder holds a run already.
    """
    from torch.utils.tensorboard import SummaryWriter
    from transformers.integrations import TensorBoardCallback

    if step is None and any(folder.glob(EVENTS)):
        raise LogError(f"{folder} holds the logs of a run; give each run a folder of its own")
    purge = None if step is None else step + 1
    with closing(SummaryWriter(log_dir=str(folder), purge_step=purge)) as writer:
        yield TensorBoardCallback(writer)


def read_logs(folder: str | Path) -> pd.DataFrame:
    """The numbers in a folder's event files, whoever wrote them.

    Returns:
        One row a number: step, name (such as train/loss), value (float32, as these files hold it);
        by name, then by step.

    Raises:
        LogError: there are no event files.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = Path(folder)
    if not any(folder.glob(EVENTS)):
        raise LogError(f"{folder} has no event files ({EVENTS}); give the folder of one run")
    # Without a size of zero it keeps a sample of 10,000 numbers of each name.
    found = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    found.Reload()
    rows = [
        {"step": event.step, "name": name, "value": event.value}
        for name in sorted(found.Tags()["scalars"])
        for event in found.Scalars(name)
    ]
    return pd.DataFrame(rows, columns=["step", "name", "value"])
