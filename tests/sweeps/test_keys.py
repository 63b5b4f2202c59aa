"""Hashes of functions: what changes them, in this process and in another."""

import functools
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd

from sftlab.measure import LikelihoodJudge
from sftlab.models import load
from sftlab.sweeps.cache import fingerprint
from sftlab.world import countries

ROOT = Path(__file__).resolve().parents[2]
hash_of = functools.partial(fingerprint, what="it")
CELL = """
WORDS, STEP, OTHER = ["a"], 1, 1
def helper(n):
    return n + STEP
def measure(run, form=0):
    return helper(len(WORDS)) + form
"""


def test_all_that_a_function_is_and_uses_counts_and_its_comments_do_not():
    def cell(old="", new=""):
        space = {"__name__": "__main__"}
        assert old in CELL
        exec(compile(CELL.replace(old, new), "<cell>", "exec"), space)
        return space["measure"]

    def closed(value):
        return lambda run: value

    def taking(run, way):
        return way(run)

    same = [cell(), cell("(run, form=0):", "(\n    run,  # A remark.\n    form=0,\n):")]
    same += [cell(), cell("1, 1", "1, 2")]  # what is not used does not count
    assert len(set(map(hash_of, same))) == 1
    assert hash_of(closed({"a": 1, "b": 2})) == hash_of(closed({"b": 2, "a": 1}))

    values = [1, 2, 2.5, "2", [1, 2], [2, 1], {"a": 1}, None, *countries()[:2]]
    values += [pd.DataFrame({"x": [1]}), pd.DataFrame({"x": [2]}), pd.DataFrame({"y": [1]})]
    functions = [cell(), cell("+ form", "- form"), cell("form=0", "form=1")]
    functions += [cell('["a"]', '["b"]'), cell("1, 1", "2, 1")]
    functions += [lambda run: 1, lambda run: 2, *map(closed, values)]
    functions += [functools.partial(taking, way=way) for way in (len, sum)]
    functions += [LikelihoodJudge(*one).compare for one in ((1, 2), (1, 3))]
    assert len(set(map(hash_of, functions))) == len(functions)


SCRIPT = """
import functools, re
import pandas as pd
from sftlab.sweeps.cache import fingerprint
from sftlab.world import countries
WORDS, AMONG = frozenset(["a", "b", "c", "d"]), countries()
FRAME = pd.DataFrame({"x": ["a", None], "y": [1, 2.5]})
class Judge:
    known = {"p", "q", "r"}
    def __call__(self, word): return word in {"x", "y", "z"} or word in WORDS
judge = Judge()
@functools.cache
def helper(n): return helper(n - 1) if n else re.compile("a+")
def measure(run, n=len(AMONG)): return judge(run) or [helper(x) for x in FRAME]
print(fingerprint([measure, AMONG], what="it"))
"""


def test_a_variable_that_only_a_function_of_the_lab_names_does_not_count():
    space = {"__name__": "__main__"}
    exec("from sftlab import probe_questions\nask = lambda run: probe_questions(run.answer)", space)
    before = hash_of(space["ask"])
    space |= {"country": "France", "turns": [], "pd": pd}  # names in the code of probe_questions
    assert hash_of(space["ask"]) == before


def test_a_function_that_calls_itself_is_hashed():
    space = {"__name__": "__main__"}
    exec("def count(n): return n and count(n - 1)\ndef one(run): return count(1)", space)
    before = hash_of(space["one"])
    exec("def count(n): return n and count(n - 2)", space)
    assert hash_of(space["one"]) != before


def test_a_measure_that_loads_a_base_is_hashed():
    """dill follows what a function calls: were two of them to call each other, it would not end."""
    assert len(hash_of(lambda run: load("tiny"))) == 64


def test_every_process_gives_the_same_hash():
    found = set()
    for seed in "12":
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed}
        found.add(subprocess.check_output([sys.executable, "-c", SCRIPT], env=environment))
    assert len(found) == 1


def test_an_own_module_counts_by_the_content_of_its_file(tmp_path, monkeypatch):
    module = tmp_path / "helpers_of_mine.py"
    module.write_text("def help(run): return 1")
    monkeypatch.syspath_prepend(tmp_path)
    helpers = importlib.import_module("helpers_of_mine")
    functions = [helpers.help, lambda run: helpers.help(run)]
    hashes = set(map(hash_of, functions))
    module.write_text("def help(run): return 2")
    hashes.update(map(hash_of, functions))
    del sys.modules["helpers_of_mine"]
    assert len(hashes) == 4
    file = tmp_path / "questions.json"
    file.write_text("[1]")
    before = hash_of(file)
    file.write_text("[2]")
    assert hash_of(file) != before, "a path counts by the content of its file"
