"""Checkpoints, with which a run that was stopped, or killed, goes on where it was.

    output_dir/training.json      what the run is: settings, data, base, versions
    output_dir/checkpoint-50/     the Trainer's own; trainer_state.json is written last
    output_dir/checkpoint-100/    the newest two are kept: a kill while one is written leaves one

Whatever else lies in the folder is its owner's: it is neither read nor removed.
"""

import json
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerState

from sftlab.paths import write_atomically


class CheckpointError(ValueError):
    """A folder whose checkpoints are another run's."""


class KeepNewestCheckpoints(TrainerCallback):
    """Delete all checkpoints but the newest two and the best.

    `save_total_limit` won't do (transformers 5.23, `rotate_checkpoints`): it counts every folder
    named checkpoint-*, and may delete one that is not the trainer's, such as checkpoint-notes.
    """

    def on_save(self, args, state, control, **kwargs):
        found = checkpoints_in(Path(args.output_dir))
        for step in list(found)[:-2]:
            if step != state.best_global_step:
                shutil.rmtree(found[step], ignore_errors=True)  # no reason to end a training


def checkpoints_in(folder: Path) -> dict[int, Path]:
    """The trainer's checkpoints in a folder by step, oldest first; links are not among them."""
    found = {}
    for one in folder.glob("checkpoint-*"):
        step = re.fullmatch("checkpoint-([1-9][0-9]*)", one.name)
        if step and one.is_dir() and not one.is_symlink():
            found[int(step[1])] = one
    return dict(sorted(found.items()))


def newest_checkpoint(folder: Path, wanted: Mapping[str, Any]) -> Path | None:
    """The last whole checkpoint of the run that `wanted` describes; `None` when it is to begin.

    What a kill left half-written is removed. All of `wanted` must agree but `platform`, the name of
    the system and its kernel, which an update or a new virtual machine changes.
    """
    file, now = folder / "training.json", json.loads(json.dumps(wanted))
    if not file.exists():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise CheckpointError(f"{folder} holds something else; give a new folder")
        write_atomically(file, json.dumps(wanted, indent=1, sort_keys=True, ensure_ascii=False))
    before = json.loads(file.read_text(encoding="utf-8"))
    keys = sorted({*before, *now} - {"platform"})
    if other := [key for key in keys if before.get(key) != now.get(key)]:
        raise CheckpointError(
            f"{folder} holds the checkpoints of a run with other {', '.join(other)}; "
            "give a new folder, or delete that one"
        )
    found = checkpoints_in(folder)
    for path in found.values():
        if not _state(path):
            shutil.rmtree(path)
    return found.get(last_step(folder))


def last_step(folder: Path) -> int:
    """The step of the last whole checkpoint in a folder; 0 when there is none."""
    return max((step for step, path in checkpoints_in(folder).items() if _state(path)), default=0)


def remove_checkpoints(folder: Path) -> None:
    """Remove the checkpoints of a run that has ended, and the folder if nothing else is in it."""
    for path in checkpoints_in(folder).values():
        shutil.rmtree(path, ignore_errors=True)
    with suppress(OSError):  # something else is in the folder, or a file of it is in use
        (folder / "training.json").unlink(missing_ok=True)
        folder.rmdir()


def stopped_at(checkpoint: Path, patience: int | None) -> float | None:
    """The epoch at which early stopping had ended the training; resumed, it would go on."""
    state = _state(checkpoint)
    found = state.stateful_callbacks.get("EarlyStoppingCallback")
    if patience and found and found["attributes"]["early_stopping_patience_counter"] >= patience:
        return state.epoch
    return None


def _state(checkpoint: Path) -> TrainerState | None:
    """What the Trainer writes last; `None` where a kill left the checkpoint half-written."""
    try:
        return TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    except (OSError, ValueError):
        return None
