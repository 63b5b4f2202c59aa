"""What a measured number depends on besides the lesson: the machine and the versions."""

import importlib.metadata
import os
import platform
from functools import cache
from pathlib import Path
from typing import Any


def machine() -> dict[str, Any]:
    """System, processor, cores and memory in GiB; `None` where the platform does not say."""
    processor = platform.processor() or None
    if Path("/proc/cpuinfo").is_file():
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                processor = line.partition(":")[2].strip()
                break
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        memory = None
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor,
        "cores": os.cpu_count(),
        "memory_gib": round(memory, 1) if memory else None,
    }


def versions() -> dict[str, str]:
    """Versions of what decides the numbers; a package that is not installed is left out."""
    return dict(_versions())


@cache
def _versions() -> dict[str, str]:
    names = ("sftlab", "torch", "transformers", "trl", "peft", "bitsandbytes", "datasets")
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
