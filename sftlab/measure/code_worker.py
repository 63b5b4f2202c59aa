"""Runs candidates, each in a process of its own: the program behind `code_running`, never imported.

It is started as `python -I -S code_worker.py`, alone in an empty folder, and imports nothing of the
lab. It takes one line of JSON, the jobs with their limits, and gives one line for each job.

    worker -- fork --> candidate: limits set, doors shut, then the code; results through a pipe
           -- waits, kills after the limit of time, compares results with what was expected

What was expected never reaches the candidate, so no candidate can say of itself that it is right.
"""

import ctypes
import json
import os
import select
import signal
import sys
import time

# What a small function may import is read beforehand: later the files may be out of reach.
for _name in (
    "collections",
    "datetime",
    "functools",
    "itertools",
    "math",
    "random",
    "re",
    "string",
):
    __import__(_name)
try:
    import resource
except ImportError:  # Windows
    resource = None

CLONE_NEWUSER, CLONE_NEWNET, CLONE_NEWIPC = 0x10000000, 0x40000000, 0x08000000
NO_NEW_PRIVILEGES = 38
LANDLOCK = (444, 446)  # create a ruleset, restrict myself: the same on all architectures
WRITING = 0b111_1111_1111_0010  # of Landlock's first fourteen rights and truncation: all that write
NOBODY = 65534
REFUSED = ("socket.", "subprocess.", "ctypes.", "os.system", "os.exec", "os.fork", "os.posix_spawn",
           "os.spawn", "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink",
           "os.truncate", "os.chmod", "os.chown", "os.kill", "os.killpg", "os.putenv", "shutil.",
           "signal.pthread_kill", "pty.spawn", "tempfile.")  # fmt: skip
OUTPUT = 65536  # bytes that a candidate may give back


def main():
    request = json.loads(sys.stdin.readline())
    doors = shut_network() if hasattr(os, "fork") else {"network": "refused by Python alone"}
    doors["processes"] = doors["memory"] = doors["files"] = "refused by Python alone"
    limits = request["limits"]
    print(json.dumps(probed(doors, limits)), flush=True)
    for job in request["jobs"]:
        print(json.dumps(forked(job, limits) if hasattr(os, "fork") else alone(job)), flush=True)


def libc():
    return ctypes.CDLL(None, use_errno=True)


def shut_network():
    """Leave for a network namespace that has no device; whoever is root becomes nobody."""
    if not sys.platform.startswith("linux"):
        return {"network": "refused by Python alone"}
    unshare, root = libc().unshare, os.getuid() == 0
    apart = root and unshare(CLONE_NEWNET | CLONE_NEWIPC) == 0
    if root:
        try:  # limits of processes do not hold for root, and most files are open to it
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        except OSError:
            pass
    apart = apart or unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWIPC) == 0
    return {"network": "none: a network namespace of its own" if apart
            else "refused by Python alone"}  # fmt: skip


def probed(doors, limits):
    """What holds the doors shut here, each tried out in a process that may fail at it."""
    if not hasattr(os, "fork"):
        return doors
    for name, attempt, held in (
        ("files", try_to_write, "none can be written: by the system"),
        ("processes", try_to_fork, "none can be begun: by the system"),
        ("memory", try_to_fill, "limited by the system"),
    ):
        if in_child(lambda attempt=attempt: attempt(limits), limits) == b"no":
            doors[name] = held
        elif name == "memory":
            doors[name] = "not limited here"
    return doors


def try_to_write(limits):
    try:
        os.close(os.open("trial", os.O_CREAT | os.O_WRONLY))
        return b"yes"
    except OSError:
        return b"no"


def try_to_fork(limits):
    try:
        if os.fork() == 0:
            os._exit(0)
        return b"yes"
    except OSError:
        return b"no"


def try_to_fill(limits):
    try:
        bytearray(2 * limits["bytes"])
        return b"yes"
    except MemoryError:
        return b"no"


def in_child(work, limits):
    """What a child under the system's limits alone writes into its pipe."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            limit(limits)
            os.write(writer, work())
        finally:
            os._exit(0)
    os.close(writer)
    try:
        return os.read(reader, 16) if select.select([reader], [], [], 10)[0] else b""
    finally:
        os.close(reader)
        stop(child)


def limit(limits):
    """The system's limits, as far as it has them; each only ever becomes narrower."""
    seconds = int(limits["seconds"]) + 1
    for name, most in (
        ("RLIMIT_CPU", seconds), ("RLIMIT_AS", limits["bytes"]), ("RLIMIT_FSIZE", 0),
        ("RLIMIT_NOFILE", 16), ("RLIMIT_NPROC", 0), ("RLIMIT_CORE", 0),
    ):  # fmt: skip
        try:
            resource.setrlimit(getattr(resource, name), (most, most))
        except (AttributeError, ValueError, OSError):  # this system has none of it
            pass
    if sys.platform.startswith("linux"):
        syscall = libc().syscall
        libc().prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0)
        version = syscall(LANDLOCK[0], None, 0, 1)
        if version >= 1:
            rights = WRITING if version >= 3 else WRITING & 0b01_1111_1111_0010
            if version == 2:
                rights = WRITING & 0b11_1111_1111_0010
            handled = ctypes.c_uint64(rights)
            ruleset = syscall(LANDLOCK[0], ctypes.byref(handled), 8, 0)
            if ruleset >= 0:
                syscall(LANDLOCK[1], ruleset, 0)
                os.close(ruleset)


