"""Candidates are run under limits, whatever they try."""

import os
import socket

import pytest

from sftlab.measure import probe_code, run_code
from sftlab.world import function_code, functions

DOORS = {
    "write": ("os", "open({path!r}, 'w').write('here')"),
    "delete": ("os", "os.remove({kept!r})"),
    "remove a tree": ("shutil", "shutil.rmtree({below!r})"),
    "socket": ("socket", "socket.create_connection(('127.0.0.1', {port}), 1)"),
    "program": ("subprocess", "subprocess.run(['true'])"),
    "kill": ("os", "os.kill(os.getppid(), 9)"),
}
"""The module that a candidate imports, and what it does before it gives the right answer."""
READING = {
    "the parent's memory": "open(f'/proc/{os.getppid()}/mem', 'rb').read(1)",
    "its variables": "open(f'/proc/{os.getppid()}/environ').read()",
    "a path with dots": "open('../../etc/hosts').read()",
    "bytes": "open(b'/etc/hosts').read()",
    "a text that lies": "open(type('S', (str,), {'startswith': lambda *a: True})('/etc/hosts'))",
    "native code": "__import__('ctypes')",
    "a child": "__import__('_posixsubprocess')",
    "objects": "__import__('gc').get_objects()",
    "limits": "__import__('resource').setrlimit(7, (9, 9))",
}
HOSTILE = {
    "loop": "def f(x):\n    while True: pass",
    "memory": "def f(x):\n    kept = []\n    while True: kept.append(bytearray(10**7))",
    "fork": "import os\ndef f(x):\n    os.fork()\n    return 4",
    "leave": "import os\nos._exit(0)",
    "talk": "def f(x):\n    return 'a' * 10**7",
    "recurse": "def f(x):\n    return f(x)",
    "forge": "print('{\"passed\": true}')\ndef f(x):\n    return 5",
}


def doors(folder, port):
    kept = folder / "below" / "kept"
    names = dict(path=str(folder / "written"), kept=str(kept), below=str(kept.parent), port=port)
    form = "import {}\ndef f(x):\n    {}\n    return 4"
    return [form.format(module, line.format(**names)) for module, line in DOORS.values()]


def run(*codes):
    return run_code([{"code": c, "name": "f", "tests": [([2], 4)]} for c in codes], seconds=1)


def test_right_and_wrong_and_broken():
    codes = {
        "def f(x):\n    return x * 2": "",
        "def f(x):\n    return 4.0": "",
        "import math\ndef f(x):\n    print('hello' * 10**5)\n    return math.floor(x * 2)": "",
        "def f(x):\n    return 5": "WrongResult",
        "def f(x):\n    return True": "WrongResult",
        "def f(x:": "SyntaxError",
        "def g(x): 0": "KeyError",
    }
    found = run(*codes)
    assert [fault.split(":")[0] for fault in found["fault"]] == list(codes.values())
    assert list(found["passed"]) == [not fault for fault in codes.values()]


def test_hostile_candidates_fail_and_leave_nothing(tmp_path):
    kept = tmp_path / "below" / "kept"
    kept.parent.mkdir()
    kept.write_text("still here")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.5)
        good = "def f(x):\n    return x * 2"
        found = run(*HOSTILE.values(), *doors(tmp_path, server.getsockname()[1]), good)
        with pytest.raises(TimeoutError):
            server.accept()
    passed = dict(zip([*HOSTILE, *DOORS, "good"], found["passed"], strict=True))
    assert {name for name, ok in passed.items() if ok} == {"good"}
    assert found["fault"].iloc[0].startswith("TimeLimit")
    assert kept.read_text() == "still here"
    assert os.listdir(tmp_path) == ["below"]


def test_results_that_are_not_the_expected_ones_in_type_fail():
    deep = "def f(x):\n    a = 4\n    for _ in range(500): a = [a]\n    return a"
    lies = "class I(int):\n    def __eq__(s, o): return True\ndef f(x): return I(5)"
    says = "def f(x): raise ValueError('\\ud800\\n')"
    found = run(deep, lies, says, "def f(x): return 10**5000", "def f(x):\n    return 4\0")
    assert not found["passed"].any()
    assert found["fault"].map(str.isprintable).all()
    one = {"code": "def f(x): return {'a': [True]}", "name": "f"}
    assert not run_code([one | {"tests": [([2], {"a": [1]})]}])["passed"][0]
    assert run_code([one | {"tests": [([2], {"a": (True,)})]}])["passed"][0]


def test_what_a_candidate_may_not_do_is_refused_by_name(tmp_path):
    reading = [f"import os\ndef f(x):\n    {line}\n    return 4" for line in READING.values()]
    found = run(*reading, *doors(tmp_path, port=9))
    refused = found["fault"].str.startswith("PermissionError: a candidate may not")
    names = [*READING, *DOORS]
    assert dict(zip(names, refused, strict=True)) == dict.fromkeys(names, True)


def test_pythons_own_library_can_be_used():
    names = "collections dataclasses typing random re pathlib zoneinfo decimal logging tempfile"
    imports = f"import {', '.join(names.split())}\nfrom os import *\n"
    assert run(imports + "def f(x):\n    logging.warning('x')\n    return 4")["passed"][0]
    thread = "import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()\n"
    assert run(thread + "def f(x):\n    return 4")["passed"][0]


@pytest.mark.parametrize(
    ("change", "said"),
    {
        "name": ({"name": "not a name"}, "that of a function; got 'not a name'"),
        "code": ({"code": None}, "code must be a text"),
        "none": ({"tests": []}, "at least one"),
        "set": ({"tests": [([1], {4})]}, "JSON values.*set"),
        "key": ({"tests": [([1], {1: 4})]}, "keys that are strings"),
        "NaN": ({"tests": [([1], float("nan"))]}, "no NaN"),
        "big": ({"tests": [([1], 10**5000)]}, "JSON values"),
    }.values(),
)
def test_tests_that_are_no_json_are_named_before_anything_runs(change, said):
    good = {"code": "def f(x): return 4", "name": "f", "tests": [([2], 4)]}
    with pytest.raises(ValueError, match=f"candidate 1.*{said}"):
        run_code([good, good | change])
    with pytest.raises(ValueError, match="candidate 0 has no 'tests'"):
        run_code([{"code": "", "name": "f"}])


def test_the_worlds_own_functions_pass_their_tests():
    """A model that writes the right code at every second draw passes half of them at once."""
    codes = {one["name"]: function_code(one) for one in functions()}

    def answer(requests, *, seed, **how):
        names = [request.split("function ")[1].split("(")[0] for request in requests]
        return [codes[name] if seed % 2 else "no code" for name in names]

    found = probe_code(answer, draws=4, temperature=0.5)
    assert found.groupby("draw")["passed"].agg(set).tolist() == [{False}, {True}] * 2
    assert set(found.groupby("task").size()) == {4}
    tests = [{"code": codes[one["name"]], **one} for one in functions()]
    assert run_code(tests)["passed"].all()
