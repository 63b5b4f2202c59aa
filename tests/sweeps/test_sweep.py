"""Sweeps on a random two-layer model: the frame, what runs again and what does not, refusals."""

import functools
import json
import os
import shutil
import time
from pathlib import Path

import loky
import pandas as pd
import pytest

from sftlab.sweeps import FingerprintError, SweepError, base_meter, cache, stored, sweep, sweeps
from sftlab.train import Settings, finetune, untrained

ROOT = Path(__file__).resolve().parents[2]
QUICK = Settings(num_train_epochs=1, per_device_train_batch_size=8, learning_rate=1e-3)
quiet_sweep = functools.partial(sweep, progress=False)


def conversations(n, *, seed=0):
    """As many questions with answers."""
    return [
        {"messages": [{"role": "user", "content": f"What is {seed + i}?"},
                      {"role": "assistant", "content": "Paris"}]}
        for i in range(n)
    ]  # fmt: skip


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
    return Path(file).read_text().splitlines()


def counted(log):
    """A measure that leaves a trace: a frame with one row an item."""

    def measure(run, seed, form="a"):
        note(log, f"{form}{seed}")
        return pd.DataFrame(
            {"country": ["Austria", "Brazil"], "answers": [("Vienna",), ("Brasilia", "Brazil")],
             "right": [True, seed > 0]}
        )  # fmt: skip

    return measure


