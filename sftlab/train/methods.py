"""What each training method does to a model: adapters, frozen weights, gradual unfreezing, dropout.

    embeddings | layer 1 | layer 2 | ... | layer L | final norm, output head
    bottom                                                              top

    lora, qlora, int8    PEFT's LoRA on linear layers        prefix    PEFT's prefix tuning
    frozen               the upper layers and the top        head      the output head
    gradual              from the top down (Howard and Ruder, arXiv 1801.06146)

Where input and output embeddings share their weights, they are the bottom, and the top is the final
norm alone. So *frozen* leaves shared embeddings as they are, and *head* changes them at both ends.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from peft import LoraConfig, PrefixTuningConfig
from torch import nn
from transformers import PreTrainedModel, TrainerCallback
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.pytorch_utils import Conv1D

from sftlab.models import load, load_config
from sftlab.planner import build_empty, expert_stacks, layer_roles
from sftlab.profiles import ADAPTED, QUANTISED, Profile
from sftlab.train.settings import LORA_CONFIG, Settings, SettingsError


def load_base(profile: Profile, settings: Settings) -> tuple[PreTrainedModel, Any]:
    """The base as a method trains it, perhaps in 4 or 8 bits, and its tokenizer; errors are those
    of `load` and `check_targets`."""
    check_targets(profile, settings)
    options = {}
    if settings.method in QUANTISED:
        options["dtype"] = torch.bfloat16 if settings.bf16 else torch.float32
        options["bnb_4bit_use_double_quant"] = settings.bnb_4bit_use_double_quant
    return load(replace(profile, method=settings.method), **options)


def check_targets(profile: Profile, settings: Settings) -> None:
    """Refuse what LoRA can't be put on; of the model config.json alone is read."""
    if settings.method in ADAPTED and settings.method != "prefix":
        lora_targets(build_empty(load_config(profile), name=profile.name), settings)


def lora_targets(model: PreTrainedModel, settings: Settings) -> dict[str, list[str]]:
    """The layers that get adapters, in the words of `LoraConfig`: the shortest ends of names that
    no other module and weight has. Raises SettingsError where `target_modules` are not to be had.
    """
    roles, wanted, chosen = layer_roles(model), settings.target_modules or [""], {}
    for one in [wanted] if isinstance(wanted, str) else wanted:
        try:
            found = [
                name
                for name, role in roles.items()
                if one in ("all-linear", role)
                or (re.fullmatch(one, name) if one is wanted else f".{name}".endswith(f".{one}"))
            ]
        except re.error as error:
            raise SettingsError(f"target_modules is {one!r}: {error}") from error
        if not found:
            ends = ", ".join(dict.fromkeys(name.rpartition(".")[2] for name in roles))
            raise SettingsError(
                f"target_modules: {one!r} matches no layer of {type(model).__name__} that LoRA "
                f"adapts; give {', '.join(['all-linear', *sorted({*roles.values()} - {'other'})])},"
                f" a list of names ({ends}), or a regular expression for whole names such as "
                f"{next(iter(roles))!r}"
            )
        chosen |= dict.fromkeys(found)
    experts = expert_stacks(model)  # once: it goes through all weights
    stacks, shared = [name for name in chosen if name in experts], []
    if experts:
        # PEFT 0.21 takes the names that experts had in transformers 4, such as gate_proj, for the
        # experts'. What has them now, such as a shared expert, is therefore named by its weight.
        shared = [name for name in chosen if roles[name] == "mlp" and name not in stacks]
    refused = {
        "lora_dropout=0": settings.lora_dropout,
        "use_dora=False": settings.use_dora,
        "method='lora'": shared and settings.method in QUANTISED,
    }
    if (stacks or shared) and (named := [name for name, asked in refused.items() if asked]):
        raise SettingsError(
            f"{type(model).__name__} keeps its experts as stacked parameters, for which PEFT lacks "
            f"what was asked for: set {', '.join(named)}, or target_modules='attention'"
        )
    linear = [name for name in chosen if name not in {*stacks, *shared}]
    stacks += [f"{name}.weight" for name in shared]
    return {
        "target_modules": _shortest(linear, among=dict(model.named_modules())),
        "target_parameters": _shortest(stacks, among=dict(model.named_parameters())) or None,
    }


