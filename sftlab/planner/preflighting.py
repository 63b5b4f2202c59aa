"""What a fine-tune needs against what this machine has, before anything is loaded: a table of rows,
for a profile (`preflight`) or for the rows of a file (`needs`)."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from huggingface_hub.constants import HF_HUB_CACHE

from sftlab.machine import fast_precision, free_memory, pick_device
from sftlab.planner.architectures import ArchitectureError, find_architecture
from sftlab.planner.gpus import Speed, speed
from sftlab.planner.memory import estimate
from sftlab.profiles import Profile, WrongModelError, find_profile, local_folder, parameters_in

REFERENCE_TOKENS = 26_000  # of 400 short examples, three epochs
CHECKPOINTS = 3  # on the disk at once: two are kept, and the next one is written


class PreflightError(ValueError):
    """This machine can't run the profile; the message lists what to do."""


@dataclass(frozen=True)
class PreflightRow:
    """One thing that is needed, and what to do when it is not there."""

    what: str
    needed: str
    found: str
    ok: bool = True
    remedy: str = ""


@dataclass(frozen=True, kw_only=True)
class Preflight:
    """The answer of `preflight`: print it, or call `require` to stop when something is missing."""

    profile: Profile  # with the method
    rows: tuple[PreflightRow, ...]
    tokens_per_second: float | None = None  # trained, as timed now; None: of unknown sizes

    @property
    def ok(self) -> bool:
        """Whether every row is satisfied."""
        return all(row.ok for row in self.rows)

    def require(self) -> "Preflight":
        """Return itself when all is well; else raise PreflightError, with the table."""
        if not self.ok:
            raise PreflightError(f"profile {self.profile.name!r} can't run here:\n{self}")
        return self

    def __str__(self) -> str:
        table = [("", "what", "needed", "found")]
        table += [("ok" if row.ok else "NO", row.what, row.needed, row.found) for row in self.rows]
        widths = [max(len(line[column]) for line in table) for column in range(4)]
        lines = [f"profile {self.profile.name}, method {self.profile.method}"]
        for line in table:
            cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
            lines.append("  ".join(cells).rstrip())
        lines += [f"-> {row.what}: {row.remedy}" for row in self.rows if not row.ok]
        return "\n".join(lines)


def preflight(profile: str | Path | Profile, *, method: str | None = None) -> Preflight:
    """Compare what training a profile needs with what this machine has.

    Memory is that of the largest batch, with the base that lessons keep to compare with. Of a hub
    id that neither the course nor the cache knows, config.json is fetched. The method is the
    profile's own unless given. Raises UnknownProfileError where there is no such profile,
    ValueError where there is no such method or the weights are damaged.
    """
    profile = find_profile(profile)
    own, profile = profile.method, replace(profile, method=method or profile.method)
    folder = local_folder(profile)
    absent = "on the hub, to be downloaded once" if profile.on_hub else "missing"
    weighed = folder is not None and parameters_in(folder) is not None  # or says what is damaged
    found, there = "here" if weighed else absent, weighed or (profile.on_hub and folder is None)
    remedy = "A model's folder needs config.json, *.safetensors and a tokenizer"
    if profile.embedded:
        remedy = "Run `make base`, or clone the repository again"
    elif profile.fetched:
        remedy = "Fetch them once with `make real`, in a clone of the course"
    rows = [PreflightRow("weights", Path(profile.source).name, found, there, remedy)]
    if (needed := profile.download_bytes) and not folder and profile.on_hub:
        remedy = "Free some space, or set HF_HOME to a larger disk before Python starts"
        rows.append(_disk(1.1 * needed, Path(HF_HUB_CACHE), _size(needed), remedy))
    if profile.needs_gpu:
        device, remedy = pick_device(), "Choose a GPU runtime, or a smaller profile"
        rows.append(PreflightRow("GPU", "one with CUDA", device, device == "cuda", remedy))
    pace = None
    try:
        sizes = find_architecture(profile.source)
        plan = estimate(
            sizes,
            method=profile.method,
            per_device_train_batch_size=profile.per_device_train_batch_size,
            max_length=profile.max_length,
            bf16=fast_precision() == "bfloat16",
            gradient_checkpointing=profile.method == "qlora",
        )
        needed = plan.needed + estimate(sizes, method=own).weights
    except ArchitectureError as error:
        if isinstance(why := error.__cause__, WrongModelError):
            rows.append(PreflightRow("kind", "a causal model", "another", False, str(why)))
        else:  # no sizes that the planner can build
            rows.append(PreflightRow("memory", "unknown", _size(free_memory())))
    else:
        rows.append(_memory(needed, f"about {_size(needed)}", "train adapters (method='lora')"))
        pace = speed(plan)
        rows.append(_time(pace, REFERENCE_TOKENS, "400 short examples x 3"))
    fast = pace and pace.tokens_per_second
    return Preflight(profile=profile, rows=tuple(rows), tokens_per_second=fast)


