"""What took long to find out about files, kept for the next process in `<cache>/notes`."""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from sftlab.paths import cache_folder


def notes_folder() -> Path:
    """Where the notes are; what is in it can be found out again."""
    return cache_folder() / "notes"


def noted(name: str) -> dict[str, Any]:
    """The entries of `name`; none when there is no such file yet, or it is damaged."""
    try:
        found = json.loads((notes_folder() / f"{name}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def note(name: str, entries: Mapping[str, Any]) -> None:
    """Add entries to `name`, all or none.

    Where two processes do it at once, those of one may be lost: the next finds them out again.
    """
    file = notes_folder() / f"{name}.json"
    beside = file.with_suffix(f".{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(json.dumps(noted(name) | dict(entries)), encoding="utf-8")
        beside.replace(file)
    except OSError:  # another reads it just now, on Windows; or there is no room
        with suppress(OSError):
            beside.unlink()
