"""Weights trained beside the base, through PEFT: LoRA and its kin, and prefixes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from sftlab.models import QUANTISED, Profile, load
from sftlab.train.settings import Settings

if TYPE_CHECKING:
    import torch
    from peft import PeftConfig, PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load_base(
    profile: Profile, settings: Settings
) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """The base as a method trains it, and its tokenizer: held in few bits where the method is so,
    and then computing in the settings' precision.

    Raises:
        ModelNotAvailableError: it can't be loaded.
    """
    import torch

    if settings.method not in QUANTISED:
        return load(replace(profile, method=settings.method))
    return load(
        replace(profile, method=settings.method),
        dtype=getattr(torch, settings.dtype),
        bnb_4bit_use_double_quant=settings.bnb_4bit_use_double_quant,
    )


def adapter_config(
    model: "PreTrainedModel", settings: Settings, *, added: Sequence[int]
) -> "PeftConfig":
    """What PEFT puts beside a base.

    Args:
        model: the base.
        settings: with the profile's values filled in.
        added: rows of the embeddings that are new: they have no meaning yet, and are trained whole,
            in and out.
    """
    from peft import LoraConfig, PrefixTuningConfig

    if settings.method == "prefix":
        return PrefixTuningConfig(
            num_virtual_tokens=settings.num_virtual_tokens, task_type="CAUSAL_LM", **_sizes(model)
        )
    modules = settings.target_modules
    return LoraConfig(
        r=settings.r,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=modules if isinstance(modules, str) else list(modules),
        use_rslora=settings.use_rslora,
        use_dora=settings.use_dora,
        init_lora_weights=settings.init_lora_weights,
        task_type="CAUSAL_LM",
        trainable_token_indices=_rows(model, added) or None,
    )


def _rows(model: "PreTrainedModel", added: Sequence[int]) -> dict[str, list[int]]:
    if not added:
        return {}
    ends = [model.get_input_embeddings()]
    if not model.config.get_text_config().tie_word_embeddings:
        ends.append(model.get_output_embeddings())
    return {
        name.rsplit(".", 1)[-1]: list(added)
        for name, module in model.named_modules()
        if any(module is end for end in ends)
    }


def _sizes(model: "PreTrainedModel") -> dict[str, int]:
    """PEFT takes a head's width to be hidden / heads; Qwen3's is not."""
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    each = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return {
        "num_layers": config.num_hidden_layers,
        "num_attention_heads": heads,
        "token_dim": heads * each,
    }


def cast(model: "PeftModel", dtype: str | None) -> None:
    """Hold adapters, and rows of added tokens, in a type; DoRA's lengths stay in float32.

    TRL casts them to bfloat16 on a quantised base, PEFT to float32 whenever it reads them. The
    lengths change by less than bfloat16 can hold.
    """
    import torch

    if dtype is None:
        return
    for name, weight in model.named_parameters():
        ours = any(kind in name for kind in ("lora_", "trainable_tokens_delta", "prompt_encoder"))
        if ours and "lora_magnitude_vector" not in name:
            weight.data = weight.data.to(getattr(torch, dtype))


def start(model: "PeftModel") -> "Mapping[str, torch.Tensor]":
    """Copies of LoRA's two matrices in each layer, by the names under which they are saved."""
    from peft import get_peft_model_state_dict

    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    return {name: weight.clone() for name, weight in state.items() if "lora_" in name}


def plain_again(
    model: "PeftModel", begun: "Mapping[str, torch.Tensor]", base: "PreTrainedModel"
) -> "PeftModel":
    """What PiSSA trained as an ordinary adapter of twice the rank on the base as it was.

    PiSSA (arXiv 2404.02948) takes the part B0 A0 out of the weights and trains it, so that its
    adapter means nothing on the base, and switching it off leaves a base that lacks that part.
    W - B0 A0 + B A is W + [B, -B0] [A; A0].

    Args:
        model: trained.
        begun: what `start` gave before the training.
        base: the base, loaded afresh.
    """
    import torch
    from peft import get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict

    state = dict(get_peft_model_state_dict(model, save_embedding_layers=False))
    for name, first in begun.items():
        if "lora_A" in name:
            state[name] = torch.cat([state[name], first], dim=0)
        else:
            state[name] = torch.cat([state[name], -first], dim=1)
    config = model.peft_config["default"]
    config.init_lora_weights = True
    config.r, config.lora_alpha = 2 * config.r, 2 * config.lora_alpha
    plain = get_peft_model(base, config)
    set_peft_model_state_dict(plain, state)
    return plain
