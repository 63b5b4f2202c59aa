"""What this machine has: a device, free memory, speed."""

import sys
import time
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TextIO

CGROUP = Path("/sys/fs/cgroup")
"""Where Linux says what a container may take."""
SMALL = 20_000_000
"""Weights up to which one thread is the better choice (see `choose_threads`)."""


class MissingExtra(ValueError):
    """A library that the core does without is not installed; the message has the command."""


def import_extra(library: str, *, extra: str = "serve") -> ModuleType:
    """A library of one of the lab's extras, imported."""
    try:
        return import_module(library)
    except ImportError as error:
        raise MissingExtra(
            f"{library} is not installed ({error}); get it with the extra: "
            f'pip install "sftlab[{extra}]"'
        ) from error


def pick_device() -> str:
    """`cuda` when torch sees such a GPU, else `cpu`."""
    import torch

    # Apple's mps is left out on purpose: the small models gain nothing there, and the same seed
    # would no longer give the same weights as on everyone else's processor.
    return "cuda" if torch.cuda.is_available() else "cpu"


def processes():
    """accelerate's `PartialState`, with `num_processes` and `is_main_process`: of those that train
    one model together, started by `torchrun`; any other program is one process, and the main one.
    """
    from accelerate import PartialState

    return PartialState(cpu=pick_device() == "cpu")


def fast_precision() -> str:
    """`bfloat16` where the device multiplies matrices of that type in hardware, else `float32`."""
    import torch

    if pick_device() == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(False) else "float32"
    # Without these instructions oneDNN imitates them, slower than float32.
    found = getattr(torch.cpu, "get_capabilities", dict)()  # an older torch can't say: float32
    return "bfloat16" if found.get("avx512_bf16") or found.get("amx_bf16") else "float32"


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, to use it again.

    glibc gives large tensors back to the system, which clears each page anew: a fifth of a step of
    the tiny model, measured on virtual machines. Elsewhere nothing changes.
    """
    import ctypes
    import platform

    trim, top, large = -1, -2, -3  # malloc.h
    if platform.libc_ver()[0] == "glibc":
        for option, most in ((large, 2**30), (trim, 2**30), (top, 2**26)):
            ctypes.CDLL(None).mallopt(option, most)


def choose_threads(parameters: int | None) -> None:
    """Compute a small model on one thread, any other on as many as torch took when it started.

    Threads of a small model mostly wait, and spin: beside two busy programs on two cores a
    fine-tune of `tiny` took ten times as long on two threads as on one (benchmarks/neighbours.py).
    One thread also gives the same numbers whatever the number of cores.
    """
    import torch

    most = _threads_at_start()  # asked for in any case, before it is changed
    torch.set_num_threads(1 if parameters and parameters <= SMALL else most)


@cache
def _threads_at_start() -> int:
    import torch

    return torch.get_num_threads()


def progress_stream() -> TextIO:
    """Where a progress bar goes: stderr, but stdout in a notebook, where stderr is painted red."""
    # Imported is not running: libraries import ipykernel in programs that are no notebook.
    kernel = sys.modules.get("ipykernel.kernelapp")
    return sys.stdout if kernel and kernel.IPKernelApp.initialized() else sys.stderr


def free_memory() -> float:
    """Free bytes of the GPU, or of the memory that this process may still take."""
    if pick_device() == "cuda":
        import torch

        return torch.cuda.mem_get_info()[0]
    return free_ram()


def free_ram() -> float:
    """Free bytes of the memory that this process may still take, beside a GPU's."""
    import psutil

    free = psutil.virtual_memory().available
    with suppress(OSError, ValueError):  # no container, or its limit is the word `max`
        limit, used = (int((CGROUP / f"memory.{k}").read_bytes()) for k in ("max", "current"))
        # What is used counts the files that the kernel caches and drops when memory gets short:
        # after reading a few large files almost nothing would seem left.
        stat = dict(map(str.split, (CGROUP / "memory.stat").read_text("utf-8").splitlines()))
        cached = int(stat["inactive_file"]) + int(stat["active_file"])
        free = min(free, limit - used + cached)
    return free


def matrix_speed(device: str) -> float:
    """Operations a second of a float32 matrix multiplication of side 1024, the best of four."""
    import torch

    a = torch.ones(1024, 1024, device=device)
    seconds = []
    for _ in range(4):  # the first warms up
        start = time.perf_counter()
        (a @ a).sum().item()
        seconds.append(time.perf_counter() - start)
    return 2 * 1024**3 / min(seconds)
