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
    family: str  # the library's name, such as llama or qwen3
    parameters: int  # weights that input and output embeddings share count once
    layers: int
    hidden: int  # width of the residual stream
    mlp: int  # width of the MLP's inner layer
    heads: int
    queries: int  # width of all queries of a position
    keys: int  # width of all keys of a position, and of all values
    vocabulary: int
    layer_weights: int  # weights of one decoder layer, norms and biases among them
    tied: bool  # whether input and output embeddings share their weights
    normed_queries: bool  # whether queries and keys are normalised, as in Qwen3
    linear_weights: int  # weights of all linear layers
    linear_widths: int  # sum of their inputs and outputs
    largest: int  # weights of the largest one
    known_layout: bool  # whether a layer is built as Llama's, for which activations were measured

    @property
    def head_weights(self) -> int:
        """Weights of the output embedding."""
        return self.vocabulary * self.hidden

    def adapters(self, r: int) -> int:
        """Weights of LoRA on every linear layer: a matrix into the rank, and one out of it."""
        return r * self.linear_widths


def built_in() -> dict[str, Path]:
    """The architectures that ship with the course, by name: JSON files with the hub id, the count
    of weights, and the configuration as published."""
    return {file.stem: file for file in sorted((DATA / "architectures").glob("*.json"))}


def find_architecture(model: str | Path) -> Architecture:
    """The sizes of a model: of a built-in name or its hub id, a profile, a config.json, a model
    folder, or a hub id, of which config.json alone is fetched unless it is in the cache.

    Raises ArchitectureError when there is no such model, its configuration can't be read or
    fetched, or it is not a causal language model.
    """
    return sizes(meta_model(read_configuration(model), name=str(model)), name=str(model))


def read_configuration(model: str | Path) -> Any:
    """The transformers configuration of what `find_architecture` takes, with its errors."""
    shipped = {name: json.loads(file.read_text("utf-8")) for name, file in built_in().items()}
    if str(model) in shipped:
        return _parsed(shipped[str(model)]["config"], model)
    file = Path(model).expanduser()
    if file.suffix != ".json":
        try:
            profile = find_profile(model)
        except UnknownProfileError as error:
            listed = ", ".join(shipped)
            raise ArchitectureError(f"{error}; built-in architectures: {listed}") from error
        for stated in shipped.values():
            if stated["hub"] == profile.source:
                return _parsed(stated["config"], model)
        if profile.on_hub:
            try:
                return load_config(profile)
            except ModelNotAvailableError as error:
                remedy = "Or give the path of a config.json, or choose a built-in: "
                raise ArchitectureError(f"{error}. {remedy}{', '.join(shipped)}") from error
        file = Path(profile.source) / "config.json"
    if not file.is_file():
        raise ArchitectureError(f"{file}: no such file; give the path of a config.json")
    try:
        return _parsed(json.loads(file.read_text(encoding="utf-8")), file)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ArchitectureError(f"{file}: not JSON: {error}; fetch the file again") from error


def _parsed(stated: Any, where: str | Path) -> Any:
    from transformers import AutoConfig

    if not isinstance(stated, dict) or not isinstance(stated.get("model_type"), str):
        raise ArchitectureError(f"{where}: it has no model_type; give the config.json of a model")
    kind = stated.pop("model_type")
    try:
        return AutoConfig.for_model(kind, **stated)
    except Exception as error:  # checks of single fields raise errors of huggingface_hub
        reason = " ".join(str(error).split())
        if "Unrecognized model identifier" in reason:
            reason = (
                f"this transformers does not know the model_type {kind!r}. Code of a repository is "
                "never run here; for a newer model, upgrade transformers"
            )
        raise ArchitectureError(f"{where}: {reason}") from error


def meta_model(config: Any, *, name: str) -> Any:
    """The model of a configuration, on the meta device. Raises ArchitectureError when it is not a
    causal language model, or its sizes don't fit together."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL

    stated = config.architectures or []
    if config.model_type not in CAUSAL or (stated and not set(stated) & set(CAUSAL.values())):
        raise ArchitectureError(
            f"{name}: {stated[0] if stated else config.model_type} is not a causal language model, "
            "so it can't be fine-tuned on conversations; give one whose config.json names a "
            "...ForCausalLM"
        )
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config)
    except Exception as error:  # whatever its sizes make the library raise
        raise ArchitectureError(
            f"{name}: no model can be built from its sizes: {error}. Compare its config.json with "
            "the published one"
        ) from error


def sizes(model: Any, *, name: str) -> Architecture:
    """The sizes of a transformers model, on the meta device or not."""
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
        family=config.model_type,
        parameters=sum(weight.numel() for weight in model.parameters()),
        layers=layers,
        hidden=hidden,
        mlp=getattr(config, "intermediate_size", None) or 4 * hidden,
        heads=heads,
        queries=heads * each,
        keys=(getattr(config, "num_key_value_heads", None) or heads) * each,
        vocabulary=model.get_input_embeddings().weight.shape[0],
        layer_weights=max((sum(w.numel() for w in one.parameters()) for one in blocks), default=0),
        tied=head.weight is model.get_input_embeddings().weight,
        normed_queries=any(path.endswith("q_norm") for path, _ in model.named_modules()),
        linear_weights=sum(weights),
        linear_widths=sum(a + b for a, b in shapes.values()),
        largest=max(weights, default=0),
        known_layout={path.rsplit(".", 1)[-1] for path in shapes} == LLAMA
        and len(shapes) == 7 * layers,
    )
