"""Load a profile's model and tokenizer, and say beforehand whether the machine can.

Everything about models that the other rooms use is importable from here.
"""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from sftlab.machine import choose_threads, pick_device
from sftlab.profiles import (
    PROFILES,
    QUANTISED,
    Profile,
    UnknownProfileError,
    find_profile,
    local_folder,
)
from sftlab.quantised import keep_layout, quantisation
from sftlab.quiet import progress_bars, silence_known_lines
from sftlab.weights import BrokenWeightsError, Shape, parameters_in

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = [
    "PROFILES",
    "BrokenWeightsError",
    "ModelNotAvailableError",
    "Profile",
    "Shape",
    "UnknownProfileError",
    "find_profile",
    "load",
    "load_tokenizer",
    "local_folder",
    "pick_device",
    "weights_hash",
]

PADDING = ("<|pad|>", "<pad>", "[PAD]", "<|finetune_right_pad_id|>", "<|reserved_special_token_0|>")
"""Tokens that vocabularies keep for padding, or for nothing, the likeliest first."""


class ModelNotAvailableError(ValueError):
    """A profile whose weights can't be had; the message says why and what to do."""


def load(
    profile: str | Path | Profile,
    *,
    dtype: "torch.dtype | None" = None,
    bnb_4bit_use_double_quant: bool = True,
) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """A fresh model in evaluation mode, and its tokenizer, which can pad.

    An embedded model stays on the CPU, where a seed gives the same numbers on every machine; any
    other goes to the GPU when there is one. A tokenizer without a padding token gets one.

    Only a hub profile that is not yet in the cache uses the network. Weights are read from
    safetensors alone, and code that a repository ships is never run.

    Args:
        profile: a profile, its name, a model folder, or a hub id.
        dtype: type of the weights; by default float32 however they are stored, because Adam's
            small updates vanish in bfloat16. Where the profile's method is qlora or int8 the
            linear layers are held in NF4 (Dettmers et al., arXiv 2305.14314) or 8 bits, on the GPU
            when there is one, and `dtype` (bfloat16 by default) is the type of all else and that
            they compute in. Such a model may be evaluated before and while it is trained.
        bnb_4bit_use_double_quant: whether NF4's scales are quantised too.

    Raises:
        UnknownProfileError: there is no such profile.
        ModelNotAvailableError: offline, gated, misspelt or incomplete; the cause is chained.
    """
    import torch
    from transformers import AutoModelForCausalLM

    silence_known_lines()
    profile = find_profile(profile)
    source, options = _place(profile)
    if folder := local_folder(profile):
        try:
            parameters_in(folder)  # reads the headers alone: transformers' own error names no file
        except BrokenWeightsError as error:
            raise ModelNotAvailableError(f"profile {profile.name!r}: {error}") from error
    quantised = {}
    if profile.method in QUANTISED:
        dtype = dtype or torch.bfloat16
        held = quantisation(profile.method, dtype=dtype, double=bnb_4bit_use_double_quant)
        quantised = {"quantization_config": held, "device_map": {"": pick_device()}}
    tokenizer = load_tokenizer(profile)
    try:
        with progress_bars(shown=local_folder(profile) is None):
            model = AutoModelForCausalLM.from_pretrained(
                source, dtype=dtype or torch.float32, use_safetensors=True, **quantised, **options
            )
    except (OSError, ValueError) as error:  # every hub error is an OSError, a bad folder either
        raise ModelNotAvailableError(_explain(profile, error)) from error
    if quantised:
        keep_layout(model)
    elif not profile.embedded:
        model.to(pick_device())
    choose_threads(sum(weight.numel() for weight in model.parameters()))
    return model.eval(), tokenizer


def load_tokenizer(profile: str | Path | Profile) -> "PreTrainedTokenizerBase":
    """A profile's tokenizer, which can pad; no weight is read.

    Raises:
        UnknownProfileError: there is no such profile.
        ModelNotAvailableError: as for `load`.
    """
    from transformers import AutoTokenizer

    profile = find_profile(profile)
    source, options = _place(profile)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
    except (OSError, ValueError) as error:
        raise ModelNotAvailableError(_explain(profile, error)) from error
    _let_pad(tokenizer)
    return tokenizer


