"""What is told of a training: rows for a function of the learner's, event files for TensorBoard.

    finetune(..., on_step=curve)          curve({"step": 1, "epoch": .25, "loss": 3.1, ...})
    finetune(..., logging_dir="logs/first") logs/first/events.out.tfevents... train/loss, eval/loss
    tensorboard --logdir logs             all runs below it, side by side, in a browser
    read_logs("logs/first")               the same numbers as a frame

The event files are written by transformers' own callback, which any trainer of its family has
(`report_to="tensorboard"`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sftlab.train.validation import LOSS

if TYPE_CHECKING:
    import pandas as pd
    from transformers import TrainerCallback

EVENTS = "events.out.tfevents.*"
_KEPT = ("step", "epoch", "loss", "learning_rate", "grad_norm", "mean_token_accuracy")


class LogError(ValueError):
    """A folder of logs that holds another run's, or none."""


def history(log: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """One row a step; the trainer's last entry is a summary, and has no loss."""
    return [{name: row[name] for name in _KEPT if name in row} for row in log if "loss" in row]


def teller(on_step: Callable[[dict[str, float]], object]) -> "TrainerCallback":
    """What calls `on_step` with the row of each step, and with the validation loss behind it."""
    from transformers import TrainerCallback

    class Tell(TrainerCallback):
        def on_log(self, args, state, control, logs, **kwargs):
            if "loss" not in logs:
                return
            on_step(history(state.log_history[-1:])[0])
            if point := _measured(state):
                on_step(dict(point))

    return Tell()


@contextmanager
def written(folder: str | Path | None, *, step: int | None) -> "Iterator[list[TrainerCallback]]":
    """What writes event files to a folder, and closes them whatever happens; nothing for `None`.

    Args:
        folder: new, or of a run that goes on.
        step: at which the run goes on, and what was written of later ones no longer counts; `None`
            for a run without checkpoints, which can only begin.

    Raises:
        LogError: the folder holds a run already.
    """
    if folder is None:
        yield []
        return
    from torch.utils.tensorboard import SummaryWriter
    from transformers.integrations import TensorBoardCallback

    folder = Path(folder)
    if step is None and any(folder.glob(EVENTS)):
        raise LogError(f"{folder} holds the logs of a run; give each run a folder of its own")
    writer = SummaryWriter(log_dir=str(folder), purge_step=None if step is None else step + 1)

    class Events(TensorBoardCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            point = _measured(state) if "loss" in logs else None
            more = {"eval_loss": point[LOSS]} if point else {}
            super().on_log(args, state, control, logs={**logs, **more}, **kwargs)

    try:
        yield [Events(writer)]
    finally:
        writer.close()


def _measured(state) -> Mapping[str, float] | None:
    """The validation loss of the step that has just been logged."""
    # It is measured before the step is logged, so that a checkpoint between the two holds it.
    last = state.log_history[-2:-1]
    found = [row for row in last if LOSS in row and row["step"] == state.global_step]
    return found[0] if found else None


def read_logs(folder: str | Path) -> "pd.DataFrame":
    """The numbers in a folder's event files, whoever wrote them.

    Returns:
        One row a number: step, name (such as train/loss), value (float32, as these files hold it);
        by name, then by step.

    Raises:
        LogError: there are no event files.
    """
    import pandas as pd
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