class TestOfTheBase:
    """Nothing is trained: quick."""

    def test_one_row_an_observation(self, toy_base, log):
        measures = {"items": counted(log), "size": lambda run: run.model.num_parameters()}
        frame = quiet_sweep(toy_base, measure=measures, grid={"form": ["b", "a"]}, seeds=[3, 1])
        assert list(frame.columns) == ["form", "seed", "measure", "country", "answers", "right",
                                       "value", "seconds", "loss", "run", "error"]  # fmt: skip
        assert frame["form"].tolist() == ["b"] * 6 + ["a"] * 6
        assert frame["seed"].tolist() == [3, 3, 3, 1, 1, 1] * 2
        assert frame["measure"].tolist() == ["items", "items", "size"] * 4
        assert frame["answers"].tolist()[:2] == [("Vienna",), ("Brasilia", "Brazil")]
        items = frame[frame["measure"] == "items"]
        assert items["right"].all()
        assert not (~items["right"]).any()
        assert frame["seed"].dtype == int
        assert frame["loss"].isna().all()
        assert frame["error"].isna().all()
        assert frame["measure"].dtype == object  # in every frame: a failed run has none
        assert frame["run"].nunique() == 4
        assert sorted(lines(log)) == ["a1", "a3", "b1", "b3"]

    def test_what_is_stored_is_not_run_again(self, toy_base, log):
        go = functools.partial(quiet_sweep, toy_base, measure={"items": counted(log)})
        first = go(seeds=2)
        assert sorted(lines(log)) == ["a0", "a1"]
        pd.testing.assert_frame_equal(go(seeds=2), first)
        assert len(lines(log)) == 2
        go(seeds=3)
        assert sorted(lines(log)) == ["a0", "a1", "a2"]
        go(seeds=1, refresh=True)
        assert sorted(lines(log)) == ["a0", "a0", "a1", "a2"]
        assert len(stored()) == 3

    def test_a_run_whose_file_is_damaged_is_run_again_alone(self, toy_base, log, store):
        go = functools.partial(quiet_sweep, toy_base, measure={"items": counted(log)}, seeds=2)
        first = go()
        damaged = store / first["run"].iloc[-1] / "measure-0.parquet"
        damaged.write_bytes(damaged.read_bytes()[:100])
        pd.testing.assert_frame_equal(go(), first)
        assert sorted(lines(log)) == ["a0", "a1", "a1"]

    def test_the_base_is_measured_once_for_all_seeds_when_no_measure_takes_one(self, toy_base, log):
        def once(run):
            note(log)
            return 1.0

        frame = quiet_sweep(toy_base, measure={"once": once}, seeds=4)
        assert frame["seed"].tolist() == [0, 1, 2, 3]
        assert len(lines(log)) == 1

    def test_measures_that_draw_get_the_same_numbers_in_any_order(self, toy_base):
        def draw(run, seed):
            import random

            import numpy
            import torch

            return random.random() + numpy.random.rand() + torch.rand(1).item()

        first = quiet_sweep(toy_base, measure={"one": draw, "two": draw}, seeds=2)
        assert first["value"].nunique() == 2
        assert first.groupby("seed")["value"].nunique().tolist() == [1, 1]
        again = quiet_sweep(toy_base, measure={"two": draw, "one": draw}, seeds=2)
        assert again["measure"].tolist() == ["two", "one"] * 2
        assert again["run"].tolist() == first["run"].tolist()

    def test_what_a_measure_remembers_ends_with_its_run(self, toy_base):
        import random

        known, dice = [], random.Random(0)

        def memo(run):
            known.append(run)
            return len(known)

        def drawn(run):
            return dice.random()

        measures = {"memo": memo, "drawn": drawn}
        go = functools.partial(quiet_sweep, toy_base, measure=measures, seeds=1, jobs=1)
        first = go()
        assert first["value"].tolist() == [1, random.Random(0).random()]
        assert go(refresh=True)["value"].tolist() == first["value"].tolist()

    def test_a_changed_constant_runs_again_and_a_changed_profile_too(self, toy_base, log, tmp_path):
        def made(limit):
            def measure(run):
                note(log, limit)
                return limit

            return {"limit": measure}

        def value(base, limit):
            return quiet_sweep(base, measure=made(limit), seeds=1)["value"].tolist()

        assert value(toy_base, 1) == [1]
        assert value(toy_base, 2) == [2]
        assert value(toy_base, 1) == [1]
        assert lines(log) == ["1", "2"]
        other = tmp_path / "other"
        shutil.copytree(toy_base, other)
        value(other, 1)
        assert len(lines(log)) == 2, "the same weights under another path are the same base"
        config = json.loads((other / "config.json").read_text())
        (other / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-3}))
        value(other, 1)
        assert len(lines(log)) == 3

    def test_profiles_stand_in_the_grid_by_name(self, toy_base, tmp_path):
        other = tmp_path / "other"
        shutil.copytree(toy_base, other)
        grid = {"profile": [str(toy_base), str(other), "no such profile"]}
        with pytest.warns(UserWarning, match="1 run failed"):
            frame = quiet_sweep(None, measure={"m": lambda run: 1}, grid=grid, seeds=1)
        assert frame["profile"].tolist() == grid["profile"]
        assert frame["value"].tolist()[:2] == [1, 1]
        assert frame["error"].iloc[2].startswith("UnknownProfileError: no profile is called")

    def test_a_run_that_fails_is_a_row_and_is_tried_again(self, toy_base, log):
        def measure(run, seed):
            note(log, seed)
            if seed == 1:
                raise KeyError("capitall")
            return seed

        go = functools.partial(quiet_sweep, toy_base, measure={"m": measure}, seeds=3)
        with pytest.warns(UserWarning, match="1 run failed .* KeyError: 'capitall'"):
            frame = go()
        assert frame["seed"].tolist() == [0, 1, 2]
        assert frame["error"].tolist()[1].startswith("KeyError: 'capitall' (in the measure 'm', ")
        assert frame["error"].isna().tolist() == [True, False, True]
        with pytest.warns(UserWarning, match="1 run failed"):
            go()
        assert sorted(lines(log)) == ["0", "1", "1", "2"]

    def test_sweeps_together_give_what_each_gives_alone(self, toy_base, log):
        one = {"measure": {"items": counted(log)}, "grid": {"form": ["b", "a"]}}
        two = {"measure": {"size": lambda run: run.model.num_parameters()}, "seeds": 1}
        frames = sweeps(one, two, one, profile=toy_base, seeds=2, progress=False)
        assert sorted(lines(log)) == ["a0", "a1", "b0", "b1"], "what two of them ask for, once"
        pd.testing.assert_frame_equal(frames[0], quiet_sweep(toy_base, seeds=2, **one))
        pd.testing.assert_frame_equal(frames[1], quiet_sweep(toy_base, **two))
        pd.testing.assert_frame_equal(frames[2], frames[0])
        assert len(lines(log)) == 4, "alone they find what was stored together"

    def test_a_failure_in_one_of_several_sweeps_stays_there(self, toy_base):
        def fails(run):
            raise KeyError("capitall")

        with pytest.warns(UserWarning, match="1 run failed"):
            good, bad = sweeps({"measure": {"m": lambda run: 1}}, {"measure": {"m": fails}},
                               profile=toy_base, seeds=1, progress=False)  # fmt: skip
        assert good["value"].tolist() == [1]
        assert bad["error"].iloc[0].startswith("KeyError: 'capitall' (in the measure 'm', ")

    def test_an_error_names_the_line_of_the_learner(self, toy_base):
        def typed(code, file):
            exec(compile(code, file, "exec"), space := {"__name__": "__main__"})
            return space["measure"]

        cell = "def measure(run):\n    part(run)\n\ndef part(run):\n    return run.answers[0]\n"
        deep = "import json\n\ndef measure(run):\n    return json.loads('?')\n"
        of_the_lab = "def measure(run):\n    return run.answer(7)\n"
        lines = {
            typed(cell, "/tmp/ipykernel_123/456.py"): "a cell, line 5",
            typed(cell, "<ipython-input-3-1a2b>"): "a cell, line 5",
            typed(deep, "/course/helpers.py"): "helpers.py, line 4",
            typed(of_the_lab, "/course/helpers.py"): "helpers.py, line 2",
        }
        wanted = [{"measure": {"m": measure}} for measure in lines]
        with pytest.warns(UserWarning, match="3 runs failed"):
            frames = sweeps(*wanted, profile=toy_base, seeds=1, progress=False)
        for frame, line in zip(frames, lines.values(), strict=True):
            assert frame["error"].iloc[0].endswith(f" (in the measure 'm', {line})")

    def test_sweeps_name_an_argument_that_is_unknown_or_missing(self, toy_base):
        measure = {"m": lambda run: 1}
        with pytest.raises(TypeError, match="argument 'seed'"):
            sweeps({"measure": measure, "seed": 1}, profile=toy_base)
        with pytest.raises(TypeError, match=r"missing .* 'measure'"):
            sweeps({"seeds": 1}, profile=toy_base)

    @pytest.mark.parametrize("given", ["a text", None, [1, 2]])
    def test_a_measure_that_gives_no_items_is_an_error_of_the_run(self, toy_base, given):
        with pytest.warns(UserWarning, match="1 run failed"):
            frame = quiet_sweep(toy_base, measure={"m": lambda run: given}, seeds=1)
        assert frame["error"].iloc[0].startswith("TypeError: it returned a ")
        assert frame["error"].iloc[0].endswith(" (in the measure 'm')")

    @pytest.mark.parametrize("column", ["seed", "loss", "form"])
    def test_a_column_with_the_name_of_another_is_an_error(self, toy_base, column):
        def measure(run, form):
            return pd.DataFrame({column: [1]})

        with pytest.raises(SweepError, match=f"column '{column}', and the sweep has one"):
            quiet_sweep(toy_base, measure={"m": measure}, grid={"form": [1]}, seeds=1)

    def test_an_index_that_has_a_name_becomes_columns(self, toy_base):
        def rows(run):
            return pd.DataFrame({"rel": ["b", "a", "a"], "kind": [1, 2, 2], "right": [1, 0, 1]})

        measures = {
            "one": lambda run: rows(run).groupby("rel").mean(),
            "two": lambda run: rows(run).groupby(["rel", "kind"], sort=False).agg(["sum"]),
            "none": lambda run: rows(run).iloc[1:],
        }
        frame = quiet_sweep(toy_base, measure=measures, seeds=1)
        assert frame["error"].isna().all()
        one, two, none = (frame[frame["measure"] == name] for name in measures)
        assert one["rel"].tolist() == ["a", "b"]
        assert one["right"].tolist() == [0.5, 1.0]
        assert two[["rel", "kind"]].to_numpy().tolist() == [["b", 1], ["a", 2]]
        assert two["('right', 'sum')"].tolist() == [1, 1]
        assert none["rel"].tolist() == ["a", "a"]
        assert not {"index", "level_0"} & set(frame.columns)

    def test_an_index_with_the_name_of_a_column_is_an_error(self, toy_base):
        rows = {"rel": ["a"], "right": [1]}
        measures = {"m": lambda run: pd.DataFrame(rows).set_index("rel", drop=False)}
        with pytest.warns(UserWarning, match="1 run failed"):
            frame = quiet_sweep(toy_base, measure=measures, seeds=1)
        assert "rel, already exists (in the measure 'm'" in frame["error"].iloc[0]
        measures = {"m": lambda run: pd.DataFrame({"seed": [1]}).set_index("seed")}
        with pytest.raises(SweepError, match="column 'seed', and the sweep has one"):
            quiet_sweep(toy_base, measure=measures, seeds=1)

    def test_a_process_that_dies_takes_no_other_run_along(self, toy_base, log):
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

    def test_warnings_reach_the_caller_once_also_from_the_store(self, toy_base):
        def measure(run, seed):
            import logging
            import warnings

            warnings.warn("mind the gap", stacklevel=1)
            logging.getLogger("transformers.of.course").warning("mind the %s", "step")
            return seed

        for _ in range(2):
            with pytest.warns(UserWarning, match="mind the") as caught:
                quiet_sweep(toy_base, measure={"m": measure}, seeds=2)
            texts = sorted(str(w.message) for w in caught)
            assert texts == ["mind the gap (in 2 of 2 runs)", "mind the step (in 2 of 2 runs)"]

    def test_a_relative_file_is_read_from_where_the_caller_stands(
        self, toy_base, tmp_path, monkeypatch
    ):
        (tmp_path / "here.txt").write_text("7")
        monkeypatch.chdir(tmp_path)
        measure = {"m": lambda run: float(Path("here.txt").read_text())}
        assert quiet_sweep(toy_base, measure=measure, seeds=1)["value"].tolist() == [7]


