"""Train a part of the base's own weights: the upper layers, the output head, or more and more.

    embeddings | layer 1 | layer 2 | ... | layer L | final norm, output head
    bottom                                                              top

Where input and output embeddings share their weights, they are the bottom, and the top is the final
norm alone. So *frozen* leaves shared embeddings as they are, and *head* changes them at both ends.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sftlab.models import ADAPTED
from sftlab.train.settings import SettingsError

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel, TrainerCallback


def parts(model: "PreTrainedModel") -> "list[list[nn.Parameter]]":
    """A decoder's weights from top to bottom: norm and head, each layer, embeddings.

    What a family has besides stands with the embeddings when it is an embedding too (GPT-2's
    positions), else at the top. No weight is in two parts.
    """
    from torch import nn

    count = model.config.get_text_config().num_hidden_layers
    layers = next(module for module in model.modules()
                  if isinstance(module, nn.ModuleList) and len(module) == count)  # fmt: skip
    bottom = {weight: None for module in model.modules() if isinstance(module, nn.Embedding)
              for weight in module.parameters()}  # fmt: skip
    inner = set(layers.parameters())
    top = [one for one in model.parameters() if one not in inner and one not in bottom]
    return [top, *(list(layer.parameters()) for layer in reversed(layers)), list(bottom)]


def choose(
    model: "PreTrainedModel", method: str, *, layers: int | None, added: Sequence[int]
) -> None:
    """Freeze what a method leaves alone.

    Args:
        model: the base.
        method: frozen or head; full and gradual train everything in the end.
        layers: upper layers that frozen trains; by default half of them, rounded up.
        added: rows of the embeddings that are new: they have no meaning yet, and are trained too.

    Raises:
        SettingsError: the model has fewer layers.
    """
    if method not in ("frozen", "head"):
        return
    model.requires_grad_(False)
    if method == "head":
        model.get_output_embeddings().weight.requires_grad_(True)
    else:
        top, *body, _ = parts(model)
        if layers and layers > len(body):
            raise SettingsError(
                f"trained_layers is {layers}, and the model has {len(body)} layers; give at most "
                "as many"
            )
        for part in (top, *body[: layers or -(-len(body) // 2)]):
            for weight in part:
                weight.requires_grad_(True)
    table = model.get_input_embeddings().weight
    if added and not table.requires_grad:
        table.requires_grad_(True)
        only_rows(table, added)


def only_rows(weight: "nn.Parameter", rows: Sequence[int]) -> None:
    """Give gradients to some rows of a matrix only; the optimiser must not decay the others."""
    import torch

    kept = torch.zeros(len(weight), 1, dtype=torch.bool)
    kept[list(rows)] = True

    def mask(gradient):
        if not weight.partial:
            return gradient
        return gradient.where(kept.to(gradient.device), 0)

    weight.partial = len(rows)
    weight.register_hook(mask)


def counts(model: "PreTrainedModel", method: str) -> tuple[int, int]:
    """Numbers of weights that are trained, and of the base's own.

    A quantised matrix counts by its shape, weights that two places share count once, and of a
    matrix with a few trained rows these alone are trained.

    Args:
        model: set up for the training.
        method: how it is trained.
    """
    trained = base = 0
    beside = method in ADAPTED
    for weight in model.parameters():
        state = getattr(weight, "quant_state", None)
        size = state.shape.numel() if state is not None else weight.numel()
        rows = getattr(weight, "partial", 0)
        trained += (rows * weight.shape[1] if rows else size) * weight.requires_grad
        base += size * (not beside or not weight.requires_grad)
    return (base if method == "gradual" else trained), base


def gradual(model: "PreTrainedModel", *, added: Sequence[int]) -> "TrainerCallback":
    """Unfreeze from the top down, evenly over the steps (Howard and Ruder, arXiv 1801.06146).

        step          1    2    3    4    5    6         6 steps, 2 layers
        top          yes  yes  yes  yes  yes  yes        norm, and head where it is not shared
        layer 2       -    -   yes  yes  yes  yes
        layer 1       -    -    -   yes  yes  yes ...    the last part is open in the last step

    Rows of added tokens are trained from the start. The optimiser knows all weights from the start,
    and leaves alone those that have no gradient.
    """
    from transformers import TrainerCallback

    every = parts(model)
    table = model.get_input_embeddings().weight
    if added:
        only_rows(table, added)

    class Thaw(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            count = -(-(state.global_step + 1) * len(every) // state.max_steps)
            for place, part in enumerate(every):
                for weight in part:
                    weight.requires_grad_(place < count)
            if added:
                table.requires_grad_(True)
                table.partial = len(added) if count < len(every) else 0

    return Thaw()
