"""Dropout where a model has none: today's decoders are pretrained without.

    x --+-- norm -- attention -- drop --+-- norm -- MLP -- drop --+--
        |              (drop inside)    |                         |
        +-------------------------------+-------------------------+

In attention it falls on the weights with which positions are read, by the model's own code; on what
attention and MLP add to the stream by hooks, in the places where GPT-2 has it. What is left is
scaled by 1 / (1 - share). A model that has dropout layers of its own uses those.
Source: Srivastava et al., Dropout, JMLR 2014.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from sftlab.train.settings import SettingsError


@contextmanager
def dropping(model: torch.nn.Module, share: float) -> Iterator[None]:
    """Drop a share of the activations while `model` is in training mode; none at all with 0.

    The masks come from torch's global generator. Afterwards the model is as it was. LoRA's
    adapters drop their own input (`lora_dropout`).

    Raises:
        SettingsError: it is not known where this model has its layers.
    """
    named = dict(model.named_modules())
    own = [module for name, module in named.items()
           if isinstance(module, torch.nn.Dropout) and ".lora_dropout." not in name]  # fmt: skip
    own_share = ((module, getattr(module, "attention_dropout", None)) for module in named.values())
    attentions = [module for module, found in own_share if isinstance(found, int | float)]
    parts = [] if own or not share else _sublayers(model)
    if share and not own and not parts:
        raise SettingsError(
            f"dropout is {share!r}, and where {type(model).__name__} has its layers is not known; "
            "leave dropout at 0, or use LoRA with lora_dropout"
        )
    before = [(module, "p", module.p) for module in own]
    before += [(module, "attention_dropout", module.attention_dropout) for module in attentions]
    for module, name, _ in before:
        setattr(module, name, float(share))
    hooks = [part.register_forward_hook(_hook(share)) for part in parts]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for module, name, value in before:
            setattr(module, name, value)


def _sublayers(model: torch.nn.Module) -> list[torch.nn.Module]:
    """What adds to the stream: the parts of each layer that hold a matrix, so not its norms."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers = [module for module in model.modules()
              if isinstance(module, GradientCheckpointingLayer)]  # fmt: skip
    return [part for layer in layers for part in layer.children()
            if any(weight.ndim > 1 for weight in part.parameters())]  # fmt: skip


def _hook(share: float):
    def drop(module: torch.nn.Module, given: Any, output: Any) -> Any:
        if not module.training:
            return None
        several = isinstance(output, tuple)
        first = torch.nn.functional.dropout(output[0] if several else output, share)
        return (first, *output[1:]) if several else first

    return drop
