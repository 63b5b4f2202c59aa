"""The process in which one candidate runs. `code_eval` starts it; it imports nothing of the lab.

It reads one job from standard input and writes a line of JSON for each call, {"value": ...} or
{"error": ...}. What the calls should return never comes here.
"""

import builtins
import io
import json
import os
import shutil
import sys

try:
    import resource
except ImportError:  # Windows
    resource = None

# Files may be unreadable later, so what a small function may import is read now.
for name in ("collections", "datetime", "functools", "itertools", "math", "random", "re", "string"):
    __import__(name)

OUTPUT = 65536  # bytes that a candidate may return
NOBODY = 65534
MODULES = ("socket", "_socket", "subprocess", "_posixsubprocess", "multiprocessing", "ctypes",
           "_ctypes")  # fmt: skip
FUNCTIONS = {
    os: ("open", "remove", "unlink", "rmdir", "removedirs", "rename", "renames", "replace", "mkdir",
         "makedirs", "link", "symlink", "truncate", "chmod", "chown", "system", "popen", "fork",
         "forkpty", "posix_spawn", "posix_spawnp", "execv", "execve", "kill", "killpg"),
    shutil: ("rmtree", "move", "copyfile", "chown"),
}  # fmt: skip


def limit(seconds, size):
    """The system's limits on processor time, memory, files and processes, as far as it has them."""
    if hasattr(os, "getuid") and os.getuid() == 0:
        try:  # root may open every file, and limits of processes do not hold for it
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        except OSError:
            pass
    for name, most in (
        ("RLIMIT_CPU", seconds),
        ("RLIMIT_AS", size),
        ("RLIMIT_FSIZE", OUTPUT),
        ("RLIMIT_NOFILE", 16),
        ("RLIMIT_NPROC", 0),
        ("RLIMIT_CORE", 0),
    ):
        try:
            resource.setrlimit(getattr(resource, name), (most, most))
        except (AttributeError, ValueError, OSError):  # this system does not have it
            pass


def disarm():
    """Switch off what small functions never need, against accidents: a candidate can undo it."""

    def refuse(*_, **__):
        raise PermissionError("a candidate may not change files or start processes")

    def read_only(file, mode="r", *arguments, _open=io.open, **options):
        if isinstance(file, int) or set(mode) & set("wax+"):
            raise PermissionError(f"a candidate may not write {file!r}")
        return _open(file, mode, *arguments, **options)

    for module, names in FUNCTIONS.items():
        for name in names:
            if hasattr(module, name):
                setattr(module, name, refuse)
    builtins.open = io.open = read_only
    sys.modules.update(dict.fromkeys(MODULES))  # importing one of these now fails


def main():
    job = json.load(sys.stdin)
    output = os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):  # what a candidate prints goes nowhere
        os.dup2(nothing, stream)
    write, dumps = os.write, json.dumps
    limit(job["seconds"], job["bytes"])
    disarm()

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
