"""Which model an experiment runs on, and loading it: an embedded one, or any folder or hub id.

A profile holds what a lesson must know before it loads anything: where the weights are, how large
they are, and settings that train a model of that size. Reading a profile touches no network.
"""

import hashlib
import json
import math
import os
import re
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub import try_to_load_from_cache

from sftlab.machine import choose_threads, pick_device
from sftlab.paths import DATA
from sftlab.quiet import progress_bars, silence_known_lines

METHODS = ("full", "lora", "qlora", "int8", "prefix", "frozen", "gradual", "head")
ADAPTED = ("lora", "qlora", "int8", "prefix")
"""Methods that leave the base's weights as they are and train others in addition."""
QUANTISED = ("qlora", "int8")
"""Methods whose base is held in 4 or 8 bits."""
PADDING = ("<|pad|>", "<pad>", "[PAD]", "<|finetune_right_pad_id|>", "<|reserved_special_token_0|>")
"""Tokens that vocabularies keep for padding, or for nothing, the likeliest first."""
ADAPTERS = "adapter_config.json"
"""PEFT's file, which tells a folder of adapters from a model's."""


class UnknownProfileError(ValueError):
    """A name that is not a profile, a model folder or a hub id."""


class ModelNotAvailableError(ValueError):
    """A profile whose weights can't be had; the message says why and what to do."""


class WrongModelError(ModelNotAvailableError):
    """A model that is there, and is not a causal language model."""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A model with what is needed to plan and train it."""

    name: str  # what the learner types
    source: str  # an absolute folder, or a repository of the Hugging Face hub
    revision: str = "main"  # branch, tag or commit of a hub repository
    parameters: int | None = None  # number of weights, None when nothing on this machine says it
    method: str = "full"  # how `finetune` trains it by default
    rate_full: float = 2e-5  # peak learning rate when every weight is trained
    rate_lora: float = 2e-4  # and of adapters, which want a several times larger one
    max_length: int = 512  # tokens of the longest training example
    per_device_train_batch_size: int = 16
    embedded: bool = False  # whether the weights ship with the course
    download_bytes: int = 0  # fetched from the hub the first time
    needs_gpu: bool = False  # whether training it without a GPU would take days

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method is {self.method!r}; choose one of {', '.join(METHODS)}")

    @property
    def on_hub(self) -> bool:
        """Whether the weights come from the hub (or its cache) rather than from a folder."""
        return not Path(self.source).is_absolute()

    def rate(self, method: str | None = None) -> float:
        """The peak learning rate for a method: that of adapters, or of the base's own weights.

        A prefix starts at a standard normal, far above the size of weights, and wants steps as
        large: of 0.03, 0.1 and 0.3 only with the largest did the 3.7M model learn about as much as
        with LoRA at 2e-3.
        """
        method = method or self.method
        if method == "prefix":
            return 100 * self.rate_lora
        return self.rate_lora if method in ADAPTED else self.rate_full


def _read_profiles() -> dict[str, Profile]:
    # Measured on the 3.7M model: 7e-4 in batches of 32 learns every relation as 5e-4 in batches of
    # 16 does, in four fifths of the time, and keeps all knowledge; 5e-3 destroys it. LoRA r=16
    # needs 2e-3 to learn as much.
    small = {"rate_full": 7e-4, "rate_lora": 2e-3, "max_length": 256}
    small |= {"per_device_train_batch_size": 32}
    found = {}
    for name, stated in tomllib.loads((DATA / "profiles.toml").read_text("utf-8")).items():
        if stated.get("embedded"):
            stated |= {"source": str(DATA / "models" / name)} | small
        found[name] = Profile(name=name, **stated)
    return found


PROFILES = _read_profiles()


def find_profile(name: str | Path | Profile) -> Profile:
    """The profile of a name, of a model folder or a saved run, or of a hub id such as `owner/name`.

    A folder or hub id that the course does not know gets rates by its size, read from its
    safetensors when they are on this machine; a run of adapters has its base's, and its method.
    What looks like a path is never sent to the hub.
    Raises UnknownProfileError, which lists the profiles, when it is none of these.
    """
    if isinstance(name, Profile):
        return name
    if str(name) in PROFILES:
        return PROFILES[str(name)]
    folder = Path(os.path.expanduser(name))  # which leaves the ~ of an unknown user as it is
    if (folder / "config.json").is_file():
        # A run remembers its base: a relative path would lead elsewhere from another folder.
        return _by_size(str(name), source=str(folder.resolve()))
    if (folder / ADAPTERS).is_file():
        base, _ = read_adapters(folder)
        if base.method == "prefix":
            remedy = f"train {base.name} again with method='lora' (--method lora)"
            raise UnknownProfileError(f"{name} holds a prefix, which can't be merged; {remedy}")
        found = {"name": str(name), "source": str(folder.resolve()), "revision": "main"}
        return replace(base, **found, embedded=False)
    # `runs/mine` is a hub id, unless there is a folder `runs`.
    hub_id = re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", str(name)) and not folder.parent.is_dir()
    if hub_id and isinstance(name, str):
        return _by_size(name, source=name)
    raise UnknownProfileError(
        f"no profile is called {str(name)!r}, and no folder with a config.json has this path in "
        f"{Path.cwd()}; choose {', '.join(PROFILES)}, a model's folder, or a hub id such as "
        "owner/name"
    )


def _by_size(name: str, *, source: str) -> Profile:
    profile = Profile(name=name, source=source)
    folder = local_folder(profile)
    count = parameters_in(folder) if folder else None
    sizes = (
        (2e7, 7e-4, 2e-3, "full", 32),
        (2e8, 1e-4, 5e-4, "full", 8),
        (1e9, 2e-5, 2e-4, "full", 4),
        (math.inf, 2e-5, 2e-4, "lora", 4),
    )
    _, full, lora, method, batch = next(row for row in sizes if (count or 1e9) < row[0])
    return replace(
        profile,
        parameters=count,
        rate_full=full,
        rate_lora=lora,
        method=method,
        per_device_train_batch_size=batch,
        needs_gpu=bool(count and count > 3e9),
    )


def read_adapters(folder: Path) -> tuple[Profile, dict[str, Any]]:
    """The base of a folder of adapters that `Run.save` wrote, wherever it is now, with the method;
    and the run's provenance. Raises UnknownProfileError when another program wrote the folder."""
    try:
        stated = json.loads((folder / "run.json").read_text(encoding="utf-8"))["provenance"]
        base = Profile(**stated["profile"])
        kind = json.loads((folder / ADAPTERS).read_text(encoding="utf-8"))["peft_type"]
        if kind not in ("LORA", "PREFIX_TUNING"):
            raise ValueError(f"peft_type is {kind!r}")
        (folder / "adapter_model.safetensors").stat()  # without, PEFT would open a pickle
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UnknownProfileError(
            f"{folder} holds adapters, but no whole run of the lab ({error}); with PEFT load their "
            "base and them, call merge_and_unload().save_pretrained(DIR), and give DIR"
        ) from error
    if base.embedded:
        base = replace(PROFILES[base.name], method=base.method)
    return base, stated


