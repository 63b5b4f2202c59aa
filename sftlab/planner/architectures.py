"""The sizes of a model, from its configuration alone: no weight is loaded, none is downloaded.

The model is built on torch's meta device, where tensors have shapes and no memory, so every count
is the library's own: 8 billion weights are counted in a tenth of a second.
"""

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftlab.models import first_line, load_config
from sftlab.paths import DATA
from sftlab.profiles import ModelNotAvailableError, UnknownProfileError, find_profile

ATTENTION = re.compile("attn|attention", re.I)
MLP = re.compile("mlp|ffn|feed_?forward|moe|expert", re.I)
LLAMA = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


class ArchitectureError(ValueError):
    """An unknown model, or one that is not a causal language model."""


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """What a plan needs to know of a model; linear layers are those that NF4 quantises: all but the
    output embedding."""

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
    linear_widths: int  # sum of the inputs and outputs of all that LoRA adapts, experts too
    largest: int  # weights of the largest one
    known_layout: bool  # whether a layer is built as Llama's, for which activations were measured

    def adapters(self, r: int) -> int:
        """Weights of LoRA on all that it adapts: a matrix into the rank, and one out of it."""
        return r * self.linear_widths


def find_architecture(model: str | Path) -> Architecture:
    """The sizes of a model: of a built-in name or its hub id, a profile, a model folder, or a hub
    id, of which config.json alone is fetched unless it is in the cache.

    Raises ArchitectureError when there is no such model, its configuration can't be read or
    fetched, or it is not a causal language model.
    """
    empty = build_empty(read_configuration(model), name=str(model))
    try:
        return _sizes(empty, name=str(model))
    except (AttributeError, TypeError, ValueError, ArithmeticError) as error:
        raise ArchitectureError(f"{model}: its sizes can't be told: {first_line(error)}") from error


def build_empty(config: Any, *, name: str) -> Any:
    """The model of a configuration on torch's meta device, where it has shapes and no memory.

    Raises ArchitectureError where transformers can't build one.
    """
    import torch
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except Exception as error:  # sizes that are damaged end in whatever torch raises
        raise ArchitectureError(
            f"{name}: no model can be built as its config.json says: {first_line(error)}; copy or "
            "fetch the folder again"
        ) from error


def read_configuration(model: str | Path) -> Any:
    """The transformers configuration of what `find_architecture` takes, with its errors."""
    from transformers import AutoConfig

    files = sorted((DATA / "architectures").glob("*.json"))  # configurations as published
    shipped = {file.stem: json.loads(file.read_text("utf-8")) for file in files}
    remedy = f"built-in architectures: {', '.join(shipped)}"
    try:
        # What is there is counted, changed or not: a run that has changed is not loaded.
        profile = None if str(model) in shipped else find_profile(model, verify=False)
        source = profile and profile.source
        for name, stated in shipped.items():
            if name == str(model) or stated["hub"] == source:
                return AutoConfig.for_model(**stated["config"])
        return load_config(profile)
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
    held = dict(model.named_parameters(remove_duplicate=False))
    adapted = [held.get(n, held.get(f"{n}.weight")).shape for n in layer_roles(model)]
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
        linear_widths=sum(math.prod(more) * (a + b) for *more, a, b in adapted),
        largest=max(weights, default=0),
        known_layout={path.rsplit(".", 1)[-1] for path in shapes} == LLAMA
        and len(shapes) == 7 * layers,
    )


def layer_roles(model: Any) -> dict[str, str]:
    """Names of all that LoRA can adapt, each with its role: attention, mlp, or other.

    These are linear layers (GPT-2's Conv1D among them) and the stacked weights of experts, which
    are parameters of shape (experts, n, m). Output head and routers are left out. The role is that
    of the part of a decoder layer that holds it:

        layers.0.self_attn.q_proj   attention: so say class or name, or it has `is_causal`
        layers.0.mlp.up_proj        mlp: so say class or name. Where none does, all that is left in
        layers.0.fc1                the layers (OPT)
        layers.0.mamba.in_proj      other: beside a convolution; so is what is in no layer
    """
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    modules, head, roles = dict(model.named_modules()), model.get_output_embeddings(), {}
    for name, module in modules.items():
        if isinstance(module, nn.Linear | Conv1D) and module is not head:
            beside = modules[name.rpartition(".")[0]]
            experts = {len(stack) for stack in expert_stacks(beside).values()}
            # A router gives a number for each expert; the gate of a shared expert gives one.
            if not experts or module.weight.shape[0] not in {1, *experts}:
                roles[name] = ""
    roles |= dict.fromkeys(expert_stacks(model), "")
    for name in roles:
        keys = name.split(".")[:-1]
        path = [modules[".".join(keys[: n + 1])] for n in range(len(keys))]
        lists = [n for n, one in enumerate(path) if isinstance(one, nn.ModuleList)]
        parts = list(zip(keys, path, strict=True))[lists[0] + 2 :] if lists else []
        words = " ".join(f"{key} {type(part).__name__}" for key, part in parts)
        if any(hasattr(part, "is_causal") for _, part in parts) or ATTENTION.search(words):
            roles[name] = "attention"
        elif not lists or any(isinstance(m, nn.Conv1d) for _, p in parts for m in p.children()):
            roles[name] = "other"
        elif MLP.search(words):
            roles[name] = "mlp"
    rest = "other" if "mlp" in roles.values() else "mlp"
    return {name: role or rest for name, role in roles.items()}


def expert_stacks(module: Any) -> dict[str, Any]:
    """The stacked weights of experts in a module, by name."""
    found = {}
    for name, weight in module.named_parameters():
        owner = module.get_submodule(name.rpartition(".")[0])
        if weight.ndim == 3 and getattr(owner, "num_experts", None) == len(weight):
            found[name] = weight
    return found