def refuse(event, arguments):
    """Python's own doors: an audit hook, which nothing can remove."""
    if event == "open":
        mode, flags = arguments[1] or "", arguments[2] or 0
        if any(letter in mode for letter in "wax+") or flags & (os.O_WRONLY | os.O_RDWR):
            raise PermissionError(f"a candidate may not write {arguments[0]!r}")
    elif event.startswith(REFUSED) or (event == "import" and "ctypes" in arguments[0]):
        raise PermissionError(f"a candidate may not use {event}")


def forked(job, limits):
    """One job in a child; its verdict by what comes out of the pipe in time."""
    begun = time.monotonic()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            os.close(reader)
            nothing = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(nothing, stream)
            limit(limits)
            sys.addaudithook(refuse)
            tested(job, lambda line: os.write(writer, line))
        except BaseException:
            pass
        finally:
            os._exit(0)
    os.close(writer)
    text, late = b"", False
    while True:
        left = begun + limits["seconds"] - time.monotonic()
        if left <= 0 or not select.select([reader], [], [], left)[0]:
            late = True
            break
        part = os.read(reader, 8192)
        text += part
        if not part or len(text) > OUTPUT:
            break
    os.close(reader)
    signalled = stop(child)
    lines = text[:OUTPUT].decode("utf-8", "replace").splitlines()
    return judged(job, lines, late, signalled) | {"seconds": time.monotonic() - begun}


def stop(child):
    """Kill a child and all of its group; the signal it died of before, or 0."""
    died, status = os.waitpid(child, os.WNOHANG)
    for kill in (os.killpg, os.kill):
        try:
            kill(child, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
    if not died:
        # A child at its end has closed its pipe and may not have gone yet.
        _, status = os.waitpid(child, 0)
        return 0
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def alone(job):
    """Without fork: in this very process, which has this one job and is killed from outside."""
    begun, lines = time.monotonic(), []
    sys.addaudithook(refuse)
    tested(job, lambda line: lines.append(line.decode()))
    return judged(job, lines, False, 0) | {"seconds": time.monotonic() - begun}


def tested(job, write):
    """Run the code, then each call; a line of JSON for each result."""
    space = {"__name__": "candidate"}
    try:
        exec(compile(job["code"], "candidate", "exec"), space)
        function = space[job["name"]]
    except BaseException as error:
        write(json.dumps({"fault": f"{type(error).__name__}: {error}"[:300]}).encode() + b"\n")
        return
    for arguments in job["calls"]:
        try:
            line = json.dumps({"gave": function(*arguments)})
        except BaseException as error:
            line = json.dumps({"fault": f"{type(error).__name__}: {error}"[:300]})
        write(line.encode() + b"\n")


def judged(job, lines, late, signalled):
    gave = []
    for line in lines:
        try:
            gave.append(json.loads(line))
        except ValueError:
            gave.append({"fault": "gave what can't be read"})
    gave = [one if isinstance(one, dict) else {"fault": "gave what can't be read"} for one in gave]
    missing = [{"fault": ""}] * (len(job["expected"]) - len(gave))
    passed = [
        "gave" in one and same(one["gave"], right)
        for one, right in zip([*gave, *missing], job["expected"], strict=False)
    ]
    fault = next((one["fault"] for one in gave if "fault" in one), "")
    if late:
        fault = "TimeLimit: not done in time"
    elif len(gave) < len(job["expected"]) and not fault:
        fault = f"Died: killed by signal {signalled}" if signalled else "Died: ended early"
    elif not fault and not all(passed):
        first = passed.index(False)
        fault = f"WrongResult: call {first} gave {gave[first].get('gave')!r}"[:300]
    return {"passed": bool(passed) and all(passed) and not late, "fault": fault}


def same(gave, right):
    """Equal in type too, since True is 1 in Python; a whole float may stand for its integer."""
    if isinstance(gave, bool) or isinstance(right, bool):
        return gave is right
    if isinstance(gave, list) and isinstance(right, list):
        return len(gave) == len(right) and all(map(same, gave, right))
    return gave == right


if __name__ == "__main__":
    main()
