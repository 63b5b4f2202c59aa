"""Checkpoints of a run in a folder, so that one that was killed goes on where it was.

folder/recipe.json        what the run is: settings, data, base, versions
folder/checkpoint-50/     weights, optimiser, schedule, generators; `whole` is written last
folder/checkpoint-100/    the newest two are kept: a kill while one is written leaves the other

Whatever else lies in the folder is its owner's, such as checkpoint-best/ or checkpoint-notes.txt:
it is neither read nor removed.
"""

import json
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

WHOLE = "whole"
KEPT = 2
FREE = {"platform"}
"""What of a recipe may have changed when its run is resumed."""


class CheckpointError(ValueError):
    """A folder whose checkpoints are another run's."""


def newest_checkpoint(folder: Path, recipe: Mapping[str, Any]) -> Path | None:
    """The last whole checkpoint of the run that `recipe` describes; `None` when it is to begin.

    What a kill left half-written is removed. The recipe is written when the folder has none.

    The whole recipe must agree but for `platform`, the name of the system and its kernel: an update
    or a new virtual machine changes it, and neither the weights, the data, the settings nor the
    packages. The versions of Python and of each package must agree, as must the kind of device.

    Raises:
        CheckpointError: the folder holds another run, or something else.
    """
    described = json.dumps(recipe, indent=1, sort_keys=True, ensure_ascii=False)
    file = folder / "recipe.json"
    if not file.exists():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise CheckpointError(f"{folder} holds something else; give a new folder")
        folder.mkdir(parents=True, exist_ok=True)
        started = file.with_suffix(".new")
        started.write_text(described, encoding="utf-8")
        started.replace(file)
    try:
        before = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} can't be read: {error}; give a new folder") from error
    now = json.loads(described)
    compared = {*before, *now} - FREE
    other = sorted(key for key in compared if before.get(key) != now.get(key))
    if other:
        raise CheckpointError(
            f"{folder} holds the checkpoints of a run with other {', '.join(other)}; "
            "give a new folder, or delete that one"
        )
    whole = whole_checkpoints(folder)
    for step, checkpoint in _checkpoints(folder).items():
        if step not in whole:
            shutil.rmtree(checkpoint)
    return whole[max(whole)] if whole else None


def whole_checkpoints(folder: Path) -> dict[int, Path]:
    """The checkpoints that are written to their end, by step."""
    return {step: one for step, one in _checkpoints(folder).items() if (one / WHOLE).exists()}


def step_of(checkpoint: Path | None) -> int:
    """The step after which a checkpoint was written; 0 without one."""
    return int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0


def mark_whole(folder: Path, step: int) -> None:
    """Say that the checkpoint of a step is written to its end, and remove all but the newest two.

    The trainer's own rotation won't do (transformers 5.23, `rotate_checkpoints`): it counts every
    folder named checkpoint-*, and removes the one that was longest unchanged, whosever it is.
    """
    (folder / f"checkpoint-{step}" / WHOLE).touch()
    kept = _checkpoints(folder)
    for old in sorted(kept)[:-KEPT]:
        shutil.rmtree(kept[old], ignore_errors=True)  # no reason to end a training


def remove_checkpoints(folder: Path) -> None:
    """Remove the checkpoints of a run that has ended, and the folder if nothing else is in it."""
    for checkpoint in _checkpoints(folder).values():
        shutil.rmtree(checkpoint, ignore_errors=True)
    with suppress(OSError):  # something else is in the folder, or a file of it is in use
        (folder / "recipe.json").unlink(missing_ok=True)
        folder.rmdir()


def _checkpoints(folder: Path) -> dict[int, Path]:
    """The folders named as the trainer names them, by step; no file and no link is among them."""
    found = {}
    for path in folder.glob("checkpoint-*"):
        name = re.fullmatch(r"checkpoint-([1-9][0-9]*)", path.name)
        if name and path.is_dir() and not path.is_symlink():
            found[int(name[1])] = path
    return found
