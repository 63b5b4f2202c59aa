"""The server: `python -m sftlab.course.forked.server DESCRIPTOR`, started and ended by `server()`.

It imports the libraries, then forks for each `launch.py` that connects to the socket DESCRIPTOR,
tells its exit code, and kills the fork when its `launch.py` is gone. It ends when its standard
input is closed, and with it all forks.
"""

import ctypes
import gc
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from sftlab.course.execution import OFFLINE, with_lab
from sftlab.course.light import import_jsonschema
from sftlab.sweeps import ALL_CACHED, forking

LIBRARIES = (
    *forking.LIBRARIES, "papermill.execute", "papermill.engines", "nbclient", "ipykernel.kernelapp",
    "ipykernel.ipkernel", "pandas", "scipy.stats", "matplotlib.figure",
    "matplotlib.backends.backend_agg",
)  # fmt: skip
INLINE = "module://matplotlib_inline.backend_inline"
"""What a kernel sets MPLBACKEND to; matplotlib reads it when it is imported."""
PATHS = os.environ.get("PYTHONPATH")
"""Where this process looks for modules, and a fork need not."""
DIES_WITH_PARENT = 1
"""PR_SET_PDEATHSIG of prctl(2)."""
PATIENCE = 5.0
"""Seconds in which a `launch.py` says what it wants, and meanwhile all others wait."""


@contextmanager
def server() -> Iterator[str | None]:
    """A server for as long as the block lasts; its address, `None` where processes can't be forks.

    Returns at once: whoever asks it before it has imported the libraries waits.
    """
    if forking.context is None:
        yield None
        return
    folder = tempfile.mkdtemp(prefix="sftlab-")  # nobody else's: mode 700
    address = str(Path(folder) / "forks")
    # OpenBLAS starts its threads when it is imported, and a process with threads is none to fork.
    own = {"MPLBACKEND": INLINE, **os.environ, **OFFLINE, "OPENBLAS_NUM_THREADS": "1"}
    process = None
    try:
        with suppress(OSError):  # too long a path, no socket of that kind: no server
            listener = socket.socket(socket.AF_UNIX)
            with listener:
                listener.bind(address)
                listener.listen()
                # A session of its own: Ctrl-C is for the caller, who then ends it.
                process = subprocess.Popen(
                    [sys.executable, "-m", __name__, str(listener.fileno())],
                    stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                    pass_fds=[listener.fileno()], env=with_lab(own), start_new_session=True,
                )  # fmt: skip
        yield process and address
    finally:
        if process:
            process.kill()  # while it imports it would hear nothing else
            process.wait()
            process.stdin.close()
        shutil.rmtree(folder, ignore_errors=True)


class _Stderr:
    """Standard error as it is when something is written.

    Libraries write their log to what they find when they are imported: here, that of the server.
    A kernel puts its own in that place, which shows in the notebook.
    """

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.__stderr__ if sys.stderr is self else sys.stderr, name)


Request = tuple[dict[str, Any], list[int]]
"""What `launch.py` asks for, and its standard input, output and error."""


def serve(listener: socket.socket) -> Request | None:
    """Fork for each connection, until standard input is closed.

    Returns in the forks, with what to do; in the server itself, `None` at its end.
    """
    sys.stderr = _Stderr()
    import_jsonschema()
    for name in LIBRARIES:
        import_module(name)
    sys.stderr = sys.__stderr__  # the libraries keep theirs
    gc.freeze()  # the forks' searches for garbage leave out what they share
    forks: dict[int, socket.socket] = {}  # process id -> the launch.py it stands for
    while True:
        # Twenty times a second: has a fork ended?
        ready, _, _ = select.select([sys.stdin, listener, *forks.values()], [], [], 0.05)
        if sys.stdin in ready:
            return None
        if listener in ready and (asked := _asked(listener)):
            connection, *request = asked
            try:
                pid = os.fork()
            except OSError:  # no memory for it: launch.py does without
                connection.close()
            else:
                if not pid:
                    for one in (listener, connection, *forks.values()):
                        one.close()
                    return tuple(request)
                forks[pid] = connection
                with suppress(OSError):
                    connection.sendall(f"{pid}\n".encode())
            for descriptor in request[1]:
                os.close(descriptor)
        for pid, connection in list(forks.items()):
            if gone := connection in ready:  # it says nothing more, so it has ended
                _kill(pid)
            ended, status = os.waitpid(pid, 0 if gone else os.WNOHANG)
            if ended:
                with suppress(OSError):
                    connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
                forks.pop(pid).close()


def _asked(listener: socket.socket) -> tuple[socket.socket, dict[str, Any], list[int]] | None:
    """A connection and what it asks for; `None` when it is gone before it has said so."""
    descriptors: list[int] = []
    try:
        connection, _ = listener.accept()
        connection.settimeout(PATIENCE)
        _, descriptors, *_ = socket.recv_fds(connection, 1, 3)
        with connection.makefile("r") as lines:
            return connection, json.loads(lines.readline()), descriptors
    except (OSError, ValueError):
        for descriptor in descriptors:
            os.close(descriptor)
        return None


def _kill(pid: int) -> None:
    """A fork and its own processes; or itself, when it has no group yet."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        os.kill(pid, signal.SIGKILL)


def become(request: dict[str, Any], descriptors: list[int]) -> None:
    """Be the process that `launch.py` was asked for."""
    import pandas
    import torch

    parent = os.getppid()
    ctypes.CDLL(None).prctl(DIES_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    os.setsid()
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["variables"])
    tempfile.tempdir = None  # asked of the environment anew
    module, *arguments = request["arguments"]
    here = [] if sys.flags.safe_path else [request["folder"]]
    own = [path for path in sys.path[len(here) :] if path not in _paths(PATHS)]
    sys.path[:] = [*here, *_paths(os.environ.get("PYTHONPATH")), *own]
    for name in [name for name in sys.modules if name.partition(".")[0] == "sftlab"]:
        del sys.modules[name]  # the lab's code may have changed since
    if module == "ipykernel_launcher":
        pandas.set_option("display.max_columns", 20)  # as it does itself, imported in a kernel
        if not os.environ.get(ALL_CACHED):
            forking.fork_server()
    # The libraries have read it already, and OpenMP's own list of numbers begins with that of use.
    threads = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    if threads.isdecimal():
        torch.set_num_threads(int(threads))
    sys.argv = ["", *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _paths(variable: str | None) -> list[str]:
    return [path for path in (variable or "").split(os.pathsep) if path]


if __name__ == "__main__":
    if asked := serve(socket.socket(fileno=int(sys.argv[1]))):
        become(*asked)
