"""Configurations of models, by name, path or hub id. No weight is loaded, none is downloaded."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftlab.paths import DATA
from sftlab.profiles import UnknownProfileError, find_profile

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

FOLDER = DATA / "architectures"
"""One JSON file for each built-in architecture: its hub id, its count of weights, its sizes as the
publisher's config.json states them."""


class ArchitectureError(ValueError):
    """A model that is unknown, or whose configuration is no decoder's; the message says which."""


def built_in() -> dict[str, Path]:
    """The architectures that ship with the course, by name."""
    return {file.stem: file for file in sorted(FOLDER.glob("*.json"))}


def read_configuration(model: str | Path) -> "PreTrainedConfig":
    """The configuration of what `find_architecture` takes.

    Raises:
        ArchitectureError: there is none, or it can't be read or fetched.
    """
    files = built_in()
    if str(model) in files:
        return _parsed(files[str(model)], inside="config")
    path = Path(model).expanduser()
    if path.suffix == ".json":
        if not path.is_file():
            raise ArchitectureError(f"{model}: no such file; give the path of a config.json")
        return _parsed(path)
    try:
        profile = find_profile(model)
    except UnknownProfileError as error:
        raise ArchitectureError(f"{error}; built-in architectures: {', '.join(files)}") from error
    for file in files.values():
        if json.loads(file.read_text(encoding="utf-8"))["hub"] == profile.source:
            return _parsed(file, inside="config")
    if profile.on_hub:
        return _parsed(_fetched(profile.source, profile.revision))
    return _parsed(Path(profile.source) / "config.json")


def _parsed(file: Path, *, inside: str | None = None) -> "PreTrainedConfig":
    from transformers import AutoConfig

    try:
        stated: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ArchitectureError(f"{file}: not JSON: {error}; fetch the file again") from error
    stated = stated[inside] if inside else stated
    if not isinstance(stated, dict) or not isinstance(stated.get("model_type"), str):
        raise ArchitectureError(
            f"{file}: it has no model_type, so it is no configuration of transformers; give the "
            "config.json of a model"
        )
    kind = stated.pop("model_type")
    try:
        return AutoConfig.for_model(kind, **stated)
    except ValueError as error:
        if "Unrecognized model identifier" not in str(error):
            raise ArchitectureError(f"{file}: {error}") from error
        raise ArchitectureError(
            f"{file}: this transformers knows no model_type {kind!r}. Models that bring their own "
            "code are not run here; for a newer one, upgrade transformers"
        ) from error
    except Exception as error:  # checks of single fields raise errors of huggingface_hub
        raise ArchitectureError(f"{file}: {' '.join(str(error).split())}") from error


def _fetched(source: str, revision: str) -> Path:
    """The path of a hub repository's config.json, from the cache or fetched."""
    from huggingface_hub import errors, hf_hub_download, try_to_load_from_cache

    cached = try_to_load_from_cache(source, "config.json", revision=revision)
    if isinstance(cached, str):
        return Path(cached)
    try:
        return Path(hf_hub_download(source, "config.json", revision=revision))
    except errors.GatedRepoError as error:
        remedy = "it is gated: accept its licence on the hub, then run `hf auth login`"
        raise ArchitectureError(f"{source}: {remedy}") from error
    except errors.RepositoryNotFoundError as error:
        raise ArchitectureError(f"{source}: the hub has no such model; check the name") from error
    except errors.RemoteEntryNotFoundError as error:
        raise ArchitectureError(f"{source}: its repository has no config.json") from error
    except Exception as error:  # whatever the network raises means the same to the learner
        raise ArchitectureError(
            f"{source}: its config.json is not in the cache and the hub can't be reached "
            f"({type(error).__name__}). Connect and unset HF_HUB_OFFLINE, give the path of a "
            f"config.json, or choose what is built in: {', '.join(built_in())}"
        ) from error
