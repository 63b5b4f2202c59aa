"""What a fine-tune needs against what this machine has, before anything is loaded: a table of rows,
for a profile (`preflight`) or for the rows of a file (`needs`)."""

import shutil
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from sftlab.machine import cores, fast_precision, free_memory, pick_device
from sftlab.models import (
    QUANTISED,
    BrokenWeightsError,
    Profile,
    find_profile,
    local_folder,
    parameters_in,
)
from sftlab.planner.architectures import Architecture, ArchitectureError, find_architecture
from sftlab.planner.gpus import speed
from sftlab.planner.memory import Memory, PlanError, estimate

REFERENCE_TOKENS = 26_000  # of 400 short examples, three epochs
CHECKPOINTS = 3  # on the disk at once: two are kept, and the next one is written
BUSY = 0.25  # cores in use by others from which a note is made of it


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

    profile: Profile
    method: str
    rows: tuple[PreflightRow, ...]

    @property
    def ok(self) -> bool:
        """Whether every row is satisfied."""
        return all(row.ok for row in self.rows)

    def require(self) -> "Preflight":
        """Return itself when all is well; else raise PreflightError, which has each remedy."""
        if not self.ok:
            lines = [
                f"- {row.what}: needs {row.needed}, found {row.found}. {row.remedy}"
                for row in self.rows
                if not row.ok
            ]
            text = "\n".join([f"profile {self.profile.name!r} can't run here:", *lines])
            raise PreflightError(text)
        return self

    def __str__(self) -> str:
        table = [("", "what", "needed", "found")]
        table += [("ok" if row.ok else "NO", row.what, row.needed, row.found) for row in self.rows]
        widths = [max(len(line[column]) for line in table) for column in range(4)]
        lines = [f"profile {self.profile.name}, method {self.method}"]
        for line in table:
            cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
            lines.append("  ".join(cells).rstrip())
        lines += [f"-> {row.what}: {row.remedy}" for row in self.rows if not row.ok]
        return "\n".join(lines)


def preflight(profile: str | Path | Profile, *, method: str | None = None) -> Preflight:
    """Compare what training a profile needs with what this machine has.

    Memory is that of the largest batch, with the base that lessons keep to compare with. Only a hub
    profile that is not in the cache asks the hub anything: whether it may be downloaded. The method
    is the profile's own unless given. Raises UnknownProfileError where there is no such profile,
    ValueError where there is no such method.
    """
    profile = find_profile(profile)
    own, method = profile.method, replace(profile, method=method or profile.method).method
    folder = local_folder(profile)
    rows = [_packages(method), _weights(profile, folder)]
    if profile.on_hub:
        rows += [_disk_of_hub(profile, folder), _network(profile, folder)]
    if profile.needs_gpu:
        words, remedy = ("GPU", "one with CUDA"), "Choose a GPU runtime, or a smaller profile"
        found = pick_device() == "cuda"
        rows.append(PreflightRow(*words, "yes" if found else "none", found, remedy))
    here, busy = cores()
    others = f"{busy:.1f} busy with other programs: it will take longer" if busy > BUSY else "idle"
    rows.append(PreflightRow("cores", "1 or more", f"{here}, {others}"))
    try:
        if not (folder or profile.parameters):
            raise ArchitectureError("a hub model that is not here yet")
        sizes = find_architecture(profile.source)
        plan = estimate(
            sizes,
            method=method,
            per_device_train_batch_size=profile.per_device_train_batch_size,
            max_length=profile.max_length,
            bf16=fast_precision() == "bfloat16",
            gradient_checkpointing=method == "qlora",
        )
        needed = plan.needed + estimate(sizes, method=own).weights
    except (ArchitectureError, BrokenWeightsError):  # no sizes that the planner can build
        needed = "unknown" + ("" if folder else " until the weights are here")
        rows.append(PreflightRow("memory", needed, _size(free_memory())))
    else:
        remedy = (
            "Close other programs, choose a smaller profile (tiny needs about 2 GB), train "
            "adapters (method='lora'), or use another machine"
        )
        rows.append(_memory(needed, f"about {_size(needed)}", remedy))
        rows.append(_time(plan, REFERENCE_TOKENS, "400 short examples x 3"))
    return Preflight(profile=profile, method=method, rows=tuple(rows))


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
    try:
        sizes = find_architecture(profile.source)
    except ArchitectureError:  # sizes that the planner can't build
        return found
    plan = estimate(sizes, **chosen)
    words = f"about {_size(plan.needed)} (rows of {longest} tokens, {batch} at a time)"
    whole = settings.per_device_train_batch_size * settings.gradient_accumulation_steps
    rows = [row for row in found.rows if row.what not in ("memory", "GPU memory", "time")]
    rows.append(_memory(plan.needed, words, _smaller(sizes, chosen, whole)))
    disk = plan.result + CHECKPOINTS * plan.checkpoint
    words = f"{_size(disk)} (result {_size(plan.result)}, the rest while it trains)"
    remedy = "Give --out a folder on a larger disk, or train adapters (--method lora)"
    rows.append(_disk(disk, Path(folder).absolute(), words, f"for {folder}", remedy))
    work = f"{data.steps:,} steps over {data.tokens:,} tokens"
    rows.append(_time(plan, data.tokens * settings.num_train_epochs, work))
    return replace(found, rows=tuple(rows))


