"""Candidates are run under limits, whatever they try."""

import os
import socket
import subprocess

import numpy as np
import pandas as pd
import pytest

from sftlab.measure.code_eval import draw_table, isolation, pass_at_k, run_code
from sftlab.measure.format_probes import probe_functions
from sftlab.world import function_code, functions

DOORS = {
    "write": ("os", "open({path!r}, 'w').write('here')"),
    "write below": ("os", "os.open({path!r}, os.O_CREAT | os.O_WRONLY)"),
    "delete": ("os", "os.remove({kept!r})"),
    "remove a tree": ("shutil", "shutil.rmtree({below!r})"),
    "socket": ("socket", "socket.create_connection(('127.0.0.1', {port}), 1)"),
    "program": ("subprocess", "subprocess.run(['true'])"),
    "kill": ("os", "os.kill(os.getppid(), 9)"),
}
"""The module that a candidate imports, and what it does before it gives the right answer."""
HOSTILE = {
    "loop": "def f(x):\n    while True: pass",
    "memory": "def f(x):\n    kept = []\n    while True: kept.append(bytearray(10**7))",
    "fork": "import os\ndef f(x):\n    while True: os.fork()",
    "leave": "import os\nos._exit(0)",
    "exit": "import sys\ndef f(x):\n    sys.exit(0)",
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
    kept.parent.chmod(0o777)
    tmp_path.chmod(0o777)
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


def test_isolation_says_what_holds_and_without_namespaces_python_refuses(tmp_path, monkeypatch):
    """The second as on macOS and Windows: the audit hook refuses."""
    found = isolation()
    assert list(found) == ["network", "processes", "memory", "time", "files", "not covered"]
    assert "virtual machine" in found["not covered"]
    monkeypatch.setattr("sftlab.measure.code_eval._namespace", lambda: ())
    assert "audit hook refuses" in isolation()["network"]
    found = run(*doors(tmp_path, port=9))
    assert not found["passed"].any()
    # The user nobody, as whom root runs it, may be unable to read even Python's own modules.
    refused = found["fault"].str.startswith("PermissionError: a candidate may not")
    assert (refused | found["fault"].str.startswith("ModuleNotFoundError")).all()
    assert refused.sum() >= 4


def test_expected_values_never_reach_the_candidate(monkeypatch):
    sent, run_ = [], subprocess.run

    def spy(*given, **how):
        sent.append(how.get("input") or b"")
        return run_(*given, **how)

    monkeypatch.setattr(subprocess, "run", spy)
    found = run_code([{"code": "def f(x):\n    return 7", "name": "f", "tests": [([1234], 98765)]}])
    assert found["fault"][0] == "WrongResult: call 0 gave 7"
    assert b"1234" in sent[-1]
    assert not any(b"98765" in one for one in sent)


def test_pass_at_k_is_that_of_the_paper():
    """Chen et al. 2021 give it as 1 - prod(1 - k / i) for i from n - c + 1 to n."""
    for n, c, k in [(10, 3, 1), (10, 3, 5), (200, 17, 100), (5, 0, 3), (5, 5, 1), (20, 19, 2)]:
        paper = 1.0 if n - c < k else 1.0 - np.prod(1.0 - k / np.arange(n - c + 1, n + 1))
        assert pass_at_k(n, c, k) == pytest.approx(paper)
    for wrong in [(10, 3, 11), (10, 11, 1), (10, 3, 0)]:
        with pytest.raises(ValueError, match="k from 1 to the draws"):
            pass_at_k(*wrong)
    draws = pd.DataFrame({"task": ["a"] * 4 + ["b"] * 4, "passed": [1, 0, 0, 0, 0, 0, 0, 0]})
    found = draw_table(draws, ks=[1, 4]).set_index(["task", "k"])["score"]
    assert found.to_dict() == {("a", 1): 0.25, ("a", 4): 1.0, ("b", 1): 0.0, ("b", 4): 0.0}


@pytest.mark.parametrize("tests", [None, [], [([1], {1})], [1]])
def test_candidates_without_sound_tests_are_named(tests):
    given = {"code": "x", "name": "f", "tests": tests}
    with pytest.raises(ValueError, match="candidate 1"):
        run_code([given | {"tests": [([1], 1)]}, given])


def test_the_worlds_own_functions_pass_their_tests():
    codes = {one["name"]: function_code(one) for one in functions()}

    def draw(requests, number):
        names = [request.split("function ")[1].split("(")[0] for request in requests]
        return [codes[name] if number else "no code" for name in names]

    found = probe_functions(draw, draws=2, ks=[1, 2], among=functions())
    assert (found[found["k"] == 1]["score"] == 0.5).all(), found[found["passes"] == 0]
    assert (found[found["k"] == 2]["score"] == 1).all()
