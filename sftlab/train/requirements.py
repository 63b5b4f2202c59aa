"""What a training on your own file needs against what this machine has, before anything is loaded.

The table of the preflight, with memory, disk and time by formula for these very rows:
the longest of them decides memory, all of them time.
"""

import shutil
from dataclasses import replace
from pathlib import Path

from sftlab.machine import free_memory, pick_device
from sftlab.planner import (
    GB,
    ArchitectureError,
    Memory,
    Preflight,
    Row,
    estimate,
    find_architecture,
    preflight,
    speed,
)
from sftlab.profiles import Profile
from sftlab.train.own_rows import OwnData
from sftlab.train.settings import SettingsError

CHECKPOINTS = 3
"""Checkpoints that are on the disk at once: two are kept, and the next one is written."""


def needs(data: OwnData, profile: Profile, *, folder: str | Path) -> Preflight:
    """The table for a training on `data` whose files go to `folder`.

    `require` of what is returned stops when something is missing, and says what to do.

    """
    settings = data.settings
    found = preflight(replace(profile, method=settings.method))
    try:
        planned = _plan(data, profile)
    except ArchitectureError:  # sizes that the planner can't build: the table's own guess stands
        return found
    other = [row for row in found.rows if row.what not in ("memory", "GPU memory", "time")]
    memory = _memory(data, profile, planned)
    return replace(found, rows=(*other, memory, _disk(planned, Path(folder)), _time(data, planned)))


def _plan(data: OwnData, profile: Profile, **changes) -> Memory:
    settings = data.settings
    used = [data.lengths[n] for n in data.split.train]
    longest = max(min(one.tokens, settings.max_length) for one in used)
    chosen = {
        "method": settings.method,
        "batch": min(settings.per_device_train_batch_size, len(used)),
        "length": max(longest, 2),
        "rank": settings.r,
        "precision": settings.dtype,
        "supervised": sum(one.learned for one in used) / data.tokens,
        "accumulation": settings.gradient_accumulation_steps,
        "checkpointing": settings.gradient_checkpointing,
        "prefix_tokens": settings.num_virtual_tokens,
        "trained_layers": settings.trained_layers,
    }
    return estimate(find_architecture(profile.source), **(chosen | changes))


def _memory(data: OwnData, profile: Profile, planned: Memory) -> Row:
    room = free_memory()
    return Row(
        what="GPU memory" if pick_device() == "cuda" else "memory",
        needed=f"about {_size(planned.needed)} (rows of {planned.step.length} tokens, "
        f"{planned.step.batch} at a time)",
        found=_size(room) + " free",
        ok=planned.needed <= room,
        remedy=_smaller(data, profile, room),
    )


def _smaller(data: OwnData, profile: Profile, room: float) -> str:
    """What would need less, each with its figure."""
    settings, told = data.settings, []
    whole = settings.per_device_train_batch_size * settings.gradient_accumulation_steps
    ways = {
        f"--set per_device_train_batch_size=1 --set gradient_accumulation_steps={whole}": {
            "batch": 1, "accumulation": whole,
        },
        "--set gradient_checkpointing=True": {"checkpointing": True},
        "--method lora": {"method": "lora"},
        "--method lora --set per_device_train_batch_size=1": {"method": "lora", "batch": 1},
        "--method qlora --set per_device_train_batch_size=1": {
            "method": "qlora", "batch": 1, "checkpointing": True,
        },
    }  # fmt: skip
    for words, change in ways.items():
        try:
            needed = _plan(data, profile, **change).needed
        except SettingsError:  # what does not go with the method is no way out
            continue
        told.append(f"{words} needs {_size(needed)}" + ("" if needed <= room else ", too much too"))
    return f"{'; '.join(told)}. Or close other programs, or take a smaller profile"


def _disk(planned: Memory, folder: Path) -> Row:
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    needed = planned.result + CHECKPOINTS * planned.checkpoint
    free = shutil.disk_usage(place).free
    return Row(
        what="disk",
        needed=f"{_size(needed)} (result {_size(planned.result)}, the rest while it trains)",
        found=f"{_size(free)} free for {folder}",
        ok=needed <= free,
        remedy="Give --out a folder on a larger disk, or train adapters (--method lora)",
    )


def _time(data: OwnData, planned: Memory) -> Row:
    pace = speed(planned)
    minutes = 60 * pace.hours(data.tokens * data.settings.num_train_epochs)
    shown = "under a minute" if minutes < 1 else f"about {minutes:,.0f} min"
    return Row(
        what="time",
        needed=f"{shown} for {data.steps:,} steps over {data.tokens:,} tokens",
        found=pace.source,
    )


def _size(count: float) -> str:
    return f"{count / GB:.1f} GB" if count >= 1e8 else f"{count / 1e6:.0f} MB"
