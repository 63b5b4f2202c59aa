"""What a profile needs against what this machine has, told before anything is loaded."""

import os
import shutil
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from sftlab.machine import free_memory, matrix_speed, pick_device
from sftlab.planner.footprint import memory_bytes
from sftlab.profiles import QUANTISED, Profile, find_profile, local_folder
from sftlab.weights import BrokenWeightsError, parameters_in, shape_in

GB = 1e9
REFERENCE_TOKENS = 26_000
"""Tokens of the reference fine-tune: 400 short examples, three epochs."""


class PreflightError(ValueError):
    """This machine can't run the profile; the message lists what to do."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One thing a profile needs."""

    what: str
    """Name of the thing."""
    needed: str
    """How much of it the profile needs."""
    found: str
    """How much of it this machine has."""
    ok: bool = True
    """Whether that is enough."""
    remedy: str = ""
    """What to do when it is not."""


@dataclass(frozen=True, kw_only=True)
class Preflight:
    """The answer of `preflight`: print it, or call `require` to stop when something is missing."""

    profile: Profile
    """The profile that was checked."""
    method: str
    """The training method that was assumed."""
    rows: tuple[Row, ...]
    """One row a thing."""

    @property
    def ok(self) -> bool:
        """Whether every row is satisfied."""
        return all(row.ok for row in self.rows)

    def require(self) -> "Preflight":
        """Return itself when all is well.

        Raises:
            PreflightError: something is missing; the message has each remedy.
        """
        if not self.ok:
            lacking = [row for row in self.rows if not row.ok]
            raise PreflightError(
                f"profile {self.profile.name!r} can't run here:\n"
                + "\n".join(
                    f"- {row.what}: needs {row.needed}, found {row.found}. {row.remedy}"
                    for row in lacking
                )
            )
        return self

    def __str__(self) -> str:
        table = [("", "what", "needed", "found")]
        table += [("ok" if row.ok else "NO", row.what, row.needed, row.found) for row in self.rows]
        widths = [max(len(line[column]) for line in table) for column in range(4)]
        lines = [f"profile {self.profile.name}, method {self.method}"]
        lines += ["  ".join(c.ljust(w) for c, w in zip(t, widths, strict=True)).rstrip()
                  for t in table]  # fmt: skip
        lines += [f"-> {row.what}: {row.remedy}" for row in self.rows if not row.ok]
        return "\n".join(lines)


def preflight(profile: str | Path | Profile, *, method: str | None = None) -> Preflight:
    """Compare what training a profile needs with what this machine has.

    Only a hub profile that is not in the cache asks the hub anything: whether it may be downloaded.

    Args:
        profile: a profile, its name, a model folder, or a hub id.
        method: one of `sftlab.profiles.METHODS`; by default the profile's own.

    Raises:
        UnknownProfileError: there is no such profile.
        ValueError: there is no such method.
    """
    profile = find_profile(profile)
    method = replace(profile, method=method or profile.method).method
    folder = local_folder(profile)
    count, shape = profile.parameters, profile.shape
    broken = None
    if folder:
        try:
            count = parameters_in(folder) or count
        except BrokenWeightsError as error:
            broken = Row(what="weights", needed=profile.source if profile.on_hub else folder.name,
                         found="broken", ok=False, remedy=str(error))  # fmt: skip
        shape = shape_in(folder) or shape
    rows = [_packages(method), broken or _weights(profile, folder)]
    if profile.on_hub:
        rows += [_disk(profile, folder), _network(profile, folder)]
    if profile.needs_gpu:
        rows.append(_gpu())
    if count and shape:
        rows.append(_memory(memory_bytes(count, shape, profile, method)))
        rows.append(_minutes(count, method))
    else:
        needed = "unknown until the weights are here"
        rows.append(Row(what="memory", needed=needed, found=_size(free_memory())))
    return Preflight(profile=profile, method=method, rows=tuple(rows))


def _size(count: float) -> str:
    return f"{count / GB:.1f} GB"


def _memory(needed: float) -> Row:
    room = free_memory()
    where = "GPU memory" if pick_device() == "cuda" else "memory"
    return Row(what=where, needed="about " + _size(needed), found=_size(room) + " free",
               ok=needed <= room, remedy="Close other programs, choose a smaller profile "
               "(tiny needs about 1 GB), train adapters (method='lora'), or use another machine"
               )  # fmt: skip


