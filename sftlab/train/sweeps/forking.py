"""A server that imports the libraries once, and of which the processes of sweeps are forks.

    the lesson   --- starts --->   the server: torch, transformers, PEFT, TRL, and one thread
                                      |-- fork: a process, at work within a second
                                      `-- fork: another

A process that begins with nothing imports for 7 s, and each process its own copy. On Linux alone:
Windows can't fork, and what macOS's frameworks hold does not survive it. There `context` is `None`,
and each process imports for itself.
"""

import os
import sys
import threading
from contextlib import suppress
from multiprocessing import context as contexts
from multiprocessing import spawn
from typing import Any
from unittest import mock

LIBRARIES = (
    "torch", "datasets", "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto", "transformers.generation.utils", "peft",
    "trl.trainer.sft_trainer",
)  # fmt: skip
"""What takes seconds to import. None is the lab's: its code may change while the server lives."""
ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS")}
"""A library that has begun threads can't be forked."""


def start_server() -> None:
    """Let the server begin to import; returns at once, and does nothing when there is one.

    It ends with the process that started it.
    """
    if context is None:
        return
    from multiprocessing import forkserver

    forkserver.set_forkserver_preload(list(LIBRARIES))
    with mock.patch.dict(os.environ, ONE_THREAD):
        forkserver.ensure_running()


def ready(seconds: float) -> bool:
    """Whether the server can fork, after at most so many seconds; it answers nobody before.

    The wait can be interrupted, which that for a process to start can't be.
    """
    global _first
    if context is None:
        return True
    if _first is None:
        start_server()
        _first = threading.Thread(target=_fork_once, daemon=True)
        _first.start()
    _first.join(seconds)
    return not _first.is_alive()


_first: threading.Thread | None = None
"""Ends when the server has made its first fork."""


def _fork_once() -> None:
    process = context.Process(target=int)
    with suppress(OSError, EOFError):  # the server died: it is started again for the next process
        process.start()
        process.join()


def _preparation(name: str) -> dict[str, Any]:
    """Without the caller's script, which multiprocessing would run once more in each process."""
    return {key: value for key, value in _whole_preparation(name).items()
            if not key.startswith("init_main")}  # fmt: skip


_whole_preparation = spawn.get_preparation_data


if sys.platform == "linux":

    class _Process(contexts.ForkServerProcess):
        @staticmethod
        def _Popen(process):
            with mock.patch.object(spawn, "get_preparation_data", _preparation):
                return contexts.ForkServerProcess._Popen(process)

    class _Context(contexts.ForkServerContext):
        Process = _Process

    context = _Context()
else:
    context = None
