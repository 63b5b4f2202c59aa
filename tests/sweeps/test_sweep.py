"""Sweeps on a random two-layer model: the frame, what runs again and what does not, refusals."""

import functools
import json
import os
import shutil
import time
import warnings
from pathlib import Path

import loky
import pandas as pd
import pytest
import torch

from sftlab.models import UnknownProfileError
from sftlab.sweeps import FingerprintError, SweepError, cache, sweep, sweeps
from sftlab.train import Settings, finetune

QUICK = Settings(num_train_epochs=1, per_device_train_batch_size=8, learning_rate=1e-3)
quiet_sweep = functools.partial(sweep, progress=False)


def conversations(n, *, seed=0):
    """As many questions with answers."""
    turns = [("user", "What is {}?"), ("assistant", "Paris")]
    return [
        {"messages": [{"role": role, "content": text.format(seed + i)} for role, text in turns]}
        for i in range(n)
    ]


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("SFTLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "runs"


@pytest.fixture(scope="module", autouse=True)
def _no_process_left():
    yield
    loky.get_reusable_executor().shutdown(kill_workers=True)


@pytest.fixture
def log(tmp_path):
    """A file to which a measure adds a line for each run."""
    file = tmp_path / "runs.log"
    file.touch()
    return str(file)  # a Path would count by the content of its file


def note(file, line=""):
    with open(file, "a") as stream:
        stream.write(f"{line}\n")


def lines(file):
    return sorted(Path(file).read_text().splitlines())


def counted(log):
    """A measure that leaves a trace: a frame with one row an item."""

    def measure(seed, run, form="a"):
        note(log, f"{form}{seed}")
        return pd.DataFrame(
            {
                "country": ["Austria", "Brazil"],
                "answers": [("Vienna",), ("Brasilia", "Brazil")],
                "right": [True, seed > 0],
            }
        )

    return measure


def items(run, seed):
    return pd.DataFrame({"output": run.answer(["What is 1?", "What is 2?"]), "item": [1, 2]})


def test_one_row_an_observation(toy_base, log):
    measures = {"items": counted(log), "size": lambda run: run.model.num_parameters()}
    frame = quiet_sweep(toy_base, measure=measures, grid={"form": ["b", "a"]}, seeds=[3, 1])
    assert list(frame.columns) == ["form", "seed", "measure", "country", "answers", "right",
                                   "value", "seconds", "loss", "run", "error"]  # fmt: skip
    assert frame["form"].tolist() == ["b"] * 6 + ["a"] * 6
    assert frame["seed"].tolist() == [3, 3, 3, 1, 1, 1] * 2
    assert frame["measure"].tolist() == ["items", "items", "size"] * 4
    assert frame["answers"].tolist()[:2] == [("Vienna",), ("Brasilia", "Brazil")]
    right = frame.loc[frame["measure"] == "items", "right"]
    assert right.all()
    assert not (~right).any()
    assert frame["seed"].dtype == int
    assert frame["loss"].isna().all()
    assert frame["error"].isna().all()
    assert frame["measure"].dtype == object  # in every frame: a failed run has none
    assert frame["run"].nunique() == 4
    assert lines(log) == ["a1", "a3", "b1", "b3"]


def test_what_is_stored_is_not_run_again_but_what_is_damaged_is(toy_base, log, store):
    go = functools.partial(quiet_sweep, toy_base, measure={"items": counted(log)})
    first = go(seeds=2)
    assert lines(log) == ["a0", "a1"]
    pd.testing.assert_frame_equal(go(seeds=2), first)
    assert lines(log) == ["a0", "a1"]
    go(seeds=3)
    assert lines(log) == ["a0", "a1", "a2"]
    go(seeds=1, refresh=True)
    assert lines(log) == ["a0", "a0", "a1", "a2"]
    damaged = store / first["run"].iloc[-1] / "measure-0.parquet"
    damaged.write_bytes(damaged.read_bytes()[:100])
    pd.testing.assert_frame_equal(go(seeds=2), first)
    assert lines(log) == ["a0", "a0", "a1", "a1", "a2"]
    once = quiet_sweep(toy_base, measure={"m": lambda run: note(log, "base") or 1.0}, seeds=4)
    assert once["seed"].tolist() == [0, 1, 2, 3]
    assert lines(log).count("base") == 1, "no measure takes a seed: one run for all of them"


def test_measures_draw_the_same_numbers_in_any_order_and_remember_nothing(toy_base):
    def draw(run, seed):
        import random

        import numpy

        return random.random() + numpy.random.rand() + torch.rand(1).item()

    known = []
    memo = {"memo": lambda run: known.append(1) or len(known)}
    first = quiet_sweep(toy_base, measure={"one": draw, "two": draw} | memo, seeds=2, jobs=1)
    assert first["value"].nunique() == 3
    assert first["value"].tolist()[0] == first["value"].tolist()[1]
    again = quiet_sweep(toy_base, measure=memo | {"two": draw, "one": draw}, seeds=2)
    assert again["measure"].tolist() == ["memo", "two", "one"] * 2
    assert again["run"].tolist() == first["run"].tolist()


def test_a_changed_constant_runs_again_and_a_changed_base_too(toy_base, log, tmp_path):
    def value(base, limit):
        measure = {"limit": lambda run: note(log, limit) or limit}
        return quiet_sweep(base, measure=measure, seeds=1)["value"].tolist()

    assert [value(toy_base, limit) for limit in (1, 2, 1)] == [[1], [2], [1]]
    assert lines(log) == ["1", "2"]
    other = tmp_path / "other"
    shutil.copytree(toy_base, other)
    value(other, 1)
    assert len(lines(log)) == 2, "the same weights under another path are the same base"
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-3}))
    value(other, 1)
    assert len(lines(log)) == 3


