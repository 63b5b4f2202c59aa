"""The loss on examples that are not trained on, after epochs; and stopping when it rises."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftlab.train.conversations import ExampleError
from sftlab.train.settings import Settings
from sftlab.train.supervision import supervise

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

BATCH = 64
LOSS = "eval_loss"
BEST = "best.safetensors"
"""In a checkpoint, the weights of the best epoch before it."""


class Curve:
    """Measures at the end of each epoch, or of the last, into the trainer's log: so a checkpoint
    holds it too.

    With `early_stopping_patience` it also keeps the trained weights of the best epoch, and
    ends the training after that many epochs without a better one.
    """

    def __init__(self, rows: Sequence[dict[str, Any]], pad: int, settings: Settings) -> None:
        self._rows, self._pad, self._patience = rows, pad, settings.early_stopping_patience
        self._each = settings.eval_strategy == "epoch"
        self._best: dict[str, torch.Tensor] = {}

    @classmethod
    def of(
        cls, examples: list | None, tokenizer: "PreTrainedTokenizerBase", settings: Settings
    ) -> "Curve | None":
        """The curve of some validation examples, masked and cut as those of the training are.

        Raises:
            ExampleError: nothing of an example's answers is left.
        """
        if examples is None:
            return None
        try:
            rows, _ = supervise(examples, tokenizer, settings, max_length=settings.max_length)
        except ExampleError as error:
            raise ExampleError(f"validation {error}") from error
        return cls(rows, tokenizer.pad_token_id, settings)

    def callback(self) -> "TrainerCallback":
        """What tells the trainer to measure, and to stop."""
        from safetensors.torch import save_file
        from transformers import TrainerCallback

        class Measure(TrainerCallback):
            def on_step_end(_, args, state, control, model=None, optimizer=None, **kwargs):
                # Not in on_epoch_end: the checkpoint of an epoch's last step is written before.
                if state.epoch != int(state.epoch):
                    return
                if not self._each and state.global_step < state.max_steps:
                    return
                loss = mean_loss(model, self._rows, self._pad)
                point = {"epoch": state.epoch, "step": state.global_step, LOSS: loss}
                state.log_history.append(point)
                if not self._patience:
                    return
                if best(state.log_history) == point["epoch"]:
                    self._best = _trained(model, optimizer)
                if stops(state.log_history, self._patience):
                    control.should_training_stop = True
                    control.should_save = args.save_strategy != "no"

            def on_save(_, args, state, control, **kwargs):
                if self._best:
                    name = f"checkpoint-{state.global_step}"
                    save_file(self._best, Path(args.output_dir) / name / BEST)

        return Measure()

    def go_on_from(self, checkpoint: Path) -> list[dict[str, float]] | None:
        """Take up the best epoch of a checkpoint; its log, where the training had been stopped."""
        from safetensors.torch import load_file

        if not self._patience:
            return None
        if (checkpoint / BEST).exists():
            self._best = load_file(checkpoint / BEST)
        state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
        return state["log_history"] if stops(state["log_history"], self._patience) else None

    def put_back(self, model: "PreTrainedModel", log: Sequence[dict[str, float]]) -> float | None:
        """Give a model the weights of the best epoch; which one, or `None`."""
        import torch

        if not self._best:
            return None
        named = dict(model.named_parameters())
        with torch.no_grad():
            for name, kept in self._best.items():
                named[name].copy_(kept)
        return best(log)


def _trained(model: "PreTrainedModel", optimizer) -> "dict[str, torch.Tensor]":
    """A copy of all weights that the optimiser may change, those that are frozen for now too."""
    changing = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
    return {name: weight.detach().clone() for name, weight in model.named_parameters()
            if id(weight) in changing}  # fmt: skip


def best(log: Sequence[dict[str, float]]) -> float | None:
    """The epoch with the lowest loss so far, the first of equals; NaN is higher than any."""
    found = points(log)
    losses = [math.inf if math.isnan(point["loss"]) else point["loss"] for point in found]
    return found[losses.index(min(losses))]["epoch"] if found else None


def stops(log: Sequence[dict[str, float]], patience: int) -> bool:
    """Whether the last `patience` epochs brought no lower loss."""
    epochs = [point["epoch"] for point in points(log)]
    return bool(epochs) and len(epochs) - 1 - epochs.index(best(log)) >= patience


def points(log: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    """What was measured, by the trainer's log: epoch, step, loss."""
    return [{"epoch": row["epoch"], "step": row["step"], "loss": row[LOSS]}
            for row in log if LOSS in row]  # fmt: skip


def mean_loss(model: "PreTrainedModel", rows: Sequence[dict[str, Any]], pad: int) -> float:
    """Mean loss of the supervised tokens of labelled rows, nats; padded on the right.

    The model computes in its own precision, which during a training is the training's, and is left
    in the mode that it was in.
    """
    import torch

    from sftlab.train.positions import IGNORED
    from sftlab.train.step import supervised_loss

    training = model.training
    model.eval()
    total, count = 0.0, 0
    rows = sorted(rows, key=lambda row: len(row["input_ids"]))
    with torch.no_grad():
        for start in range(0, len(rows), BATCH):
            batch = rows[start : start + BATCH]
            width = max(len(row["input_ids"]) for row in batch)
            ids = torch.full((len(batch), width), pad)
            labels = torch.full_like(ids, IGNORED)
            mask = torch.zeros_like(ids)
            for place, row in enumerate(batch):
                length = len(row["input_ids"])
                ids[place, :length] = torch.tensor(row["input_ids"])
                labels[place, :length] = torch.tensor(row["labels"])
                mask[place, :length] = 1
            inputs = {"input_ids": ids.to(model.device), "attention_mask": mask.to(model.device)}
            loss, right = supervised_loss(model, inputs, labels.to(model.device), count=1)
            total, count = total + loss.item(), count + len(right)
    model.train(training)
    return total / count
