"""Loading a model, its tokenizer or its configuration: of the profiles, or of any folder or hub id.

Weights are read from safetensors alone, and code that a folder brings or names is never run.
"""

import hashlib
import warnings
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sftlab.integrity import ADAPTERS, named_code
from sftlab.machine import choose_threads, pick_device
from sftlab.profiles import (
    PROFILES,
    QUANTISED,
    ModelNotAvailableError,
    Profile,
    WrongModelError,
    find_profile,
    local_folder,
    parameters_in,
    read_adapters,
)
from sftlab.quiet import progress_bars

PADDING = ("<|pad|>", "<pad>", "[PAD]", "<|finetune_right_pad_id|>", "<|reserved_special_token_0|>")
"""Tokens that vocabularies keep for padding, or for nothing, the likeliest first."""


def load(
    profile: str | Path | Profile, *, dtype: Any = None, bnb_4bit_use_double_quant: bool = True
) -> tuple[Any, Any]:
    """A fresh model in evaluation mode, and its tokenizer, which can pad.

    An embedded model stays on the CPU, where a seed gives the same numbers on every machine; any
    other goes to the GPU when there is one. Only a hub profile that is not yet in the cache uses
    the network.

    Args:
        profile: a profile, its name, a model folder, a saved run, or a hub id.
        dtype: torch type of the weights; by default float32 however they are stored, because Adam's
            small updates vanish in bfloat16. Where the profile's method is qlora or int8 the
            linear layers are held in NF4 (Dettmers et al., arXiv 2305.14314) or 8 bits (arXiv
            2208.07339), and `dtype` (bfloat16 by default) is the type of all else and that they
            compute in. Such a model may be evaluated before and while it is trained.
        bnb_4bit_use_double_quant: whether NF4's scales are quantised too.

    Raises UnknownProfileError, or ModelNotAvailableError: offline, gated, misspelt or incomplete.
    """
    import torch
    from transformers import BitsAndBytesConfig

    profile = find_profile(profile)
    quantised = profile.method in QUANTISED
    options = {"dtype": dtype or (torch.bfloat16 if quantised else torch.float32)}
    if quantised:
        options["device_map"] = {"": pick_device()}
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_8bit=profile.method == "int8",
            load_in_4bit=profile.method == "qlora",
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=bnb_4bit_use_double_quant,
            bnb_4bit_compute_dtype=options["dtype"],
        )
    tokenizer = load_tokenizer(profile)
    model = load_weights(profile, **options)
    if quantised:
        keep_layout(model)
    elif not profile.embedded:
        model.to(pick_device())
    choose_threads(sum(weight.numel() for weight in model.parameters()))
    return model.eval(), tokenizer


def load_weights(profile: Profile, **options: Any) -> Any:
    """A profile's model alone, on the CPU unless it is quantised; errors are those of `load`.

    The adapters of a saved run are merged into their base, which is loaded unquantised in the same
    dtype. To be quantised, the result goes through a temporary folder.
    """
    from transformers import AutoModelForCausalLM

    folder = local_folder(profile)
    if folder:
        parameters_in(folder)  # which tells a broken file
    if folder is None or not (folder / ADAPTERS).is_file():
        options |= {"use_safetensors": True, "output_loading_info": True}
        with progress_bars(shown=folder is None):  # of a download
            model, info = _from_pretrained(AutoModelForCausalLM, profile, **options)
        if missing := sorted(info["missing_keys"]):  # which transformers draws at random
            raise ModelNotAvailableError(
                f"profile {profile.name!r}: {profile.source} lacks {len(missing)} weights that its "
                f"config.json asks for, such as {missing[0]}; fetch it again, whole"
            )
        return model
    base, _ = read_adapters(folder)
    model = load_weights(replace(base, method="full"), dtype=options["dtype"])
    merged = add_adapters(model, folder).merge_and_unload().requires_grad_(True)
    if "quantization_config" not in options:
        return merged
    with TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        with progress_bars(shown=False):
            merged.save_pretrained(scratch)
        return load_weights(replace(profile, source=scratch), **options)


