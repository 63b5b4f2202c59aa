"""What a sweep plans: which run has which name, and which arguments are refused."""

import importlib
import re
import sys

import numpy
import pytest

from sftlab.sweeps import SweepError, make_plan
from sftlab.train.settings import Settings

EXAMPLES = [{"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]}]


def one(run):
    return 1


def use(run, way):
    return way(run)


def plan(profile, **changes):
    given = {"measure": {"m": one}, "examples": None, "eval_dataset": None, "grid": None,
             "seeds": 1, "settings": None}  # fmt: skip
    return make_plan(profile, **{**given, **changes})


def test_code_behind_a_function_in_the_grid_counts(toy_base, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "ways_of_mine.py").write_text(
        "import lower_of_mine\ndef short(x): return lower_of_mine.N"
    )
    (tmp_path / "lower_of_mine.py").write_text("N = 1\n")
    ways = importlib.import_module("ways_of_mine")

    def planned():
        return plan(toy_base, measure={"m": use}, grid={"way": [ways.short]})

    first = planned()
    assert first.runs[0].run == planned().runs[0].run
    assert "ways_of_mine" in first.live, "it is sent by value, as it is here"
    (tmp_path / "lower_of_mine.py").write_text("N = 22\n")
    second = planned()
    for name in ("ways_of_mine", "lower_of_mine"):
        del sys.modules[name]
    assert first.runs[0].run != second.runs[0].run
    assert first.loaded != second.loaded


def test_equal_settings_have_one_name_however_they_are_written(toy_base):
    written = [
        plan(toy_base, examples=EXAMPLES, settings=Settings(num_train_epochs=epochs)).runs[0].run
        for epochs in (3, 3.0, 4)
    ]
    assert written[0] == written[1] != written[2]


def test_an_error_in_the_function_that_makes_the_examples_says_so(toy_base):
    def examples(seed):
        return EXAMPLES[0]["rows"]

    (row,) = plan(toy_base, examples=examples).runs
    assert row.error == "KeyError: 'rows' (in the function `examples`)"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"grid": [1, 2]}, "grid is [1, 2]; give values by name"),
        (
            {"settings": {"num_train_epochs": 1}},
            "settings is {'num_train_epochs': 1}; give Settings(...)",
        ),
        ({"seeds": True}, "seeds is True; give how many"),
    ],
)
def test_arguments_of_another_kind_are_refused(toy_base, wrong, message):
    with pytest.raises(SweepError, match=re.escape(message)):
        plan(toy_base, **wrong)


def test_a_number_of_seeds_may_be_numpys(toy_base):
    assert [run.seed for run in plan(toy_base, seeds=numpy.int64(2)).runs] == [0, 1]