def _packages(method: str) -> Row:
    """Whether each package is there, in a version of the range that the course is written for."""
    names = ["torch", "transformers", "trl", "peft"] + ["bitsandbytes"] * (method in QUANTISED)
    wanted, wrong, found = _ranges(), [], []
    for name in names:
        try:
            installed = version(name)
        except PackageNotFoundError:
            installed = None
        right = installed and wanted.get(name, SpecifierSet()).contains(installed, prereleases=True)
        if not right:
            wrong.append(f"{name}{wanted.get(name, '')}")
            found.append(f"{name} {installed or 'missing'}")
    remedy = f"Run `pip install {' '.join(map(repr, wrong))}`, then start the kernel anew"
    return Row(
        what="packages",
        needed=", ".join(names),
        found=", ".join(found) or "all, in the right versions",
        ok=not wrong,
        remedy=remedy,
    )


def _ranges() -> dict[str, SpecifierSet]:
    """The ranges of pyproject.toml, from the installed package; none when run uninstalled."""
    try:
        lines = requires("sftlab") or []
    except PackageNotFoundError:
        return {}
    return {found.name: found.specifier for found in map(Requirement, lines)}


def _weights(profile: Profile, folder: Path | None) -> Row:
    if profile.on_hub:
        found = "in the cache" if folder else "on the hub, " + _size(profile.download_bytes)
        if not folder and not profile.download_bytes:
            found = "on the hub, size unknown"
        return Row(what="weights", needed=profile.source, found=found)
    ok = bool(folder and parameters_in(folder))
    return Row(what="weights", needed=Path(profile.source).name, found="here" if ok else "missing",
               ok=ok, remedy="Run `make base`, or clone the repository again" if profile.embedded
               else "A model folder needs config.json and *.safetensors")  # fmt: skip


def _disk(profile: Profile, folder: Path | None) -> Row:
    from huggingface_hub import constants

    place = Path(constants.HF_HUB_CACHE).expanduser()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    needed = 0 if folder else profile.download_bytes
    unknown = not folder and not needed
    return Row(what="disk", needed="unknown" if unknown else _size(needed),
               found=_size(free) + " free for the hub's cache", ok=free > 1.1 * needed,
               remedy="Free some space, or set HF_HOME to a larger disk before Python starts"
               )  # fmt: skip


def _network(profile: Profile, folder: Path | None) -> Row:
    if folder:
        return Row(what="network", needed="no", found="not used")
    from huggingface_hub import HfApi, errors

    row = Row(what="network", needed="yes, once", found="the hub answers", remedy="")
    try:
        HfApi().auth_check(profile.source)
    except errors.GatedRepoError:
        return replace(row, what="licence", needed="accepted, and a token", found="no access",
                       ok=False, remedy=f"Accept the licence on the page of {profile.source} on "
                       "the hub, then run `hf auth login`")  # fmt: skip
    except errors.RepositoryNotFoundError:
        return replace(row, found="no such model", ok=False, remedy="Check the spelling")
    except Exception as error:  # whatever the network raises means the same to the learner
        return replace(row, found=f"the hub can't be reached ({type(error).__name__})", ok=False,
                       remedy="Connect and unset HF_HUB_OFFLINE, or use the profile tiny"
                       )  # fmt: skip
    return row


def _gpu() -> Row:
    found = pick_device() == "cuda"
    return Row(what="GPU", needed="one with CUDA", found="yes" if found else "none", ok=found,
               remedy="Choose a GPU runtime, or a profile below 1B parameters")  # fmt: skip


def _minutes(count: int, method: str) -> Row:
    """Time of the reference fine-tune, from the speed of a matrix product measured now."""
    device = pick_device()
    # Measured on two cores: the reference fine-tune of the 3.7M model reaches 0.8 of that speed.
    # On a card small batches keep it waiting; 0.3 is an assumption.
    speed = matrix_speed(device) * (0.8 if device == "cpu" else 0.3)
    # Forward 2 operations a weight and token, backward 4, or 2 when the weights are frozen.
    minutes = REFERENCE_TOKENS * count * (6 if method in ("full", "gradual") else 4) / speed / 60
    shown = "under a minute" if minutes < 1 else f"about {minutes:.0f} min"
    return Row(what="time", needed=f"{shown} for 400 short examples x 3",
               found=f"{speed / 1e9:.0f} GFLOP/s on {device}, {os.cpu_count()} cores, timed now"
               )  # fmt: skip