def test_a_run_that_fails_is_a_row_and_is_tried_again(toy_base, log):
    def measure(run, seed, profile):
        note(log, seed)
        if seed == 1:
            raise KeyError("capitall")
        return seed

    go = functools.partial(
        quiet_sweep,
        measure={"m": measure},
        seeds=3,
        grid={"profile": [str(toy_base), "no such profile"]},
    )
    with pytest.warns(UserWarning, match="4 runs failed .* UnknownProfileError: no profile is cal"):
        frame = go(None)
    assert frame["profile"].tolist() == [str(toy_base)] * 3 + ["no such profile"] * 3
    assert frame["value"].tolist()[0:3:2] == [0, 2]
    assert frame["error"].tolist()[1].startswith("KeyError: 'capitall' (in the measure 'm', test_")
    assert frame["error"].isna().tolist() == [True, False, True, False, False, False]
    with pytest.warns(UserWarning, match="4 runs failed"):
        go(None)
    assert lines(log) == ["0", "1", "1", "2"]


def test_sweeps_together_give_what_each_gives_alone(toy_base, log):
    one = {"measure": {"items": counted(log)}, "grid": {"form": ["b", "a"]}}
    two = {"measure": {"size": lambda run: run.model.num_parameters()}, "seeds": 1}
    bad = {"measure": {"bad": lambda run: run.nothing}, "seeds": 1}
    with pytest.warns(UserWarning, match="1 run failed"):
        frames = sweeps(one, two, one, bad, profile=toy_base, seeds=2, progress=False)
    assert lines(log) == ["a0", "a1", "b0", "b1"], "what two of them need is run once"
    pd.testing.assert_frame_equal(frames[0], quiet_sweep(toy_base, seeds=2, **one))
    pd.testing.assert_frame_equal(frames[1], quiet_sweep(toy_base, **two))
    pd.testing.assert_frame_equal(frames[2], frames[0])
    assert len(lines(log)) == 4, "alone they find what was stored together"
    assert frames[3]["error"].iloc[0].startswith("AttributeError")


def test_an_error_names_the_line_of_the_learner(toy_base):
    def typed(code, file):
        exec(compile(code, file, "exec"), space := {"__name__": "__main__"})
        return {"measure": {"m": space["measure"]}}

    cell = "def measure(run):\n    part(run)\n\ndef part(run):\n    return run.answers[0]\n"
    deep = "import json\n\ndef measure(run):\n    return json.loads('?')\n"
    of_the_lab = "def measure(run):\n    return run.answer(7)\n"
    text = "def measure(run):\n    return 'a text'\n"
    # The error arises in pyarrow, whose frames have relative names: "pyarrow/error.pxi".
    mixed = "import pandas\n\ndef measure(run):\n    return pandas.DataFrame({'a': [1, 'b']})\n"
    wanted = [typed(cell, "/tmp/ipykernel_123/456.py")]
    wanted += [typed(code, "/course/helpers.py") for code in (deep, of_the_lab, text, mixed)]
    with pytest.warns(UserWarning, match="5 runs failed"):
        frames = sweeps(*wanted, profile=toy_base, seeds=1, progress=False)
    ends = ["'m', a cell, line 5)", "'m', helpers.py, line 4)", "'m', helpers.py, line 2)"]
    for frame, end in zip(frames, [*ends, "'m')", "'m')"], strict=True):
        assert frame["error"].iloc[0].endswith(f" (in the measure {end}")
    assert "it returned a str; return a number, or a frame" in frames[3]["error"].iloc[0]