def add_adapters(model: Any, folder: Path) -> Any:
    """PEFT's wrapper of a freshly loaded base with the adapters that a run saved in a folder.

    Raises ModelNotAvailableError when the base is not the one that they were trained on, or does
    not fit.
    """
    from peft import PeftModel
    from transformers import GenerationConfig

    base, stated = read_adapters(folder)
    if weights_hash(local_folder(base)) != stated["base_weights"]:
        raise ModelNotAvailableError(
            f"{folder} holds adapters for another version of {base.name}: the hash of the base's "
            "weights differs; get that version, or fine-tune again"
        )
    if stated["added_tokens"]:  # their rows come with the adapters
        own = replace(base, name=folder.name, source=str(folder.resolve()))
        size = len(load_tokenizer(own))
        if size > len(model.get_input_embeddings().weight):
            model.resize_token_embeddings(size, mean_resizing=False)
    local = {"local_files_only": True}
    try:
        model.generation_config = GenerationConfig.from_pretrained(folder, **local)
        with warnings.catch_warnings():  # PEFT would compute with random ones
            warnings.filterwarnings("error", message="Found missing adapter keys")
            return PeftModel.from_pretrained(model, str(folder), **local)
    except Exception as error:  # as in _from_pretrained
        raise ModelNotAvailableError(
            f"the adapters of {folder} can't be put on {base.name}: {first_line(error)}; copy the "
            "folder again from where it was saved"
        ) from error


def load_tokenizer(profile: str | Path | Profile) -> Any:
    """A profile's tokenizer, which can pad; no weight is read. Errors are those of `load`, except
    that the model may be one that only its own code can read.

    Where no padding token is named (Llama's base models) no batch can be made. A token that no text
    holds is the best. Failing that it is eos: what is padding is known from the attention mask and
    from the labels of -100 that TRL's collator appends, never from the token.
    """
    from transformers import AutoTokenizer

    profile = find_profile(profile)
    folder = local_folder(profile)
    try:
        if folder is None or not (folder / ADAPTERS).is_file():
            load_config(profile)
    except WrongModelError:
        raise
    except ModelNotAvailableError:
        pass  # the tokenizer may be there all the same
    tokenizer = _from_pretrained(AutoTokenizer, profile)
    if tokenizer.pad_token is None:
        vocabulary = tokenizer.get_vocab()
        taken = (None, tokenizer.bos_token, tokenizer.eos_token)
        free = [t for t in (*PADDING, tokenizer.unk_token) if t not in taken and t in vocabulary]
        tokenizer.pad_token = free[0] if free else tokenizer.eos_token or tokenizer.bos_token
    return tokenizer


def load_config(profile: Profile) -> Any:
    """The transformers configuration of a profile; of a hub model config.json alone is fetched.

    Raises WrongModelError, before any weight is read, where no causal language model is to be had.
    Of a model that sees, the text part will do where transformers loads it alone (Qwen3.5).
    """
    from transformers import AutoConfig, AutoTokenizer
    from transformers.models.auto import modeling_auto

    folder = local_folder(profile)
    if folder and (folder / ADAPTERS).is_file():
        config = load_config(read_adapters(folder)[0])
        text = config.get_text_config()
        count = len(_from_pretrained(AutoTokenizer, profile))  # with added tokens
        text.vocab_size = max(text.vocab_size, count)
        return config
    config = _from_pretrained(AutoConfig, profile)
    kind, what, instead = config.model_type, "", "one whose config.json names a ...ForCausalLM"
    causal = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(kind, "")
    masked = kind in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    sees = kind in modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    if config.is_encoder_decoder:
        what = "an encoder-decoder (text in, other text out), for transformers' Seq2SeqTrainer"
    elif masked and not getattr(config, "is_decoder", False):
        what = "an encoder, which fills gaps or classifies and writes no answers"
    elif (sees or hasattr(config, "vision_config")) and not causal.endswith("ForCausalLM"):
        what, instead = "a vision-language model", "the text-only model of its family or size"
    elif not causal:
        what = "a model for another task"
    if what:
        raise WrongModelError(
            f"profile {profile.name!r}: {profile.source} can't be used: {kind} is not a causal "
            f"language model but {what}; take {instead}, or a profile: {', '.join(PROFILES)}"
        )
    return config


