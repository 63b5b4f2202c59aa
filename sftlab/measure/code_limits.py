"""What a candidate's process may do: the system's limits, and doors that Python itself shuts.

Loaded by `code_worker.py`, which runs without the lab; so it imports nothing of the lab either.
What holds here is tried out (`probed`), since systems differ in what they can limit.
"""

import ctypes
import os
import select
import signal
import sys

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
