"""Checkpoints: which of a folder's are whole, and which one a training goes on from.

    checkpoint-50/
        model.safetensors optimizer.pt ... trainer_state.json     the Trainer's own
        sha256.json                                               of each of these; written last

A checkpoint without the list was not finished. One that does not agree with it is damaged. Neither
is gone on from: the one before is.
"""

import errno
import json
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from transformers import TrainerCallback, TrainerState

from sftlab.integrity import file_hash
from sftlab.machine import processes
from sftlab.paths import write_atomically

HASHES = "sha256.json"
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}


class CheckpointError(ValueError):
    """A folder whose checkpoints are another run's."""


class CheckpointWarning(UserWarning):
    """A checkpoint that is not whole, and from where the training goes on instead."""


class TrainingError(Exception):
    """A training that could not go on: its loss is not finite, or the disk is full. No mistake in
    the call, so it is no ValueError, and the command line ends with 1."""


class KeepNewestCheckpoints(TrainerCallback):
    """Complete a checkpoint by its list of hashes, then delete all but the newest two and the best.
    `save_total_limit` would count, and delete, a folder checkpoint-notes (transformers 5.23)."""

    def on_save(self, args, state, control, **kwargs):
        processes().wait_for_everyone()  # each writes the state of its random numbers
        if not state.is_world_process_zero:
            return
        found = checkpoints_in(Path(args.output_dir))
        listed = json.dumps(_hashes(found[state.global_step]), indent=1)
        write_atomically(found[state.global_step] / HASHES, listed)
        # Later ones are what a training left that went on from one before.
        kept = sorted(step for step in found if step <= state.global_step)[-2:]
        for step in found.keys() - {*kept, state.best_global_step}:
            shutil.rmtree(found[step], ignore_errors=True)  # no reason to end a training


def checkpoints_in(folder: Path) -> dict[int, Path]:
    """The trainer's checkpoints in a folder, by step."""
    names = {one: re.fullmatch("checkpoint-([0-9]+)", one.name) for one in folder.glob("*")}
    return {int(name[1]): one for one, name in names.items() if name and one.is_dir()}


def _hashes(checkpoint: Path) -> dict[str, str]:
    """SHA-256 of each of its files, by name."""
    # `write_atomically` leaves .NAME
    files = (one for one in sorted(checkpoint.iterdir()) if one.name[0] != ".")
    return {one.name: file_hash(one) for one in files if one.name != HASHES}


def _fault(checkpoint: Path) -> str:
    """What is wrong with a checkpoint, or with the best one before it, at whose weights a training
    with early stopping ends; empty when it is whole."""
    try:
        listed = json.loads((checkpoint / HASHES).read_text(encoding="utf-8"))
        wrong = sorted({name for name, _ in listed.items() ^ _hashes(checkpoint).items()})
    except FileNotFoundError:
        return "was not finished"
    except (OSError, ValueError, TypeError, AttributeError) as error:
        wrong = [f"{HASHES}: {error}"]
    if wrong:
        return f"is damaged ({', '.join(wrong)})"
    best = checkpoint.with_name(f"checkpoint-{state_of(checkpoint).best_global_step}")
    fault = "" if best.name in ("checkpoint-None", checkpoint.name) else _fault(best)
    return fault and f"needs the best one, {best.name}, which {fault}"


def state_of(checkpoint: Path) -> TrainerState:
    """What the Trainer remembers in a checkpoint that is whole."""
    return TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))


def last_whole(folder: Path) -> tuple[int, str]:
    """The step of the last whole checkpoint, 0 without any; and of later ones what is wrong."""
    faults = []
    for step, one in sorted(checkpoints_in(folder).items(), reverse=True):
        if not (fault := _fault(one)):
            return step, "; ".join([*faults, f"going on from {one.name}"]) if faults else ""
        faults.append(f"{one.name} {fault}")
    return 0, "; ".join([*faults, "starting again: there is no other"]) if faults else ""


def last_step(folder: Path) -> int:
    """The step of the last whole checkpoint in a folder; 0 when there is none."""
    return last_whole(folder)[0]


def newest_checkpoint(folder: Path, wanted: dict) -> Path | None:
    """The last whole checkpoint of the run that `wanted` describes, or `None`. A new folder gets
    training.json, which says what the run is; that of another is refused."""
    # The name of the system and its kernel changes with an update, or on a new virtual machine.
    wanted = json.loads(json.dumps({**wanted, "platform": None}, allow_nan=False))
    file = folder / "training.json"
    if not file.exists():
        if folder.exists() and any(one.name[0] != "." for one in folder.iterdir()):
            raise CheckpointError(f"{folder} holds something else; give a new folder")
        write_atomically(file, json.dumps(wanted, indent=1, sort_keys=True, ensure_ascii=False))
    before = read_object(file, CheckpointError)
    if other := sorted(key for key in wanted if before.get(key) != wanted[key]):
        raise CheckpointError(
            f"{folder} holds the checkpoints of a run with other {', '.join(other)}; "
            "give a new folder, or delete that one"
        )
    step, fault = last_whole(folder)
    if fault:
        warnings.warn(fault, CheckpointWarning, stacklevel=3)
    return folder / f"checkpoint-{step}" if step else None


def read_object(file: Path, kind: type[ValueError]) -> dict:
    """The JSON object that says what a run is, or an error of that kind."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        fault = "" if isinstance(found["settings"], dict) else "settings is no object"
    except (OSError, ValueError, RecursionError, LookupError, TypeError) as error:
        fault = f"{type(error).__name__}: {error}"
    if fault:
        raise kind(
            f"{file} is damaged ({fault}), so which run is in that folder is not known; put the "
            "file back as it was, or give another folder (--out)"
        )
    return found


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn what libraries raise on a full disk into one line; what was whole before stays."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        # safetensors and torch.save raise errors of their own kinds (0.8 and 2.13).
        theirs = re.search("while serializing|inline_container|PytorchStream", str(error))
        if not theirs and getattr(error, "errno", None) not in FULL:
            raise
        reason = " ".join(str(error).split())[:200]
        raise TrainingError(
            f"{folder} can't be written to ({reason}); free space there: the "
            "same command or call goes on from the last whole checkpoint"
        ) from error