def test_levels_of_an_index_that_have_names_become_columns(toy_base):
    def rows(run):
        return pd.DataFrame({"rel": ["b", "a", "a"], "kind": [1, 2, 2], "right": [1, 0, 1]})

    measures = {
        "one": lambda run: rows(run).groupby("rel").mean(),
        "two": lambda run: rows(run).groupby(["rel", "kind"], sort=False).agg(["sum"]),
        "none": lambda run: rows(run).iloc[1:],
    }
    frame = quiet_sweep(toy_base, measure=measures, seeds=1)
    one, two, none = (frame[frame["measure"] == name] for name in measures)
    assert one["rel"].tolist() == ["a", "b"]
    assert one["right"].tolist() == [0.5, 1.0]
    assert two[["rel", "kind"]].to_numpy().tolist() == [["b", 1], ["a", 2]]
    assert two["('right', 'sum')"].tolist() == [1, 1]
    assert none["rel"].tolist() == ["a", "a"]
    assert not {"index", "level_0"} & set(frame.columns)


@pytest.mark.slow
def test_a_worker_that_dies_takes_no_other_run_along(toy_base, log):
    def measure(run, seed):
        note(log, seed)
        if seed == 1:
            os._exit(9)
        time.sleep(0.2)
        return seed

    with pytest.warns(UserWarning, match="1 run failed"):
        frame = quiet_sweep(toy_base, measure={"m": measure}, seeds=4, jobs=2)
    assert frame["value"].isna().tolist() == [False, True, False, False]
    assert "WorkerDied: the worker process of this run ended" in frame["error"].iloc[1]
    assert lines(log).count("1") == 2


def test_warnings_reach_the_caller_once_also_from_the_cache(toy_base):
    def measure(run, seed):
        import logging

        warnings.warn("mind the gap", stacklevel=1)
        logging.getLogger("transformers.of.course").warning("mind the %s", "step")
        return seed

    for _ in range(2):
        with pytest.warns(UserWarning, match="mind the") as caught:
            quiet_sweep(toy_base, measure={"m": measure}, seeds=2)
        texts = sorted(str(w.message) for w in caught)
        assert texts == ["mind the gap (in 2 of 2 runs)", "mind the step (in 2 of 2 runs)"]


LAYER = torch.nn.Linear(1, 1)


def same_name(run, form):
    return pd.DataFrame({"form": [form]})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"grid": {"learning_rat": [1]}}, "nothing takes 'learning_rat'.*form.*learning_rate"),
        ({"grid": {"packing": [1]}, "examples": None}, "without examples nothing is trained"),
        ({"grid": [1]}, "give values by name"),
        ({"grid": {"seed": [1]}}, "argument `seeds`"),
        ({"grid": {"loss": [1]}}, "has a column of that name"),
        ({"grid": {"form": []}}, "has no values"),
        ({"grid": {"form": "abc"}}, "give a list"),
        ({"grid": {"form": ["a", "a"]}}, "twice"),
        ({"seeds": 0}, "seeds is 0"),
        ({"seeds": [1, 1]}, "different whole numbers"),
        ({"seeds": [0.5]}, "seeds is"),
        ({"seeds": True}, "seeds is True"),
        ({"jobs": 0}, "jobs is 0"),
        ({"settings": {}}, "settings is {}; give Settings"),
        ({"measure": {}}, "mapping from names to functions"),
        ({"measure": {"m": 3}}, "the measure 'm' is 3"),
        ({"measure": {"m": lambda: 1}}, "the measure 'm' takes no run"),
        ({"measure": {"m": lambda run, n: 1}}, "'m' needs 'n'"),
        ({"examples": lambda n: []}, "examples needs 'n'"),
        ({"eval_dataset": [], "examples": None}, "eval_dataset needs examples"),
        ({"measure": {"m": lambda run: LAYER(1)}}, "the measure 'm' uses a model from outside"),
        ({"profile": "tinny"}, "no profile is called 'tinny'"),
        ({"measure": {"m": same_name}, "grid": {"form": [1]}}, "column 'form', and the sweep has"),
    ],
)
def test_a_wrong_argument_is_an_error_with_a_remedy(toy_base, arguments, message):
    usual = {"measure": {"m": lambda run, form="a": 1}, "examples": conversations(2)}
    with pytest.raises(ValueError, match=message) as caught:
        quiet_sweep(**{"profile": toy_base, **usual, "settings": QUICK, **arguments})
    kinds = (SweepError, FingerprintError, UnknownProfileError)
    assert isinstance(caught.value, kinds)
    with pytest.raises(TypeError, match="argument 'seed'"):
        sweeps({"measure": {"m": len}, "seed": 1}, profile=toy_base)