def _shortest(names: Sequence[str], *, among: Iterable[str]) -> list[str]:
    """For each name its shortest end that none of the others has, each once."""

    def ends(name: str) -> list[str]:
        keys = name.split(".")
        return [".".join(keys[n:]) for n in reversed(range(len(keys)))]

    taken = {end for other in set(among) - set(names) for end in ends(other)}
    found = [next(end for end in ends(name) if end not in taken) for name in names]
    return list(dict.fromkeys(found))


def adapter_config(model: PreTrainedModel, settings: Settings, *, added: Sequence[int]):
    """PEFT's configuration of the adapters, or `None` for methods without; rows of the embeddings
    that are `added` have no meaning yet, and are trained whole, in and out."""
    config = model.config.get_text_config()
    if settings.method not in ADAPTED:
        return None
    if settings.method == "prefix":
        # PEFT takes a head's width to be hidden / heads, and its keys not to be shared: Qwen3's and
        # Falcon's are otherwise. The cache of one token has the shape that the prefix must have.
        with torch.no_grad():
            one = torch.ones((1, 1), dtype=torch.long, device=model.device)
            made = model(one, attention_mask=one, use_cache=True)
        layers = getattr(made.get("past_key_values"), "layers", ())
        held = [getattr(layer, kind, None) for layer in layers for kind in ("keys", "values")]
        shapes = {getattr(tensor, "shape", None) for tensor in held} or {None}
        if len(shapes) > 1 or None in shapes:
            raise SettingsError(
                f"method 'prefix' puts keys and values of one shape before the text, and the layers"
                f" of {type(model).__name__} keep others; choose method='lora' (--method lora)"
            )
        _, heads, _, width = shapes.pop()
        return PrefixTuningConfig(
            num_virtual_tokens=settings.num_virtual_tokens,
            num_layers=len(layers),
            num_attention_heads=heads,
            token_dim=heads * width,
            task_type="CAUSAL_LM",
        )
    ends = [model.get_input_embeddings()]
    if not config.tie_word_embeddings:
        ends.append(model.get_output_embeddings())
    names = {module: name.rsplit(".", 1)[-1] for name, module in model.named_modules()}
    rows = {names[end]: list(added) for end in ends if added}
    return LoraConfig(
        **{name: getattr(settings, name) for name in LORA_CONFIG},
        **lora_targets(model, settings),
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in names),
        task_type="CAUSAL_LM",
        trainable_token_indices=rows or None,
    )


def cast_adapters(model: nn.Module, dtype: str | None) -> None:
    """Hold adapters, and rows of added tokens, in a type, which TRL and PEFT change; DoRA's
    magnitudes, which change by less than bfloat16 can hold, stay in float32."""
    ours = ("lora_", "trainable_tokens_delta", "prompt_encoder")
    for name, weight in model.named_parameters() if dtype else ():
        if any(kind in name for kind in ours) and "lora_magnitude_vector" not in name:
            weight.data = weight.data.to(getattr(torch, dtype))


def parts(model: PreTrainedModel) -> list[list[nn.Parameter]]:
    """A decoder's weights from top to bottom, each once: norm and head, each layer, embeddings
    (GPT-2's positions among them)."""
    count = model.config.get_text_config().num_hidden_layers
    layers = next(m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == count)
    embeddings = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    bottom = dict.fromkeys(weight for module in embeddings for weight in module.parameters())
    inner = set(layers.parameters())
    top = [one for one in model.parameters() if one not in inner and one not in bottom]
    return [top, *(list(layer.parameters()) for layer in reversed(layers)), list(bottom)]


