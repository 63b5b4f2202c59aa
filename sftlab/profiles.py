"""Which model is meant, and where it is: a name of the course, a folder, a saved run or a hub id.

A profile holds what a lesson must know before it loads anything: where the weights are, how large
they are, and settings that train a model of that size. Reading a profile touches no network.
"""

import json
import math
import os
import re
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache

from sftlab.integrity import ADAPTERS, RECORD, changes
from sftlab.paths import DATA, cache_path

METHODS = ("full", "lora", "qlora", "int8", "prefix", "frozen", "gradual", "head")
ADAPTED = ("lora", "qlora", "int8", "prefix")
"""Methods that leave the base's weights as they are and train others in addition."""
QUANTISED = ("qlora", "int8")
"""Methods whose base is held in 4 or 8 bits."""
INDEX = "model.safetensors.index.json"  # of weights in several files


class UnknownProfileError(ValueError):
    """A name that is not a profile, a model folder or a hub id."""


class ModelNotAvailableError(ValueError):
    """A profile whose weights can't be had; the message says why and what to do."""


class WrongModelError(ModelNotAvailableError):
    """A model that is there, and is not a causal language model, or needs code of its own."""


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
    fetched: bool = False  # whether `make real` puts them into the course's cache
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

        A prefix starts at a standard normal, far above the size of weights: the 3.7M model learned
        as much as with LoRA at 2e-3 only with 0.3.
        """
        method = method or self.method
        if method == "prefix":
            return 100 * self.rate_lora
        return self.rate_lora if method in ADAPTED else self.rate_full


def _read_profiles() -> dict[str, Profile]:
    # Measured on the 3.7M model, five seeds: 600 examples at 4e-4 in batches of 8 give 99.6%
    # correct answers and keep 99.6% of the facts; 5e-4 loses up to 8% of one kind in single seeds.
    # Few examples need the small batches: after the ten steps that 100 examples make in batches of
    # 32, the end of a turn has a probability of 0.01 after a correct answer: samples run on.
    small = {"rate_full": 4e-4, "rate_lora": 2e-3, "max_length": 256}
    small |= {"per_device_train_batch_size": 8}
    found = {}
    for name, stated in tomllib.loads((DATA / "profiles.toml").read_text("utf-8")).items():
        if stated.get("embedded"):
            stated |= {"source": str(DATA / "models" / name)} | small
        if stated.get("fetched"):
            stated["source"] = str(cache_path().absolute() / "models" / name)
        found[name] = Profile(name=name, **stated)
    return found


PROFILES = _read_profiles()


def find_profile(name: str | Path | Profile, *, verify: bool = True) -> Profile:
    """The profile of a name, of a model folder or a saved run, or of a hub id such as `owner/name`.

    A folder or hub id that the course does not know gets rates by its size, read from its
    safetensors when they are on this machine; a run of adapters has its base's, and its method.
    What looks like a path is never sent to the hub.
    Raises UnknownProfileError, which lists the profiles, when it is none of these; and, unless
    `verify` is False, for a saved run of which a file, or one of its base, has changed.
    """
    if isinstance(name, Profile):
        return name
    if str(name) in PROFILES:
        return PROFILES[str(name)]
    folder = Path(os.path.expanduser(name))  # which leaves the ~ of an unknown user as it is
    if verify and (said := changes(folder)):
        raise UnknownProfileError(said)
    if (folder / ADAPTERS).is_file():
        base, _ = read_adapters(folder)
        if base.method == "prefix":
            remedy = f"train {base.name} again with method='lora' (--method lora)"
            raise UnknownProfileError(f"{name} holds a prefix, which can't be merged; {remedy}")
        found = {"name": str(name), "source": str(folder.resolve()), "revision": "main"}
        return replace(base, **found, embedded=False)
    if (folder / "config.json").is_file():
        # A run remembers its base: a relative path would lead elsewhere from another folder.
        return _by_size(str(name), source=str(folder.resolve()))
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
        (2e7, 4e-4, 2e-3, "full", 8),
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
        stated = json.loads((folder / RECORD).read_text(encoding="utf-8"))["provenance"]
        base = Profile(**stated["profile"])
        if not base.source or {"base_weights", "added_tokens"} - stated.keys():
            raise ValueError("its run.json lacks entries")
        if base.method not in ADAPTED or stated.get("merged"):
            raise ValueError("its run.json is of a run without")
        kind = json.loads((folder / ADAPTERS).read_text(encoding="utf-8")).get("peft_type")
        # Others read what the file names: PEFT 0.21 opens a tokenizer for PROMPT_TUNING without
        # `trust_remote_code`, which asks on stdin, and whole models for SHADOW and XLORA.
        if kind not in ("LORA", "PREFIX_TUNING"):
            raise ValueError(f"its peft_type is {kind!r}")
        (folder / "adapter_model.safetensors").stat()  # without, PEFT would open a pickle
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UnknownProfileError(
            f"{folder} holds adapters, but no whole run of the lab ({error}); with PEFT load their "
            "base and them, call merge_and_unload().save_pretrained(DIR), and give DIR"
        ) from error
    if base.embedded or base.fetched:
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
    index = folder / INDEX
    if index.is_file():  # sharded: all shards must be here
        files = _shards(index)
    return folder if all((folder / file).is_file() for file in files) else None


def _shards(index: Path) -> list[str]:
    """The files of sharded weights: of the folder itself, and no pickles."""
    try:
        files = sorted({*json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()})
        if all(re.fullmatch(r"[\w.-]+\.safetensors", file) for file in files):
            return files
        raise ValueError("it names files that are no safetensors of its folder")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelNotAvailableError(f"{index} can't be read ({error}): fetch it again") from error


def parameters_in(folder: Path) -> int | None:
    """Number of weights in a folder's safetensors, read from their headers; `None` when none.

    Raises ModelNotAvailableError when a file is cut short, or is git-lfs's pointer to the weights
    (transformers' own error names no file), or when an index of shards names a pickle.
    """
    from safetensors import SafetensorError, safe_open

    total = 0
    if (folder / INDEX).is_file():
        _shards(folder / INDEX)
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
