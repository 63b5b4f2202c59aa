"""Runs candidates, each in a process of its own: the program behind `code_running`, never imported.

It is started as `python -I -S code_worker.py`, alone in an empty folder, and imports of the lab its
neighbour `code_limits.py` alone. It takes one line of JSON, the jobs with their limits, and gives
one line for each job.

    worker -- fork --> candidate: limits set, doors shut, then the code; results through a pipe
           -- waits, kills after the limit of time, compares results with what was expected

What was expected never reaches the candidate, so no candidate can say of itself that it is right.
"""

import importlib.util
import json
import os
import select
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
# By its path: a candidate must not find the lab's other files.
_neighbour = importlib.util.spec_from_file_location(
    "code_limits", os.path.join(os.path.dirname(__file__), "code_limits.py")
)
guard = importlib.util.module_from_spec(_neighbour)
_neighbour.loader.exec_module(guard)

OUTPUT = 65536  # bytes that a candidate may give back


def main():
    request = json.loads(sys.stdin.readline())
    doors = guard.shut_network() if hasattr(os, "fork") else {"network": "refused by Python alone"}
    doors["processes"] = doors["memory"] = doors["files"] = "refused by Python alone"
    limits = request["limits"]
    print(json.dumps(guard.probed(doors, limits)), flush=True)
    for job in request["jobs"]:
        print(json.dumps(forked(job, limits) if hasattr(os, "fork") else alone(job)), flush=True)


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
            guard.limit(limits)
            sys.addaudithook(guard.refuse)
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
    signalled = guard.stop(child)
    lines = text[:OUTPUT].decode("utf-8", "replace").splitlines()
    return judged(job, lines, late, signalled) | {"seconds": time.monotonic() - begun}


def alone(job):
    """Without fork: in this very process, which has this one job and is killed from outside."""
    begun, lines = time.monotonic(), []
    sys.addaudithook(guard.refuse)
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
