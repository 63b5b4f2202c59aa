"""Where the course keeps its files: in a clone, in an installed wheel, and in the user's cache."""

import os
from pathlib import Path

import platformdirs

_PACKAGE = Path(__file__).resolve().parent


def _shipped(name: str) -> Path:
    """A folder that a clone keeps beside the package and a wheel carries inside it."""
    inside = _PACKAGE / f"_{name}"
    return inside if inside.is_dir() else _PACKAGE.parent / name


DATA = _shipped("data")
NOTEBOOKS = _shipped("notebooks")


def cache_folder() -> Path:
    """The folder for what can be made again; `SFTLAB_CACHE` overrides the platform's own."""
    folder = Path(os.environ.get("SFTLAB_CACHE") or platformdirs.user_cache_dir("sftlab"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder
