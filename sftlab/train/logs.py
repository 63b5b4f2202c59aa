"""What a training says while it runs: a bar, rows for a function, event files for TensorBoard.

finetune(..., on_step=curve)          curve({"step": 1, "epoch": .25, "loss": 3.1, ...})
finetune(..., logging_dir="logs/a")   logs/a/events.out.tfevents...  train/loss, eval/loss
tensorboard --logdir logs             all runs below it, in a browser
read_logs("logs/a")                   the same numbers as a frame
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
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


class Listener(TrainerCallback):
    """Moves a bar, and calls a function with the row of each step and of each evaluation."""

    def __init__(self, bar: tqdm, on_step: Callable[[dict[str, float]], object]) -> None:
        self._bar, self._on_step = bar, on_step

    def on_log(self, args, state, control, logs, **kwargs):
        last = state.log_history[-1]
        if "loss" in logs:
            self._bar.total = state.max_steps
            self._bar.set_postfix(loss=f"{logs['loss']:.3f}", refresh=False)
            self._bar.update(state.global_step - self._bar.n)
            self._on_step(history([last])[0])
        elif "eval_loss" in logs:
            self._on_step({name: last[name] for name in ("epoch", "step", "eval_loss")})


@contextmanager
def listeners(name: str, progress: bool, on_step, logging_dir, *, step: int | None):
    """The callbacks of a training that `finetune` was asked for, closed whatever happens.

    `step` is where the training goes on, and event files of later ones no longer count; `None` for
    one without checkpoints, which can only begin.
    """
    # One line of plain text renders alike in a terminal, in Jupyter and in an exported page.
    stream = progress_stream()
    bar = {"file": stream, "dynamic_ncols": stream.isatty(), "mininterval": 0.5, "unit": "step"}
    with ExitStack() as stack:
        shown = stack.enter_context(tqdm(desc=f"fine-tuning {name}", disable=not progress, **bar))
        found: list[TrainerCallback] = [Listener(shown, on_step or (lambda row: None))]
        if logging_dir is not None:
            from torch.utils.tensorboard import SummaryWriter
            from transformers.integrations import TensorBoardCallback

            if step is None and any(Path(logging_dir).glob(EVENTS)):
                raise LogError(
                    f"{logging_dir} holds the logs of a run; give each run a folder of its own"
                )
            purge = None if step is None else step + 1
            writer = SummaryWriter(log_dir=str(logging_dir), purge_step=purge)
            found.append(TensorBoardCallback(stack.enter_context(writer)))
        yield found


def read_logs(folder: str | Path) -> pd.DataFrame:
    """The numbers in a folder's event files, whoever wrote them.

    One row a number, by name and step: step, name (such as train/loss), value (float32).
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    if not any(Path(folder).glob(EVENTS)):
        raise LogError(f"{folder} has no event files ({EVENTS}); give the folder of one run")
    # Without a size of zero it keeps a sample of 10,000 numbers of each name.
    found = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    found.Reload()
    rows = [
        (event.step, name, event.value)
        for name in sorted(found.Tags()["scalars"])
        for event in found.Scalars(name)
    ]
    return pd.DataFrame(rows, columns=["step", "name", "value"])
