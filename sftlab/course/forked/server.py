"""The server: `python -m sftlab.course.forked.server SOCKET`, started and ended by `server()`.

It imports the libraries, then forks for each `launch.py` that connects, tells its exit code, and
kills it when its `launch.py` is gone. Its own end, when its standard input is closed, ends all.
"""

import atexit
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

from sftlab.course.execution import OFFLINE
from sftlab.train.sweep import ALL_CACHED
from sftlab.train.sweeps import forking

LIBRARIES = (
    *forking.LIBRARIES, "papermill.execute", "papermill.engines", "nbclient", "ipykernel.kernelapp",
    "ipykernel.ipkernel", "ipywidgets", "pandas", "scipy.stats", "matplotlib.figure",
    "matplotlib.backends.backend_agg",
)  # fmt: skip
INLINE = "module://matplotlib_inline.backend_inline"
"""What a kernel sets MPLBACKEND to; matplotlib reads it when it is imported."""
DIES_WITH_PARENT = 1
"""PR_SET_PDEATHSIG of prctl(2)."""
PATHS = os.environ.get("PYTHONPATH")
"""Where this process looks for modules, and a fork need not."""


def _paths(variable: str | None) -> list[str]:
    return [path for path in (variable or "").split(os.pathsep) if path]


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
    variables = {**os.environ, **OFFLINE, "OPENBLAS_NUM_THREADS": "1", "MPLBACKEND": INLINE}
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
                    pass_fds=[listener.fileno()], env=variables, start_new_session=True,
                )  # fmt: skip
        yield process and address
    finally:
        if process:
            process.stdin.close()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def serve(listener: socket.socket) -> None:
    """Fork for each connection, until standard input is closed."""
    for name in LIBRARIES:
        import_module(name)
    gc.freeze()  # the forks' searches for garbage leave out what they share
    open_connections: dict[int, socket.socket] = {}  # process id of the fork -> its launch.py
    while True:
        awaited = [sys.stdin, listener, *open_connections.values()]
        # Twenty times a second: has a fork ended?
        ready, _, _ = select.select(awaited, [], [], 0.05)
        if sys.stdin in ready:
            break
        if listener in ready:
            connection, _ = listener.accept()
            with suppress(OSError, ValueError):  # whoever wanted a fork is gone already
                _, descriptors, *_ = socket.recv_fds(connection, 1, 3)
                request = json.loads(connection.makefile("r").readline())
                sockets = [listener, connection, *open_connections.values()]
                pid = _fork(request, descriptors, sockets)
                open_connections[pid] = connection
                connection.sendall(f"{pid}\n".encode())
        for pid, connection in list(open_connections.items()):
            if connection in ready:  # it says nothing more: it is gone
                os.kill(pid, signal.SIGKILL)
            ended, status = os.waitpid(pid, 0 if connection in ready else os.WNOHANG)
            if ended:
                with suppress(OSError):
                    connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
                open_connections.pop(pid).close()
    for pid in open_connections:
        os.kill(pid, signal.SIGKILL)


def _fork(request: dict[str, Any], descriptors: list[int], sockets: list[socket.socket]) -> int:
    pid = os.fork()
    if pid:
        for descriptor in descriptors:
            os.close(descriptor)
        return pid
    code = 1
    try:
        ctypes.CDLL(None).prctl(DIES_WITH_PARENT, signal.SIGKILL)
        for one in sockets:
            one.close()
        code = _become(request, descriptors)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _become(request: dict[str, Any], descriptors: list[int]) -> int:
    """Be the process that `launch.py` was asked for; its exit code."""
    import torch

    os.setsid()
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["variables"])
    module, *arguments = request["arguments"]
    own = [path for path in sys.path[1:] if path not in _paths(PATHS)]
    sys.path[:] = [request["folder"], *_paths(os.environ.get("PYTHONPATH")), *own]
    if module == "ipykernel_launcher" and not os.environ.get(ALL_CACHED):
        forking.fork_server()
    if threads := os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(int(threads))  # libraries read it when they were imported
    for name in [name for name in sys.modules if name.partition(".")[0] == "sftlab"]:
        del sys.modules[name]  # the lab's code may have changed since
    sys.argv = ["", *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    finally:
        atexit._run_exitfuncs()
    return 0


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