class TestRefusals:
    """Before any process starts."""

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            ({"grid": {"learning_rat": [1]}}, "nothing takes 'learning_rat'.*form.*learning_rate"),
            ({"grid": {"seed": [1]}}, "argument `seeds`"),
            ({"grid": {"loss": [1]}}, "has a column of that name"),
            ({"grid": {"form": []}}, "has no values"),
            ({"grid": {"form": "abc"}}, "give a list"),
            ({"grid": {"form": ["a", "a"]}}, "twice"),
            ({"grid": {"packing": [1]}, "examples": None}, "without examples nothing is trained"),
            ({"seeds": 0}, "seeds is 0"),
            ({"seeds": [1, 1]}, "different whole numbers"),
            ({"seeds": [0.5]}, "seeds is"),
            ({"seeds": [-1]}, "seeds is"),
            ({"seeds": True}, "seeds is True"),
            ({"jobs": 0}, "jobs is 0"),
            ({"measure": {}}, "mapping from names to functions"),
            ({"measure": {"m": 3}}, "the measure 'm' is 3"),
            ({"measure": {"m": lambda: 1}}, "the measure 'm' takes no run"),
            ({"measure": {"m": lambda run, n: 1}}, "'m' needs 'n'"),
            ({"examples": lambda n: []}, "examples needs 'n'"),
            ({"eval_dataset": lambda n: []}, "eval_dataset needs 'n'"),
            ({"eval_dataset": [], "examples": None}, "eval_dataset needs examples"),
        ],
    )
    def test_a_wrong_argument_is_an_error_with_a_remedy(self, toy_base, arguments, said):
        usual = {"measure": {"m": lambda run, form="a": 1}, "examples": conversations(2)}
        with pytest.raises(SweepError, match=said):
            quiet_sweep(toy_base, **{**usual, **arguments})

    def test_a_model_from_outside_is_refused(self, toy_base):
        import torch

        layer = torch.nn.Linear(1, 1)
        with pytest.raises(FingerprintError, match="the measure 'm' uses a model from outside"):
            quiet_sweep(toy_base, measure={"m": lambda run: layer(1)})

    def test_an_unknown_profile_is_refused(self):
        with pytest.raises(ValueError, match="no profile is called 'tinny'"):
            quiet_sweep("tinny", measure={"m": lambda run: 1})

    def test_examples_that_can_not_be_trained_on_are_rows(self, toy_base):
        bad = [*conversations(3), {"messages": [{"role": "user", "content": "?"}]}]
        with pytest.warns(UserWarning, match="2 runs failed"):
            frame = quiet_sweep(toy_base, measure={"m": lambda run: 1}, examples=bad, seeds=2)
        assert frame["error"].str.startswith("ExampleError: example 3, messages[0].role").all()
        assert frame["run"].isna().all()
        assert len(frame) == 2

    def test_validation_that_can_not_be_measured_on_is_a_row(self, toy_base):
        bad = [{"messages": [{"role": "user", "content": "?"}]}]
        with pytest.warns(UserWarning, match="1 run failed"):
            frame = quiet_sweep(toy_base, measure={"m": lambda run: 1}, seeds=1,
                                examples=conversations(2), eval_dataset=bad)  # fmt: skip
        assert frame["error"].iloc[0].startswith("ExampleError: validation example 0, messages")

    def test_a_setting_out_of_range_is_a_row(self, toy_base):
        with pytest.warns(UserWarning, match="1 run failed"):
            frame = quiet_sweep(toy_base, measure={"m": lambda run: 1}, examples=conversations(2),
                                grid={"num_train_epochs": [-1]}, seeds=1)  # fmt: skip
        assert frame["error"].iloc[0].startswith("SettingsError: num_train_epochs is -1")


