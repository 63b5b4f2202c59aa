"""The process in which one candidate runs. `code_eval` starts it; it imports nothing of the lab.

It reads one job from standard input and writes a line of JSON for each call, {"value": ...} or
{"error": ...}. What the calls should return never comes here.
"""

import json
import os
import sys

OUTPUT = 65536  # bytes that a candidate may return


def limit(seconds, size):
    """The system's limits on processor time, memory and output, as far as it has them."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        resource.setrlimit(resource.RLIMIT_FSIZE, (OUTPUT, OUTPUT))
        resource.setrlimit(resource.RLIMIT_AS, (size, size))
    except (ImportError, ValueError, OSError):
        pass  # Windows has none of them, macOS no limit of memory


def install_hook(readable):
    """An audit hook: Python asks it before it opens a file, starts a process, uses a socket, ...

    It has no name that a candidate could reach, and its tables are constants of its code.
    """
    own = os.name  # that of its module too, which would come back whole
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

    def refuse(event, arguments):
        first = arguments[0] if arguments else None
        if event == "open" and arguments[2] & writing:
            raise PermissionError(f"a candidate may not write {first!r}")
        if event in ("open", "os.listdir", "os.scandir"):
            if isinstance(first, bytes):
                first = bytes.decode(first, "utf-8", "replace")
            path = str.__str__(first) if isinstance(first, str) else "."  # or a number, or none
            absolute = path[:1] in ("/", "\\") or ":" in path
            if ".." in path or (absolute and not path.startswith(readable)):
                raise PermissionError(f"a candidate may not read {path!r}")
        elif event == "import" and first in {own, "_posixsubprocess", "_ctypes"}:
            raise PermissionError(f"a candidate may not use {first}")
        elif event.split(".")[0] in {
            "os", "shutil", "subprocess", "socket", "ctypes", "mmap", "sqlite3", "gc", "resource",
            "signal", "fcntl", "winreg", "_winapi", "msvcrt", "syslog", "cpython",
        } and event != "os.walk":  # fmt: skip
            raise PermissionError(f"a candidate may not use {event.removesuffix('.__new__')}")

    sys.addaudithook(refuse)


def main():
    job = json.load(sys.stdin)
    output = os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):  # what a candidate prints goes nowhere
        os.dup2(nothing, stream)
    write, leave, dumps = os.write, os._exit, json.dumps
    limit(job["seconds"], job["bytes"])
    sys.dont_write_bytecode = True
    install_hook((*sys.path, "/usr/share/zoneinfo"))

    def answer(**found):
        write(output, dumps(found).encode() + b"\n")

    def error(raised):
        answer(error=f"{type(raised).__name__}: {raised}"[:300])

    space = {"__name__": "candidate"}
    try:
        exec(compile(job["code"], "candidate", "exec"), space)
        function = space[job["name"]]
    except BaseException as raised:
        return error(raised)
    for arguments in job["calls"]:
        try:
            answer(value=function(*arguments))
        except BaseException as raised:
            error(raised)
    leave(0)  # without waiting for threads that a candidate started


if __name__ == "__main__":
    main()