def freeze(model: PreTrainedModel, settings: Settings, *, added: Sequence[int]) -> None:
    """Freeze what the methods frozen and head leave alone; `added` rows are trained too."""
    if settings.method not in ("frozen", "head"):
        return
    trained = [model.get_output_embeddings().weight]
    if settings.method == "frozen":
        top, *body, _ = parts(model)
        count = settings.trained_layers or -(-len(body) // 2)
        trained = [weight for part in (top, *body[:count]) for weight in part]
    model.requires_grad_(False)
    for weight in trained:
        weight.requires_grad_(True)
    table = model.get_input_embeddings().weight
    if added and not table.requires_grad:
        table.requires_grad_(True)
        train_rows_only(table, added)


def train_rows_only(weight: nn.Parameter, rows: Sequence[int]) -> None:
    """Give gradients to some rows of a matrix alone; `partial` says how many."""
    kept = torch.zeros(len(weight), 1, dtype=torch.bool)
    kept[list(rows)] = True
    weight.partial = len(rows)
    weight.register_hook(lambda gradient: gradient.where(kept.to(gradient.device), 0))


def freeze_rows(model: PreTrainedModel, rows: Sequence[int]) -> None:
    """Keep some rows of the embeddings, in and out, as they are."""
    for weight in {model.get_input_embeddings().weight, model.get_output_embeddings().weight}:
        if weight.requires_grad:
            train_rows_only(weight, sorted(set(range(len(weight))) - set(rows)))


class GradualUnfreezing(TrainerCallback):
    """Unfreeze from the top down, evenly over the steps, the last part in the last step. The
    optimiser leaves alone what has no gradient."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._parts = parts(model)

    def on_step_begin(self, args, state, control, **kwargs):
        count = -(-(state.global_step + 1) * len(self._parts) // state.max_steps)
        for place, part in enumerate(self._parts):
            for weight in part:
                weight.requires_grad_(place < count)


def count_weights(model: PreTrainedModel, method: str) -> tuple[int, int]:
    """Numbers of weights that are trained, perhaps a few rows of a matrix, and of the base's."""
    if method in ADAPTED:
        trained, every = model.get_nb_trainable_parameters()
        return trained, every - trained
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    counts = [getattr(one, "partial", len(one)) * one[0].numel() for one in trained]
    return sum(counts), model.num_parameters()


def trained_bits(model: nn.Module, names: Iterable[str] | None = None) -> dict[str, int]:
    """The sum of the bits, as whole numbers, of each weight that is trained, or of those named:
    equal before and after a training that changed nothing."""
    whole = {2: torch.int16, 4: torch.int32, 8: torch.int64}
    return {
        name: weight.detach().view(whole[weight.element_size()]).sum().item()
        for name, weight in model.named_parameters()
        if (weight.requires_grad if names is None else name in names)
    }


def add_dropout(model: PreTrainedModel, share: float) -> None:
    """Drop a share of the activations while `model` is in training mode (Srivastava et al. 2014).

    It falls on attention's weights, by the model's own code, and by hooks on what attention and MLP
    add to the residual stream. A model that has dropout layers uses those, with this share.
    """

    def drop(module: nn.Module, given: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (drop(module, given, output[0]), *output[1:])
        return nn.functional.dropout(output, share, module.training)

    named = model.named_modules()
    own = [m for n, m in named if isinstance(m, nn.Dropout) and ".lora_dropout." not in n]
    for module in own:
        module.p = share
    for module in model.modules():
        if isinstance(getattr(module, "attention_dropout", None), int | float):
            module.attention_dropout = share
    layers = [one for one in model.modules() if isinstance(one, GradientCheckpointingLayer)]
    if share and not own and not layers:
        raise SettingsError(
            f"dropout is {share!r}, and where {type(model).__name__} has its layers is not known; "
            "leave dropout at 0, or use LoRA with lora_dropout"
        )
    for part in (part for layer in layers for part in layer.children()):
        # A part without a matrix is a norm.
        if share and not own and any(weight.ndim > 1 for weight in part.parameters()):
            part.register_forward_hook(drop)