def _smaller(sizes: Architecture, chosen: dict[str, Any], whole: int) -> str:
    """What would need less than the chosen step, of `whole` examples, each with its figure."""
    single, one = "--set per_device_train_batch_size=1", {"per_device_train_batch_size": 1}
    again, lora = {"gradient_checkpointing": True}, {"method": "lora"}
    ways = {
        f"{single} --set gradient_accumulation_steps={whole}": one
        | {"gradient_accumulation_steps": whole},
        "--set gradient_checkpointing=True": again,
        "--method lora": lora,
        f"--method lora {single}": lora | one,
        f"--method qlora {single}": {"method": "qlora"} | one | again,
    }
    room, lines = free_memory(), []
    for words, change in ways.items():
        try:
            needed = estimate(sizes, **(chosen | change)).needed
        except PlanError:  # it does not go with the method
            continue
        lines.append(f"{words} needs {_size(needed)}" + ", too much too" * (needed > room))
    return f"{'; '.join(lines)}. Or close other programs, or take a smaller profile"


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 or not count else f"{count / 1e6:.0f} MB"


def _memory(needed: float, words: str, remedy: str) -> PreflightRow:
    room, what = free_memory(), "GPU memory" if pick_device() == "cuda" else "memory"
    return PreflightRow(what, words, f"{_size(room)} free", needed <= room, remedy)


def _time(plan: Memory, tokens: float, what: str) -> PreflightRow:
    pace = speed(plan)
    minutes = 60 * pace.hours(tokens)
    shown = "under a minute" if minutes < 1 else f"about {minutes:,.0f} min"
    found = f"{pace.tokens_per_second:,.3g} tokens a second, estimated now"
    return PreflightRow("time", f"{shown} for {what}", found)


def _disk(needed: float, place: Path, words: str, where: str, remedy: str) -> PreflightRow:
    there = next(folder for folder in (place, *place.parents) if folder.exists())
    free = shutil.disk_usage(there).free
    return PreflightRow("disk", words, f"{_size(free)} free {where}", needed <= free, remedy)


def _disk_of_hub(profile: Profile, folder: Path | None) -> PreflightRow:
    from huggingface_hub import constants

    needed = 0 if folder else profile.download_bytes
    words = _size(needed) if folder or needed else "unknown"
    remedy = "Free some space, or set HF_HOME to a larger disk before Python starts"
    place = Path(constants.HF_HUB_CACHE).expanduser()
    return _disk(1.1 * needed, place, words, "for the hub's cache", remedy)


def _packages(method: str) -> PreflightRow:
    """Whether each package is there, in a version of the range in pyproject.toml."""
    names = ["torch", "transformers", "trl", "peft"] + ["bitsandbytes"] * (method in QUANTISED)
    wrong, found, ranges = [], [], _ranges()
    for name in names:
        wanted = ranges.get(name, SpecifierSet())
        try:
            installed = version(name)
            fits = wanted.contains(installed, prereleases=True)
        except PackageNotFoundError:
            installed, fits = "missing", False
        if not fits:
            wrong.append(f"'{name}{wanted}'")
            found.append(f"{name} {installed}")
    found = ", ".join(found) or "all, in the right versions"
    remedy = f"Run `pip install {' '.join(wrong)}`, then restart the kernel"
    return PreflightRow("packages", ", ".join(names), found, not wrong, remedy)


def _ranges() -> dict[str, SpecifierSet]:
    try:
        lines = requires("sftlab") or []
    except PackageNotFoundError:  # run without being installed
        return {}
    return {found.name: found.specifier for found in map(Requirement, lines)}


def _weights(profile: Profile, folder: Path | None) -> PreflightRow:
    if profile.on_hub and not folder:
        size = _size(profile.download_bytes) if profile.download_bytes else "size unknown"
        return PreflightRow("weights", profile.source, f"on the hub, {size}")
    name = profile.source if profile.on_hub else Path(profile.source).name
    remedy = "A model folder needs config.json and *.safetensors"
    if profile.embedded:
        remedy = "Run `make base`, or clone the repository again"
    try:
        if folder and parameters_in(folder):
            return PreflightRow("weights", name, "in the cache" if profile.on_hub else "here")
    except BrokenWeightsError as error:
        return PreflightRow("weights", name, "broken", False, str(error))
    return PreflightRow("weights", name, "missing", False, remedy)


def _network(profile: Profile, folder: Path | None) -> PreflightRow:
    if folder:
        return PreflightRow("network", "no", "not used")
    from huggingface_hub import HfApi, errors

    once = ("network", "yes, once")
    try:
        HfApi().auth_check(profile.source)
    except errors.GatedRepoError:
        remedy = f"Accept the licence on the page of {profile.source} on the hub, then run "
        remedy += "`hf auth login`"
        return PreflightRow("licence", "accepted, and a token", "no access", False, remedy)
    except errors.RepositoryNotFoundError:
        return PreflightRow(*once, "no such model", False, "Check the spelling")
    except Exception as error:  # whatever the network raises means the same to the learner
        found = f"the hub can't be reached ({type(error).__name__})"
        remedy = "Connect and unset HF_HUB_OFFLINE, or use the profile tiny"
        return PreflightRow(*once, found, False, remedy)
    return PreflightRow(*once, "the hub answers")