def needs(data: Any, profile: Profile, *, folder: str | Path) -> Preflight:
    """The table for a training on the rows of a file: the longest decide memory, all of them time.

    `data` is what `sftlab.train.prepare` made of it; the training's files go to `folder`.
    """
    settings = data.settings
    found = preflight(replace(profile, method=settings.method))
    used = [data.lengths[n] for n in data.split.train]
    batch = min(settings.per_device_train_batch_size, len(used))
    longest = max(2, *(min(one.tokens, settings.max_length) for one in used))
    names = ("method", "r", "bf16", "gradient_accumulation_steps", "gradient_checkpointing")
    names += ("num_virtual_tokens", "trained_layers")
    chosen = {name: getattr(settings, name) for name in names}
    chosen |= {"per_device_train_batch_size": batch, "max_length": longest}
    chosen |= {"supervised": sum(one.learned for one in used) / data.tokens}
    plan = estimate(profile.source, **chosen)
    words = f"about {_size(plan.needed)} (rows of {longest} tokens, {batch} at a time)"
    remedy = "add --method lora, --set per_device_train_batch_size=1 or --set "
    remedy += "gradient_checkpointing=True (`sftlab plan` says what each needs)"
    rows = [row for row in found.rows if row.what not in ("memory", "GPU memory", "time")]
    rows.append(_memory(plan.needed, words, remedy))
    disk = plan.result + CHECKPOINTS * plan.checkpoint
    words = f"{_size(disk)} (result {_size(plan.result)}, the rest while it trains)"
    remedy = "Give --out a folder on a larger disk, or train adapters (--method lora)"
    rows.append(_disk(disk, Path(folder).absolute(), words, remedy))
    work = f"{data.steps:,} steps over {data.tokens:,} tokens"
    rows.append(_time(speed(plan), data.tokens * settings.num_train_epochs, work))
    return replace(found, rows=tuple(rows))


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 or not count else f"{count / 1e6:.0f} MB"


def _memory(needed: float, words: str, remedy: str) -> PreflightRow:
    room, what = free_memory(), "GPU memory" if pick_device() == "cuda" else "memory"
    remedy = f"Close other programs, {remedy}, take a smaller profile, or another machine"
    return PreflightRow(what, words, f"{_size(room)} free", needed <= room, remedy)


def _time(pace: Speed, tokens: float, what: str) -> PreflightRow:
    shown = f"about {60 * pace.hours(tokens):,.1f} min"
    found = f"{pace.tokens_per_second:,.3g} tokens a second, estimated now"
    return PreflightRow("time", f"{shown} for {what}", found)


def _disk(needed: float, place: Path, words: str, remedy: str) -> PreflightRow:
    there = next(folder for folder in (place, *place.parents) if folder.exists())
    free = shutil.disk_usage(there).free
    return PreflightRow("disk", words, f"{_size(free)} free for {place}", needed <= free, remedy)
