"""Where the course keeps its files: in a clone, in an installed wheel, and in the user's cache."""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO
from uuid import uuid4

import platformdirs

_PACKAGE = Path(__file__).resolve().parent


def _shipped(name: str) -> Path:
    """A folder that a clone keeps next to the package and a wheel carries inside it."""
    inside = _PACKAGE / f"_{name}"
    return inside if inside.is_dir() else _PACKAGE.parent / name


OTHER_CACHE = "set SFTLAB_CACHE in the environment to another folder"
DATA = _shipped("data")
NOTEBOOKS = _shipped("notebooks")
RECIPES = _shipped("recipes")


class PathError(ValueError):
    """A folder that can't be made, or not be written to."""


def cache_path() -> Path:
    """Where the folder for what can be made again is, or will be; `SFTLAB_CACHE` overrides the
    platform's own."""
    return Path(os.environ.get("SFTLAB_CACHE") or platformdirs.user_cache_dir("sftlab"))


def cache_folder() -> Path:
    """That folder, made where it is missing."""
    folder = cache_path()
    if not os.path.isdir(folder):
        check_writable(folder, remedy=OTHER_CACHE)
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def check_writable(folder: Path, *, remedy: str = "give --out another folder") -> None:
    """Raise PathError when a folder, which need not be there yet, can't be made and written to."""
    try:
        for there in (folder.absolute(), *folder.absolute().parents):
            with suppress(FileNotFoundError):
                os.stat(there)
                break
        tempfile.TemporaryFile(dir=there).close()  # tells a full or read-only disk too
    except OSError as error:
        said = f"{str(folder)!r} can't be a folder to write to ({error.strerror}); {remedy}"
        raise PathError(said) from error


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all: after a crash the old content is there, or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with file_written_atomically(path) as file:
        file.buffer.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def file_written_atomically(path: Path) -> Iterator[TextIO]:
    """A temporary text file that takes the name `path` when the block ends without an error."""
    # Its own name: a process in another container, or a thread, may have this one's number.
    unfinished = path.with_name(f".{path.name[:100]}.{uuid4().hex}.unfinished")
    try:
        with unfinished.open("w", encoding="utf-8", newline="\n") as file:
            yield file
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def folder_written_atomically(path: Path) -> Iterator[Path]:
    """A temporary folder that takes the name `path` when the block ends without an error.

    A folder that is already there is replaced; of processes that write it at once, one wins.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as scratch:
        new = Path(scratch) / "new"
        new.mkdir()
        yield new
        with suppress(FileNotFoundError):  # none is there
            os.replace(path, Path(scratch) / "old")
        try:
            os.replace(new, path)
        except OSError as error:  # EACCES is Windows' word for the same
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.EACCES):
                raise  # else another process was faster, and its folder stays
