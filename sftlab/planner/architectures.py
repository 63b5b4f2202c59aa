"""The sizes of a model, from its configuration alone: no weight is loaded, none is downloaded.

The model is built on torch's meta device, where tensors have shapes and no memory, so every count
is the library's own: 8 billion weights are counted in a tenth of a second.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftlab.models import ModelNotAvailableError, UnknownProfileError, find_profile, load_config
from sftlab.paths import DATA

LLAMA = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


class ArchitectureError(ValueError):
    """An unknown model, or one that is not a causal language model."""


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """What a plan needs to know of a model; linear layers are those that LoRA adapts and NF4
    quantises: all but the output embedding."""

    name: str
    parameters: int  # weights that input and output embeddings share count once
    layers: int
    hidden: int  # width of the residual stream
    mlp: int  # width of the MLP's inner layer
    heads: int
    queries: int  # width of all queries of a position
    keys: int  # width of all keys of a position, and of all values
    vocabulary: int
    head_weights: int  # weights of the output embedding
    layer_weights: int  # weights of one decoder layer, norms and biases among them
    tied: bool  # whether input and output embeddings share their weights
    normed_queries: bool  # whether queries and keys are normalised, as in Qwen3
    linear_weights: int  # weights of all linear layers
    linear_widths: int  # sum of their inputs and outputs
    largest: int  # weights of the largest one
    known_layout: bool  # whether a layer is built as Llama's, for which activations were measured

    def adapters(self, r: int) -> int:
        """Weights of LoRA on every linear layer: a matrix into the rank, and one out of it."""
        return r * self.linear_widths


def find_architecture(model: str | Path) -> Architecture:
    """The sizes of a model: of a built-in name or its hub id, a profile, a model folder, or a hub
    id, of which config.json alone is fetched unless it is in the cache.

    Raises ArchitectureError when there is no such model, its configuration can't be read or
    fetched, or it is not a causal language model.
    """
    import torch
    from transformers import AutoModelForCausalLM

    config = read_configuration(model)
    with torch.device("meta"):
        return _sizes(AutoModelForCausalLM.from_config(config), name=str(model))


def read_configuration(model: str | Path) -> Any:
    """The transformers configuration of what `find_architecture` takes, with its errors."""
    from transformers import AutoConfig

    files = sorted((DATA / "architectures").glob("*.json"))  # configurations as published
    shipped = {file.stem: json.loads(file.read_text("utf-8")) for file in files}
    remedy = f"built-in architectures: {', '.join(shipped)}"
    try:
        source = None if str(model) in shipped else find_profile(model).source
        for name, stated in shipped.items():
            if name == str(model) or stated["hub"] == source:
                return AutoConfig.for_model(**stated["config"])
        return load_config(find_profile(model))
    except (UnknownProfileError, ModelNotAvailableError) as error:
        raise ArchitectureError(f"{error}; {remedy}") from error


def _sizes(model: Any, *, name: str) -> Architecture:
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    config, head = model.config.get_text_config(), model.get_output_embeddings()
    shapes = {
        path: tuple(module.weight.shape)
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head
    }
    weights = [a * b for a, b in shapes.values()]
    layers, hidden = config.num_hidden_layers, config.hidden_size
    stacks = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == layers]
    blocks = stacks[0] if stacks else ()
    heads = config.num_attention_heads
    each = getattr(config, "head_dim", None) or hidden // heads
    return Architecture(
        name=name,
        parameters=sum(weight.numel() for weight in model.parameters()),
        layers=layers,
        hidden=hidden,
        mlp=getattr(config, "intermediate_size", None) or 4 * hidden,
        heads=heads,
        queries=heads * each,
        keys=(getattr(config, "num_key_value_heads", None) or heads) * each,
        vocabulary=model.get_input_embeddings().weight.shape[0],
        head_weights=head.weight.numel(),
        layer_weights=max((sum(w.numel() for w in one.parameters()) for one in blocks), default=0),
        tied=head.weight is model.get_input_embeddings().weight,
        normed_queries=any(path.endswith("q_norm") for path, _ in model.named_modules()),
        linear_weights=sum(weights),
        linear_widths=sum(a + b for a, b in shapes.values()),
        largest=max(weights, default=0),
        known_layout={path.rsplit(".", 1)[-1] for path in shapes} == LLAMA
        and len(shapes) == 7 * layers,
    )
