"""`python launch.py MODULE ARGUMENT...` does what `python -m MODULE ARGUMENT...` does, as a fork of
the server that the environment names; without one, it is that command.

    launch.py                              the server
      its arguments, folder, variables,
      standard input, output and error  ->
                                        <- process id of the fork
      SIGINT and SIGTERM go to the fork
                                        <- its exit code, when it has ended

A signal that comes before launch.py knows its fork ends both. A fork that a signal ended has the
exit code of a shell, 128 and more. When either side is gone, or whoever started launch.py, the fork
is killed. Nothing but the standard library is imported here, and by `-I -S` as little of it as can
be: this process is to begin at once.
"""

import json
import os
import select
import signal
import socket
import sys
from contextlib import suppress

ADDRESS = "SFTLAB_FORKS"
"""Environment variable: the socket of the server."""


def command(module: str, *arguments: str) -> list[str]:
    """The command that starts `module`, in the place of `python -m`."""
    if sys.platform != "linux":
        return [sys.executable, "-m", module, *arguments]
    return [sys.executable, "-I", "-S", __file__, module, *arguments]


def main(arguments: list[str]) -> int:
    parent = os.getppid()
    try:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(os.environ[ADDRESS])
        request = {"arguments": arguments, "folder": os.getcwd(), "variables": dict(os.environ)}
        socket.send_fds(connection, [b"."], [0, 1, 2])
        connection.sendall(json.dumps(request).encode() + b"\n")
        answers = connection.makefile("r")
        pid = int(answers.readline())
    except (KeyError, OSError, ValueError):
        if os.getppid() != parent:
            return 1
        os.execv(sys.executable, [sys.executable, "-m", *arguments])
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: pass_on(number, pid))
    while not select.select([connection], [], [], 1.0)[0]:
        if os.getppid() != parent:  # it was killed, and could not end what it had started
            return 1
    code = int(answers.readline() or 1)
    return code if code >= 0 else 128 - code


def pass_on(number: int, pid: int) -> None:
    """Send a signal to the fork and its own processes."""
    with suppress(ProcessLookupError):  # it has just ended
        os.killpg(pid, number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
