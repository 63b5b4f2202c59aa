"""The process in which one candidate runs. `code_eval` starts it; it imports nothing of the lab.

It reads one job from standard input and writes a line of JSON for each call, {"value": ...} or
{"error": ...}. What the calls should return never comes here.
"""

import json
import os
import sys

OUTPUT = 65536  # bytes that a candidate may return
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
REFUSED = {"os", "shutil", "subprocess", "socket", "ctypes", "mmap", "sqlite3"}
READING = {"os.listdir", "os.scandir", "os.walk"}


def limit(seconds, size):
    """The system's limits on processor time, memory and output, as far as it has them."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        resource.setrlimit(resource.RLIMIT_FSIZE, (OUTPUT, OUTPUT))
        resource.setrlimit(resource.RLIMIT_AS, (size, size))
    except (ImportError, ValueError, OSError):
        pass  # Windows has none of them, macOS no limit of memory


def refuse(event, arguments):
    """An audit hook: Python asks it before it opens a file, starts a process, uses a socket, ..."""
    if event == "open" and arguments[2] & WRITING:
        raise PermissionError(f"a candidate may not write {arguments[0]!r}")
    if event.split(".")[0] in REFUSED and event not in READING:
        raise PermissionError(f"a candidate may not use {event.removesuffix('.__new__')}")


def main():
    job = json.load(sys.stdin)
    output = os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):  # what a candidate prints goes nowhere
        os.dup2(nothing, stream)
    write, dumps = os.write, json.dumps
    limit(job["seconds"], job["bytes"])
    sys.addaudithook(refuse)

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


if __name__ == "__main__":
    main()