def local_folder(profile: Profile) -> Path | None:
    """The folder with the profile's weights, in the hub's cache or not; `None` when not here."""
    if not profile.on_hub:
        folder = Path(profile.source)
        return folder if any((folder / f).is_file() for f in ("config.json", ADAPTERS)) else None
    found = try_to_load_from_cache(profile.source, "config.json", revision=profile.revision)
    if not isinstance(found, str):
        return None
    folder, files = Path(found).parent, ["model.safetensors"]
    index = folder / "model.safetensors.index.json"
    if index.is_file():  # sharded: all shards must be here
        files = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
    return folder if all((folder / file).is_file() for file in files) else None


def parameters_in(folder: Path) -> int | None:
    """Number of weights in a folder's safetensors, read from their headers; `None` when none.

    Raises ModelNotAvailableError when a file is cut short, or is git-lfs's pointer to the weights:
    transformers' own error names no file.
    """
    from safetensors import SafetensorError, safe_open

    total = 0
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118 - not a dict, it has no iterator
                    total += math.prod(tensors.get_slice(name).get_shape())
        except SafetensorError as error:
            raise ModelNotAvailableError(
                f"{file} is cut short or no weights at all ({error}): fetch it again, in a clone "
                "with `git lfs pull`"
            ) from error
    return total or None


def load(
    profile: str | Path | Profile, *, dtype: Any = None, bnb_4bit_use_double_quant: bool = True
) -> tuple[Any, Any]:
    """A fresh model in evaluation mode, and its tokenizer, which can pad.

    An embedded model stays on the CPU, where a seed gives the same numbers on every machine; any
    other goes to the GPU when there is one. Only a hub profile that is not yet in the cache uses
    the network. Weights are read from safetensors alone, and code of a repository is never run.

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

    silence_known_lines()
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
        options["use_safetensors"] = True
        with progress_bars(shown=folder is None):  # of a download
            return _from_pretrained(AutoModelForCausalLM, profile, **options)
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

    Raises ModelNotAvailableError when the base is not the one that they were trained on.
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
        size = len(load_tokenizer(replace(base, source=str(folder.resolve()))))
        if size > len(model.get_input_embeddings().weight):
            model.resize_token_embeddings(size, mean_resizing=False)
    model.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
    return PeftModel.from_pretrained(model, str(folder), local_files_only=True)


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
    folder = local_folder(profile)
    remedy = "a folder needs config.json, its *.safetensors, a tokenizer; a saved run needs its "
    remedy += "base, or the run it went on from, where it was"
    if profile.on_hub:
        options["revision"] = profile.revision
        remedy = "check the spelling (of a folder too) and the network (HF_HUB_OFFLINE unset); a "
        remedy += "gated model wants `hf auth login`. The profile 'tiny' needs none of that"
    elif folder is None:
        remedy = "run `make base`, or clone the repository again" if profile.embedded else remedy
        said = f"profile {profile.name!r}: there is no config.json in {profile.source}; {remedy}"
        raise ModelNotAvailableError(said)
    options |= {"local_files_only": folder is not None, "trust_remote_code": False}
    try:
        return kind.from_pretrained(profile.source if profile.on_hub else str(folder), **options)
    except Exception as error:  # of others' files libraries raise what they like
        said = str(error).strip().partition("\n")[0]
        if "out of memory" in said:
            remedy = "free some, or take a smaller profile (`sftlab plan` says what each needs)"
        raise ModelNotAvailableError(
            f"profile {profile.name!r}: {profile.source} can't be loaded: {said}; {remedy}"
        ) from error


def keep_layout(model: Any) -> None:
    """Forbid 4-bit layers to change the layout of their weights for inference.

    On a processor with AVX512-BF16, bitsandbytes 0.50 does so the first time that a layer computes
    in evaluation mode without a gradient (`Linear4bit.forward`), and rounds the scales to bfloat16.
    A backward pass afterwards reads the old layout, and training goes wrong without a warning. With
    this a model computes after an evaluation what it computed before, bit for bit, on every
    processor; what it costs is the faster kernel.
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
