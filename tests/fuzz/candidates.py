"""Right and wrong functions, wrapped in attacks: none wrong passes, and none takes the batch along.

`check(seed, folder)` makes the case of a seed, runs it, and says how it came out.
"""

import random
from pathlib import Path

from sftlab.measure import run_code

FUNCTIONS = {
    "x * 2": [([2], 4), ([-3], -6), ([10**30], 2 * 10**30)],
    "[x, [x]]": [([1], [1, [1]]), (["é\ud800"], ["é\ud800", ["é\ud800"]])],
    "{'a': x}": [([True], {"a": True}), ([None], {"a": None}), ([0.5], {"a": 0.5})],
    "str(x)[::-1]": [([120], "021"), (["\n\x00"], "\x00\n")],
}
WRONG = """None;0;True;-x;[x];{};'';float('nan');float('inf');10**5000;{4};b'4';object();
x + x + 1;(yield);lambda: x;type(x);NotImplemented;...;'\\ud800';{1: x};{'value': x};{'error': ''};
[[x]]*9999"""
WRONG = [expression.strip() for expression in WRONG.replace("\n", "").split(";")]
HARMLESS = """import math, re, collections
print('x' * 10**6)
import sys; sys.stderr.write('\\ud800')
import warnings; warnings.warn('now')
import threading, time; threading.Thread(target=time.sleep, args=(9,)).start()
import sys; sys.setrecursionlimit(9999)
import json; json.loads = None
x = [0] * 10**6
import dataclasses; A = dataclasses.make_dataclass('A', 'a')
import atexit; atexit.register(print)
import sys; sys.stdout = sys.stdin = None""".splitlines()
HOSTILE = """import os; os._exit({n})
import sys; sys.exit({n})
import os; os.closerange(0, 99)
import os; os.killpg(0, 9)
import os; os.system('true')
import signal; signal.raise_signal({n} + 1)
open('/proc/self/mem', 'wb')
open('../x', 'w')
import ctypes; ctypes.string_at({n})
raise type('E', (BaseException,), {{'__str__': lambda s: 1}})
raise KeyError('x' * 10**6)
l = []; [l := [l] for i in range({n} * 1000)]; raise ValueError(str(l))
x = bytearray(10**9)
import resource; resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
(lambda f: f(f))(lambda f: f(f))
import __main__; __main__.__dict__.clear(); open('x', 'w')
import sys; sys.modules.clear(); import os
import builtins; vars(builtins).clear(); open('x')
import gc; gc.get_objects()[0]; gc.freeze()
import os; os.setsid()""".splitlines()
LINES = [
    *b'{"value": 4};{"value": -6};{"value": [1, [1]]};{"value": NaN};{"error": ""}'.split(b";"),
    *b'4;"value";["value"];{"value": 4, "error": 5};{"value": "\\ud800"};null;NaN;'.split(b";"),
    *(b"[" * 30_000, b'{"value": ' * 9_000, b"\xff", b"\x00", b'{"value": 1e999}', b"9" * 6_000),
    b'{"value": ' + b"[" * 500 + b"]" * 500 + b"}",
]
"""What a forger writes. No right answers in a row: who knows these may return them."""


def forger(rng):
    lines = b"\n".join(rng.choices(LINES, k=rng.randrange(1, 5))) + b"\n"
    return (
        f"import os\nfor i in range(3, 20):\n  try: os.write(i, {lines!r})\n  except OSError: pass"
    )


def mutated(rng, text):
    """The text with characters deleted, doubled or replaced."""
    letters = list(text)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(letters))
        letters[at] = rng.choice(
            ["", letters[at] * 2, "\0", "\ud800", "(", "\n", "\t", "'", "9" * 9]
        )
    return "".join(letters) or " "


def candidate(rng):
    """A candidate, and whether it must pass (True), must fail (False), or may do either (None)."""
    right = rng.choice(list(FUNCTIONS))
    kind = rng.choice(["right", "wrong", "hostile", "forged", "mutated", "nested"])
    before, must = "", kind == "right"
    if kind == "right":
        before, body = rng.choice(HARMLESS), f"return {right}"
    elif kind == "nested":
        depth = rng.choice([99, 300, 900, 50_000])
        body = f"a = x\n    for _ in range({depth}): a = [a]\n    return a"
    else:
        body = f"return {rng.choice(WRONG)}"
    if kind == "hostile":
        attack = rng.choice(HOSTILE).format(n=rng.randrange(4))
        before, body = rng.choice([(attack, body), ("", f"{attack}\n    {body}")])
    if kind == "forged":
        before = forger(rng)
    code = f"{before}\ndef f(x):\n    {body}\n"
    if kind == "mutated":
        code, must = mutated(rng, f"def f(x):\n    return {right}\n"), None
    return kind, {"code": code, "name": "f", "tests": FUNCTIONS[right]}, must


def check(seed: int, folder: Path) -> str:
    rng = random.Random(seed)
    kind, one, must = candidate(rng)
    good = {"code": "def f(x): return x", "name": "f", "tests": [([1], 1)]}
    found = run_code([one, good] if rng.random() < 0.2 else [one], seconds=1)
    case = f"seed {seed}: {one!r}: {found.to_dict('records')}"[:2000]
    assert list(found.columns) == ["name", "passed", "fault"], case
    assert found["passed"].iloc[1:].all(), case
    passed, fault = bool(found["passed"].iloc[0]), found["fault"].iloc[0]
    assert passed == (fault == ""), case
    assert must is None or passed == must, case
    assert len(fault) <= 4000, case
    assert fault.isprintable(), case
    fault.encode()
    return f"{kind}: {fault.split(':')[0][:40] or 'passed'}"
