"""A server that imports the libraries once, and of which the processes of sweeps are forks.

    the lesson   --- starts --->   the server: torch, transformers, PEFT, TRL
                                      |-- fork: a process, at work within a second
                                      `-- fork: another

A process that begins with nothing imports for 7 s, and holds a copy of 0.5 GB of its own. The
server holds one for all, as long as the lesson's kernel lives. Only on Linux, and without a card:
Windows can't fork, what macOS's frameworks hold does not survive it, and a fork can't use a card
that bitsandbytes opened in the server. Elsewhere `context` is `None`, and each process imports for
itself.
"""

import os
import sys
import threading
from contextlib import suppress
from multiprocessing import context as contexts
from multiprocessing import spawn
from pathlib import Path
from typing import Any

LIBRARIES = (
    "sftlab.hushed", "torch", "datasets", "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto", "transformers.generation.utils", "peft",
    "trl.trainer.sft_trainer",
)  # fmt: skip
"""What takes seconds to import. Of the lab's only the first, which silences what the others then
say: all else of it may change while the server lives."""
ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS")}
"""A process that computes in several threads can't be forked, nor need a process of a sweep."""
CARDS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
"""What Linux shows of a card by NVIDIA, by AMD, and under Windows. To ask torch, it would have to
be imported."""

_forked = threading.Event()
"""The server has answered: it can fork."""
_asking: threading.Thread | None = None
_here = threading.local()


def start_server() -> None:
    """Let the server begin to import; returns at once, and does nothing when there is one.

    It ends with the process that started it, or when its import is done, if that is later. What
    libraries read of the environment when they are imported, such as HF_HUB_OFFLINE, stays.
    """
    if context is None:
        return
    from multiprocessing import forkserver

    before = {name: os.environ.get(name) for name in ONE_THREAD}
    try:
        forkserver.set_forkserver_preload(list(LIBRARIES))
        os.environ.update(ONE_THREAD)
        forkserver.ensure_running()
    except OSError:  # no room for its socket; or this process is itself a fork
        give_up()
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def fork_server() -> None:
    """Let the server be a fork of this process, which has the libraries and no threads.

    Otherwise like `start_server`, which finds it running.
    """
    from multiprocessing import forkserver, resource_tracker, util

    def fork(_path: bytes, arguments: list, descriptors: list[int]) -> int:
        pid = os.fork()
        if not pid:
            try:
                for descriptor in map(int, os.listdir("/proc/self/fd")):
                    if descriptor > 2 and descriptor not in descriptors:
                        with suppress(OSError):
                            os.close(descriptor)
                # The caller holds it just now, and nobody here would give it back.
                forkserver._forkserver._lock = threading.Lock()
                # What `python -c` would run: the server's loop.
                exec(arguments[arguments.index("-c") + 1], {})
            finally:
                os._exit(1)
        return pid

    resource_tracker.ensure_running()
    before = util.spawnv_passfds
    util.spawnv_passfds = fork
    try:
        start_server()
    finally:
        util.spawnv_passfds = before


def give_up() -> None:
    """From now on each process imports for itself."""
    global context
    context = None


def ready(seconds: float) -> bool:
    """Whether the server can fork, after at most so many seconds; it answers nobody before.

    This wait can be interrupted; that for a process to start can't be.
    """
    global _asking
    if context is None:
        return True
    if _asking is None:
        thread = threading.Thread(target=_fork_once, daemon=True)
        thread.start()
        _asking = thread
    return _forked.wait(seconds)


def _fork_once() -> None:
    try:
        process = context.Process(target=int)
        with suppress(OSError, EOFError):  # it died; whoever wants a process next will be told
            process.start()
            process.join()
    finally:
        _forked.set()


def _preparation(name: str) -> dict[str, Any]:
    """What multiprocessing tells a new process; to ours nothing of the caller's script, which would
    be run once more in each of them."""
    found = _whole_preparation(name)
    if getattr(_here, "starts_process", False):
        found = {key: value for key, value in found.items() if not key.startswith("init_main")}
    return found


_whole_preparation = spawn.get_preparation_data

context: Any = None
"""For loky, where its processes come from; `None` where it starts them itself."""

if sys.platform == "linux":

    class _Process(contexts.ForkServerProcess):
        @staticmethod
        def _Popen(process):
            start_server()
            _here.starts_process = True
            try:
                return contexts.ForkServerProcess._Popen(process)
            finally:
                _here.starts_process = False

    class _Context(contexts.ForkServerContext):
        Process = _Process

    spawn.get_preparation_data = _preparation
    if not any(Path(file).exists() for file in CARDS):
        context = _Context()