def items(run, seed):
    return pd.DataFrame({"output": run.answer(["What is 1?", "What is 2?"]), "item": [1, 2]})


@pytest.mark.slow
class TestOfTraining:
    def test_the_number_of_jobs_changes_no_number(self, toy_base, tmp_path, monkeypatch):
        frames, twice = [], QUICK.changed(num_train_epochs=2)
        for jobs in (1, 2):
            monkeypatch.setenv("SFTLAB_CACHE", str(tmp_path / f"cache{jobs}"))
            frame = quiet_sweep(
                toy_base, measure={"items": items}, examples=conversations, jobs=jobs, seeds=2,
                grid={"n": [8, 16], "learning_rate": [1e-3, 1e-2]}, settings=twice,
            )  # fmt: skip
            assert frame["error"].isna().all()
            frames.append(frame.drop(columns="seconds"))
        pd.testing.assert_frame_equal(*frames)
        assert frames[0]["loss"].nunique() > 4, "seed, data and rate differ"
        assert frames[0]["learning_rate"].dtype == float
        assert frames[0]["n"].dtype == int

    def test_it_trains_as_finetune_does(self, toy_base):
        import torch

        def weights(run):
            return float(sum(w.double().sum() for w in run.model.state_dict().values()))

        rows = conversations(16)
        frame = quiet_sweep(toy_base, measure={"w": weights}, examples=rows, seeds=[3],
                            settings=QUICK)  # fmt: skip
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            run = finetune(toy_base, rows, settings=QUICK, seed=3, progress=False)
        finally:
            torch.set_num_threads(before)
        assert frame["value"].tolist() == [weights(run)]
        assert frame["loss"].tolist() == [run.history[-1]["loss"]]
        record = cache.read(frame["run"].iloc[0]).record
        assert record["settings"] == vars(run.settings)

    def test_measures_read_the_losses_on_validation_which_are_part_of_the_run(self, toy_base, log):
        def curve(run):
            note(log, len(run.validation))
            return pd.DataFrame(run.validation).rename(columns={"loss": "nats"})

        twice = QUICK.changed(num_train_epochs=2)
        go = functools.partial(quiet_sweep, toy_base, measure={"curve": curve}, seeds=2,
                               examples=conversations(8), settings=twice)  # fmt: skip
        frame = go(
            eval_dataset=lambda seed, n: conversations(n, seed=50 + seed), grid={"n": [2, 3]}
        )
        assert frame["epoch"].tolist() == [1, 2] * 4
        assert frame["nats"].nunique() == 8, "seed and n reach the function"
        assert frame["nats"].between(0, 20).all()
        go(eval_dataset=conversations(2, seed=51))
        assert len(lines(log)) == 5, "of seed 1 the content is the same, of seed 0 not"
        assert set(lines(log)) == {"2"}
        kept = quiet_sweep(toy_base, measure={"kept": lambda run: run.kept_epoch}, seeds=1,
                           examples=conversations(8), eval_dataset=conversations(2, seed=51),
                           settings=twice.changed(early_stopping_patience=1))  # fmt: skip
        assert kept["value"].isin([1.0, 2.0]).all()

    def test_the_content_of_the_examples_decides_and_not_their_code(self, toy_base, log):
        go = functools.partial(quiet_sweep, toy_base, measure={"m": counted(log)}, seeds=2,
                               settings=QUICK)  # fmt: skip
        go(examples=lambda seed: conversations(8, seed=seed))
        assert sorted(lines(log)) == ["a0", "a1"]
        go(examples=lambda seed: [*conversations(8, seed=seed)])
        assert len(lines(log)) == 2
        go(examples=conversations(8))  # those of seed 0
        assert sorted(lines(log)) == ["a0", "a1", "a1"]
        long = [{"messages": [{"role": "user", "content": "?"},
                              {"role": "assistant", "content": "Paris " * 99}]}]  # fmt: skip
        with pytest.warns(UserWarning, match="lose the end of an answer"):
            go(examples=long, seeds=1, settings=QUICK.changed(max_length=64))
        assert len(lines(log)) == 4


def test_the_bases_meter_is_read_once_and_kept(toy_base, tmp_path):
    found = base_meter(toy_base)
    assert len(stored()) == 1
    pd.testing.assert_frame_equal(found, untrained(toy_base).meter())
    pd.testing.assert_frame_equal(base_meter(toy_base), found)
    assert len(stored()) == 1
