"""The positions of a batch that the loss depends on; the others are not computed.

A model looks only to the left, and a layer's MLP looks at one position alone. So of

    <|im_start|> user Hi <|im_end|> <|im_start|> assistant Ho <|im_end|> \\n       16 rows like it
                                                     ^     ^

with the two supervised tokens predicted from the marked places, nothing right of these is needed,
and of the last layer's MLP nothing left of them either: only its keys and values are read from
other places. Loss and gradients are the same; for short answers about a fifth of the products of a
step is saved.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

IGNORED = -100
GATED = {"gate_proj", "up_proj", "down_proj"}
"""What the MLP of Llama, Mistral, Qwen, Gemma and their like is made of. Others, such as layers of
experts, are computed as they are."""


def shifted(labels: torch.Tensor) -> torch.Tensor:
    """What each position has to predict, -100 where nothing: the label after it, (batch, length).

    Nothing comes after the last.
    """
    return torch.nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED)


def trimmed(inputs: dict, targets: torch.Tensor) -> tuple[dict, torch.Tensor]:
    """Inputs and targets without the columns right of the last one that predicts something.

    Inputs of another shape, such as the bounds of packed examples, would no longer fit the others;
    then all stay as they are.
    """
    columns = (targets != IGNORED).any(dim=0).nonzero()
    width = int(columns[-1]) + 1 if len(columns) else targets.shape[1]
    tensors = [value for value in inputs.values() if isinstance(value, torch.Tensor)]
    if any(value.shape != targets.shape for value in tensors):
        return inputs, targets
    cut = {name: value[:, :width] if isinstance(value, torch.Tensor) else value
           for name, value in inputs.items()}  # fmt: skip
    return cut, targets[:, :width]


@contextmanager
def last_mlp_at(model: torch.nn.Module, kept: torch.Tensor) -> Iterator[None]:
    """Compute the last layer's MLP for some positions only; elsewhere it adds nothing.

    It must hold around the way back too: activation checkpointing computes the layer again there.

    Args:
        model: perhaps with adapters.
        kept: boolean, (batch, length).
    """
    mlp = _last_mlp(model)
    if mlp is None:
        yield
        return

    fits = False

    def choose(_, given):
        nonlocal fits
        fits = given[0].shape[:2] == kept.shape
        return (given[0][kept][None], *given[1:]) if fits else None

    def spread(_, given, found):
        if not fits:
            return None
        whole = found.new_zeros(*kept.shape, found.shape[-1])
        whole[kept] = found[0]
        return whole

    hooks = [mlp.register_forward_pre_hook(choose), mlp.register_forward_hook(spread)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _last_mlp(model: torch.nn.Module) -> torch.nn.Module | None:
    if hasattr(model, "get_base_model"):  # PEFT's wrapper
        model = model.get_base_model()
    layers = getattr(getattr(model, "model", None), "layers", None)
    mlp = getattr(layers[-1], "mlp", None) if layers is not None and len(layers) else None
    parts = {name for name, _ in mlp.named_children()} if mlp is not None else set()
    return mlp if parts >= GATED else None
