"""What of a machine and its libraries decides the numbers of a run."""

import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from sftlab.sweeps.forking import CARDS


def machine() -> dict[str, str]:
    """What of this machine decides the precision of a run, told without importing torch."""
    fast = {"avx512_bf16", "amx_bf16"}
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        flags = " ".join(sorted(fast & set(text.split())))
    except OSError:
        flags = platform.processor()
    cards = " ".join(file for file in CARDS if Path(file).exists())
    return {"kind": platform.machine(), "flags": flags, "cards": cards}


def versions() -> dict[str, str]:
    """The versions that decide the numbers of a run."""
    found = {"python": ".".join(map(str, sys.version_info[:2]))}
    for package in ("torch", "transformers", "trl", "peft"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "missing"
    return found