def load_config(profile: Profile):
    """The transformers configuration of a profile; of a hub model config.json alone is fetched.

    Raises:
        ModelNotAvailableError: as for `load`.
    """
    from transformers import AutoConfig

    options = {"revision": profile.revision} if profile.on_hub else {}
    try:
        return AutoConfig.from_pretrained(profile.source, trust_remote_code=False, **options)
    except (OSError, ValueError) as error:
        raise ModelNotAvailableError(_explain(profile, error)) from error


def _place(profile: Profile) -> tuple[str, dict]:
    """What transformers is to load, and how; ModelNotAvailableError when the folder is not here."""
    folder = local_folder(profile)
    if folder is None and not profile.on_hub:
        raise ModelNotAvailableError(_explain(profile, None))
    options = {"local_files_only": folder is not None, "trust_remote_code": False}
    if profile.on_hub:
        options["revision"] = profile.revision
    return profile.source if profile.on_hub else str(folder), options


def _let_pad(tokenizer: "PreTrainedTokenizerBase") -> None:
    """Name a padding token where there is none (Llama's base models), or no batch can be made.

    A token that no text holds is the best. Failing that it is eos: what is padding is told by the
    attention mask and by the labels of -100 that TRL's collator appends, never by the token.
    """
    if tokenizer.pad_token is not None:
        return
    vocabulary = tokenizer.get_vocab()
    taken = (None, tokenizer.bos_token, tokenizer.eos_token)
    free = [t for t in (*PADDING, tokenizer.unk_token) if t not in taken and t in vocabulary]
    tokenizer.pad_token = free[0] if free else tokenizer.eos_token or tokenizer.bos_token


def _explain(profile: Profile, error: Exception | None) -> str:
    """One sentence: which profile, why not, and the remedy."""
    from huggingface_hub import errors

    causes, cause = [], error
    while cause is not None:  # transformers wraps the hub's errors in its own
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__

    def caused_by(*kinds: type[Exception]) -> bool:
        return any(isinstance(cause, kinds) for cause in causes)

    what = f"profile {profile.name!r}: the model {profile.source} can't be loaded: "
    if profile.embedded and error is None:
        return what + "its folder is missing. Run `make base`, or clone the repository again"
    if not profile.on_hub:
        here = Path(profile.source).expanduser().is_dir()
        reason = "there is no config.json" if here else "there is no such folder"
        reason = reason if error is None else _first_line(error)
        return what + f"{reason}. A folder needs config.json, *.safetensors and a tokenizer"
    if caused_by(errors.GatedRepoError):
        return what + (
            f"it is gated. Accept its licence on the page of {profile.source} on the hub, then "
            "run `hf auth login` with a token of that account"
        )
    if caused_by(errors.RepositoryNotFoundError, errors.RevisionNotFoundError):
        return what + (
            f"the hub has no such model or no revision {profile.revision!r} (or it is private). "
            f"Check the spelling; the course's own profiles are {', '.join(PROFILES)}"
        )
    if caused_by(errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError, ConnectionError):
        return what + (
            "it is not in the cache and the hub can't be reached. Connect to the network (and "
            "unset HF_HUB_OFFLINE), or use an embedded profile such as 'tiny'"
        )
    return what + f"{_first_line(error)}. It needs config.json, safetensors and a tokenizer"


def _first_line(error: Exception) -> str:
    """What an error says, or its kind when it says nothing."""
    return next(filter(None, map(str.strip, str(error).splitlines())), type(error).__name__)


def weights_hash(folder: str | Path) -> str:
    """SHA-256 of a folder's weights, as hexadecimal text.

    With one safetensors file it equals `sha256sum model.safetensors`; with several it is the hash
    of the lines `name digest`, in order of the names.

    Raises:
        ModelNotAvailableError: the folder holds no safetensors.
    """
    digests = {}
    for file in sorted(Path(folder).glob("*.safetensors")):
        with file.open("rb") as stream:
            digests[file.name] = hashlib.file_digest(stream, "sha256").hexdigest()
    if not digests:
        raise ModelNotAvailableError(f"{folder} holds no *.safetensors; give a model's folder")
    if len(digests) == 1:
        return next(iter(digests.values()))
    lines = "".join(f"{name} {digest}\n" for name, digest in digests.items())
    return hashlib.sha256(lines.encode()).hexdigest()