def _from_pretrained(kind: Any, profile: Profile, **options: Any) -> Any:
    from transformers import PreTrainedConfig
    from transformers.models.auto.tokenization_auto import get_tokenizer_config

    folder = local_folder(profile)
    if folder is None and kind.__name__ == "AutoTokenizer":  # may be there without a model
        alone = Path(profile.source)
        folder = alone if (alone / "tokenizer_config.json").is_file() else None
    remedy = "a folder needs config.json, its *.safetensors, a tokenizer; a saved run needs its "
    remedy += "base, or the run it went on from, where it was"
    if profile.on_hub:
        options["revision"] = profile.revision
        remedy = "check the spelling (of a folder too) and the network (HF_HUB_OFFLINE unset); a "
        remedy += "gated model wants `hf auth login`. The profile 'tiny' needs none of that"
    elif folder is None:
        remedy = "run `make base`, or clone the repository again" if profile.embedded else remedy
        if profile.fetched:
            remedy = "fetch it once with `make real`, in a clone of the course"
        said = f"profile {profile.name!r}: there is no config.json in {profile.source}; {remedy}"
        raise ModelNotAvailableError(said)
    options |= {"local_files_only": folder is not None, "trust_remote_code": False}
    source = profile.source if profile.on_hub else str(folder)
    place = {"local_files_only": folder is not None, "revision": options.get("revision")}
    try:
        config, tokenizer, weights = {}, {}, "use_safetensors" in options
        with suppress(OSError):  # one of them may be missing; what can't be read fails below
            config, _ = PreTrainedConfig.get_config_dict(source, **place)
        with suppress(OSError):
            tokenizer = get_tokenizer_config(source, **place)
        if odd := named_code(config, tokenizer, weights=weights):
            raise WrongModelError(
                f"profile {profile.name!r}: {profile.source} can't be used: {odd}; take another "
                "model, or copy the folder and take that line out of the JSON file"
            )
        return kind.from_pretrained(source, **options)
    except WrongModelError:
        raise
    # The libraries raise what they like on what is damaged: tokenizers 0.22 a bare Exception,
    # transformers KeyError or TypeError, a quantiser that is not installed ImportError.
    except Exception as error:
        said = first_line(error)
        if "out of memory" in said:
            remedy = "free some, or take a smaller profile (`sftlab plan` says what each needs)"
        raise ModelNotAvailableError(
            f"profile {profile.name!r}: {profile.source} can't be loaded: {said}; {remedy}"
        ) from error


def first_line(error: Exception) -> str:
    """What a library said, without its advice."""
    said = str(error).strip().partition("\n")[0]
    return said if isinstance(error, OSError | ValueError | RuntimeError) else f"{error!r}"[:300]


def keep_layout(model: Any) -> None:
    """Forbid 4-bit layers to change the layout of their weights for inference.

    On a processor with AVX512-BF16, bitsandbytes 0.50 does so in the first evaluation without a
    gradient (`Linear4bit.forward`); a backward pass afterwards reads the old layout, and training
    goes wrong without a warning. The price is the faster kernel.
    """
    from bitsandbytes.nn import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def weights_hash(folder: str | Path) -> str:
    """SHA-256 of a folder's safetensors, one after another in order of their names, as hexadecimal
    text: with one file it equals `sha256sum model.safetensors`."""
    digest = hashlib.sha256()
    for file in sorted(Path(folder).glob("*.safetensors")):
        with file.open("rb") as stream:
            hashlib.file_digest(stream, lambda: digest)
    return digest.hexdigest()
