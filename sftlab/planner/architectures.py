"""The sizes of a model, from its configuration alone: no weight is loaded, none is downloaded.

The model is built on torch's meta device, where tensors have shapes and no memory, so that every
count is the library's own: 8 billion weights are counted in a tenth of a second.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from sftlab.planner.configurations import ArchitectureError, read_configuration

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

CONSTANTS = 4 * 16 + 4 * 256 + 4
"""Bytes of constants that each NF4 layer has besides those of its blocks: the 16 levels, the 256
levels of the second quantisation, its offset."""


@dataclass(frozen=True, kw_only=True)
class Linear:
    """One linear layer of the decoder."""

    name: str
    """Its name in the model, such as `model.layers.0.self_attn.q_proj`."""
    inputs: int
    """Width of what goes in."""
    outputs: int
    """Width of what comes out."""

    @property
    def weights(self) -> int:
        """Number of weights, its bias left out."""
        return self.inputs * self.outputs

    @property
    def nf4_bytes(self) -> int:
        """Bytes of its weights in NF4, two to a byte."""
        return (self.weights + 1) // 2

    @property
    def constant_bytes(self) -> int:
        """Bytes of its constants under double quantisation (arXiv 2305.14314, section 3).

        weights         64 to a block, one scale of a byte each
        scales         256 to a block, one scale of four bytes each
        """
        blocks = -(-self.weights // 64)
        return blocks + 4 * -(-blocks // 256) + CONSTANTS


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """What a plan needs to know of a model."""

    name: str
    """What the learner typed."""
    family: str
    """The library's name of the architecture, such as llama or qwen3."""
    parameters: int
    """Number of weights; those that input and output embeddings share count once."""
    layers: int
    """Number of decoder layers."""
    hidden: int
    """Width of the residual stream."""
    mlp: int
    """Width of the MLP's inner layer."""
    heads: int
    """Attention heads."""
    queries: int
    """Width of all queries of a position."""
    keys: int
    """Width of all keys of a position, which is also that of the values."""
    vocabulary: int
    """Rows of the embedding matrix."""
    layer_weights: int
    """Weights of one decoder layer, its norms and biases among them."""
    tied: bool
    """Whether input and output embeddings share their weights."""
    normed_queries: bool
    """Whether queries and keys are normalised, as Qwen3 does."""
    linears: tuple[Linear, ...]
    """The linear layers of the decoder, the output embedding left out: those that LoRA adapts and
    NF4 quantises."""
    known_layout: bool
    """Whether a layer is built as Llama's, for which the formula of activations was checked."""

    @cached_property
    def linear_weights(self) -> int:
        """Weights in linear layers, the output embedding left out."""
        return sum(linear.weights for linear in self.linears)

    @property
    def head_weights(self) -> int:
        """Weights of the output embedding."""
        return self.vocabulary * self.hidden

    def adapters(self, rank: int) -> int:
        """Weights of LoRA on every linear layer: a matrix into the rank, and one out of it."""
        return rank * sum(linear.inputs + linear.outputs for linear in self.linears)


def find_architecture(model: str | Path) -> Architecture:
    """The sizes of a model.

    Args:
        model: a built-in name or its hub id, a profile, a config.json, a model folder, or a hub id,
            of which config.json alone is fetched unless it is in the cache.

    Raises:
        ArchitectureError: there is no such model, its configuration can't be read or fetched, or
            it is no causal language model.
    """
    config = read_configuration(model)
    return sizes(meta_model(config, name=str(model)), name=str(model))


def meta_model(config: "PreTrainedConfig", *, name: str) -> "PreTrainedModel":
    """The model of a configuration, without memory.

    Raises:
        ArchitectureError: the configuration is that of another kind of model.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL

    stated = config.architectures or []
    decoders = CAUSAL.values()
    if config.model_type not in CAUSAL or (stated and not set(stated) & set(decoders)):
        what = stated[0] if stated else config.model_type
        raise ArchitectureError(
            f"{name}: {what} is no causal language model, so it can't be fine-tuned on "
            "conversations; give one whose config.json names a ...ForCausalLM"
        )
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config)
    except Exception as error:  # whatever its sizes make the library raise
        raise ArchitectureError(
            f"{name}: no model can be built from its sizes: {error}. Compare its config.json with "
            "the published one"
        ) from error


def sizes(model: "PreTrainedModel", *, name: str) -> Architecture:
    """The sizes of a model, on the meta device or not."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    config = model.config.get_text_config()
    head = model.get_output_embeddings()
    linears = []
    for path, module in model.named_modules():
        if module is head or not isinstance(module, nn.Linear | Conv1D):
            continue
        across = module.weight.shape if isinstance(module, Conv1D) else module.weight.shape[::-1]
        linears.append(Linear(name=path, inputs=across[0], outputs=across[1]))
    layers = config.num_hidden_layers
    first = {one.name.rsplit(".", 1)[-1]: one for one in linears[: len(linears) // layers]}
    known = set(first) == {"q_proj", "k_proj", "v_proj", "o_proj",
                           "gate_proj", "up_proj", "down_proj"}  # fmt: skip
    hidden, heads = config.hidden_size, config.num_attention_heads
    each = getattr(config, "head_dim", None) or hidden // heads
    inner = getattr(config, "intermediate_size", None) or 4 * hidden
    return Architecture(
        name=name,
        family=config.model_type,
        parameters=sum(weight.numel() for weight in model.parameters()),
        layers=layers,
        hidden=hidden,
        mlp=first["gate_proj"].outputs if known else inner,
        heads=heads,
        queries=heads * each,
        keys=(getattr(config, "num_key_value_heads", None) or heads) * each,
        vocabulary=model.get_input_embeddings().weight.shape[0],
        layer_weights=_layer_weights(model, layers),
        tied=head.weight is model.get_input_embeddings().weight,
        normed_queries=any(path.endswith("q_norm") for path, _ in model.named_modules()),
        linears=tuple(linears),
        known_layout=known and len(linears) == 7 * layers,
    )


def _layer_weights(model: "PreTrainedModel", count: int) -> int:
    from torch import nn

    layers = next((module for module in model.modules()
                   if isinstance(module, nn.ModuleList) and len(module) == count), ())  # fmt: skip
    return max((sum(w.numel() for w in layer.parameters()) for layer in layers), default=0)
