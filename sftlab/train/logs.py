"""What a training says while it runs: a bar, rows for a function, event files for TensorBoard.

finetune(..., on_step=curve)          curve({"step": 1, "epoch": .25, "loss": 3.1, ...})
finetune(..., logging_dir="logs/a")   logs/a/events.out.tfevents...  train/loss, eval/loss
tensorboard --logdir logs             all runs below it, in a browser
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tqdm import tqdm
from transformers import TrainerCallback

from sftlab.machine import progress_stream
from sftlab.train.settings import SettingsError


def history(log: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """One row a step of the Trainer's log."""
    names = ("step", "epoch", "loss", "learning_rate", "grad_norm")
    return [{name: row[name] for name in names if name in row} for row in log if "loss" in row]


def validation_losses(log: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """One row an evaluation in the Trainer's log: epoch, step, loss."""
    rows = [row for row in log if "eval_loss" in row]
    return [{"epoch": row["epoch"], "step": row["step"], "loss": row["eval_loss"]} for row in rows]


def progress_bar(name: str, shown: bool) -> tqdm:
    """The bar of a training: one line of plain text, alike in a terminal, Jupyter and a page."""
    stream = progress_stream()
    how = {"file": stream, "dynamic_ncols": stream.isatty(), "mininterval": 0.5, "unit": "step"}
    return tqdm(desc=f"fine-tuning {name}", disable=not shown, **how)


class Listener(TrainerCallback):
    """Moves a bar, and calls a function with the row of each step and of each evaluation."""

    def __init__(self, bar: tqdm, on_step: Callable[[dict[str, float]], object] | None) -> None:
        self._bar, self._on_step = bar, on_step or (lambda row: None)

    def on_log(self, args, state, control, logs, **kwargs):
        last = state.log_history[-1]
        if "loss" in logs:
            self._bar.total = state.max_steps
            self._bar.set_postfix(loss=f"{logs['loss']:.3f}", refresh=False)
            self._bar.update(state.global_step - self._bar.n)
            self._on_step(history([last])[0])
        elif "eval_loss" in logs:
            self._on_step({name: last[name] for name in ("epoch", "step", "eval_loss")})


def tensorboard(folder: Path, step: int | None) -> TrainerCallback:
    """What writes event files to a new folder, or to that of a run that goes on after `step`.

    Only here is TensorBoard imported, which takes long.
    """
    from torch.utils.tensorboard import SummaryWriter
    from transformers.integrations import TensorBoardCallback

    if step is None and any(folder.glob("*tfevents*")):
        raise SettingsError(f"logging_dir: {folder} has the logs of another run; give a new folder")
    # Steps that a killed run had written after its last checkpoint are written again.
    purge = None if step is None else step + 1
    return TensorBoardCallback(SummaryWriter(log_dir=str(folder), purge_step=purge))
