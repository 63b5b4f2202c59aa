"""Candidates are run under limits, whatever they try."""

import os
import socket
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest

from sftlab.measure import code_drawn, isolation, pass_at_k, run_code
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


def test_what_a_candidate_may_not_do_is_refused_by_name(tmp_path):
    found = run(*doors(tmp_path, port=9))
    assert found["fault"].str.startswith("PermissionError: a candidate may not").all()
    assert "virtual machine" in isolation()["not covered"]


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
    with pytest.raises(ValueError, match="k from 1 to the draws"):
        pass_at_k(10, 3, 11)


def test_the_worlds_own_functions_pass_their_tests():
    """A model that writes the right code at every second draw passes half of them at once."""
    codes = {one["name"]: function_code(one) for one in functions()}

    def answer(requests, *, seed, **how):
        names = [request.split("function ")[1].split("(")[0] for request in requests]
        return [codes[name] if seed % 2 else "no code" for name in names]

    found = code_drawn(0.5)(SimpleNamespace(answer=answer)).groupby("k")["score"]
    assert found.min()[1] == found.max()[1] == 0.5
    assert found.min()[10] == 1
    tests = [{"code": codes[one["name"]], **one} for one in functions()]
    assert run_code(tests)["passed"].all()