def test_examples_and_settings_that_can_not_be_trained_on_are_rows(toy_base):
    bad = [{"messages": [{"role": "user", "content": "?"}]}]
    good, no_epochs = conversations(2), {"num_train_epochs": [-1]}
    for arguments, opening in [
        ({"examples": [*good, *bad]}, "ExampleError: example 2, messages[0].role"),
        ({"examples": good, "eval_dataset": bad}, "ExampleError: validation example 0, messages"),
        ({"examples": good, "grid": no_epochs}, "SettingsError: num_train_epochs is -1"),
        ({"examples": lambda seed: good[seed]["rows"]}, "KeyError: 'rows' (in the function `exam"),
    ]:
        with pytest.warns(UserWarning, match="2 runs failed"):
            frame = quiet_sweep(toy_base, measure={"m": lambda run: 1}, seeds=2, **arguments)
        assert frame["error"].str.startswith(opening).all()
        assert frame["run"].isna().all()


@pytest.mark.slow
class TestOfTraining:
    def test_the_number_of_jobs_changes_no_number(self, toy_base, tmp_path, monkeypatch):
        frames = []
        for jobs in (1, 2):
            monkeypatch.setenv("SFTLAB_CACHE", str(tmp_path / f"cache{jobs}"))
            frame = quiet_sweep(
                toy_base,
                measure={"items": items},
                examples=conversations,
                jobs=jobs,
                seeds=2,
                grid={"n": [8, 16], "learning_rate": [1e-3, 1e-2]},
                settings=QUICK.changed(num_train_epochs=2),
            )
            assert frame["error"].isna().all()
            frames.append(frame.drop(columns="seconds"))
        pd.testing.assert_frame_equal(*frames)
        assert frames[0]["loss"].nunique() > 4, "seed, data and rate differ"
        assert frames[0]["learning_rate"].dtype == float
        assert frames[0]["n"].dtype == int

    def test_it_trains_as_finetune_does_on_one_thread(self, toy_base):
        def weights(run):
            return float(sum(w.double().sum() for w in run.model.state_dict().values()))

        rows = conversations(16)
        frame = quiet_sweep(
            toy_base, measure={"w": weights}, examples=rows, seeds=[3], settings=QUICK
        )
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            run = finetune(toy_base, rows, settings=QUICK, seed=3, progress=False)
        finally:
            torch.set_num_threads(before)
        assert frame["value"].tolist() == [weights(run)]
        assert frame["loss"].tolist() == [run.history[-1]["loss"]]
        assert cache.read(frame["run"].iloc[0]).record["settings"] == vars(run.settings)

    def test_the_content_of_the_examples_decides_and_not_their_code(self, toy_base, log):
        def curve(run):
            note(log, run.settings.seed)
            return pd.DataFrame(run.validation).rename(columns={"loss": "nats"})

        go = functools.partial(quiet_sweep, toy_base, measure={"curve": curve}, settings=QUICK)
        apart = {"eval_dataset": lambda seed, n: conversations(n, seed=50 + seed)}
        frame = go(examples=conversations(8), **apart, grid={"n": [2, 3]}, seeds=2)
        assert frame["nats"].nunique() == 4, "seed and n reach the function"
        assert lines(log) == ["0", "0", "1", "1"]
        go(examples=lambda: [*conversations(8)], eval_dataset=conversations(2, seed=51), seeds=2)
        assert lines(log) == ["0", "0", "0", "1", "1"], "of seed 1 the content is the same"
