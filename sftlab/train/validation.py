"""The loss on examples that are not trained on, after each epoch."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sftlab.train.settings import Settings
from sftlab.train.supervision import supervise

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

BATCH = 64
LOSS = "validation_loss"


class Curve:
    """Measures at the end of each epoch, into the trainer's log: so a checkpoint holds it too."""

    def __init__(self, rows: Sequence[dict[str, Any]], pad: int) -> None:
        self._rows, self._pad = rows, pad

    @classmethod
    def of(
        cls, examples: list | None, tokenizer: "PreTrainedTokenizerBase", settings: Settings
    ) -> "Curve | None":
        """The curve of some validation examples, masked and cut as those of the training are."""
        if examples is None:
            return None
        rows, _ = supervise(examples, tokenizer, settings, max_length=settings.max_length)
        return cls(rows, tokenizer.pad_token_id)

    def callback(self) -> "TrainerCallback":
        """What tells the trainer to measure."""
        from transformers import TrainerCallback

        class Measure(TrainerCallback):
            def on_step_end(_, args, state, control, model=None, **kwargs):
                # Not in on_epoch_end: the checkpoint of an epoch's last step is written before.
                if state.epoch == int(state.epoch):
                    loss = mean_loss(model, self._rows, self._pad)
                    point = {"epoch": state.epoch, "step": state.global_step, LOSS: loss}
                    state.log_history.append(point)

        return Measure()


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

    from sftlab.train.step import IGNORED, supervised_loss

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
