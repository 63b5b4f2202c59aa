"""Experiments on a random two-layer model: arms, the frame, what runs again and what does not."""

import functools
import json
import random
import re
import shutil
import warnings
from pathlib import Path

import loky
import numpy
import pandas as pd
import psutil
import pytest
import torch

from sftlab import machine
from sftlab.profiles import UnknownProfileError
from sftlab.sweeps import Experiment, SweepError, cache
from sftlab.train import Settings, finetune

QUICK = Settings(num_train_epochs=1, per_device_train_batch_size=8, learning_rate=1e-3)


def frame_of(profile, *, arms=None, jobs=None, refresh=False, **shared):
    """The frame of an experiment, by default of one arm."""
    how = {"jobs": jobs, "refresh": refresh, "progress": False}
    return Experiment(profile, **shared).run(arms or {"": {}}, **how).frame


def conversations(n, *, seed=0):
    """As many questions with answers."""
    answer = {"role": "assistant", "content": "Paris"}
    questions = [{"role": "user", "content": f"What is {seed + i}?"} for i in range(n)]
    return [{"messages": [question, answer]} for question in questions]


@pytest.fixture(scope="module", autouse=True)
def _no_process_left():
    yield
    loky.get_reusable_executor().shutdown(kill_workers=True)


@pytest.fixture(autouse=True)
def log(tmp_path, monkeypatch):
    """A cache of its own, and a file to which a measure adds a line for each run."""
    monkeypatch.setenv("SFTLAB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "runs.log").touch()
    return str(tmp_path / "runs.log")  # a Path would count by the content of its file


def note(file, line):
    with open(file, "a") as stream:
        stream.write(f"{line}\n")


def lines(file):
    return sorted(Path(file).read_text().splitlines())


def counted(log):
    """A measure that leaves a trace: a frame with one row an item, and an index with a name."""

    def measure(run, seed, form="a"):
        note(log, f"{form}{seed}")
        answers = [("Vienna",), ("Brasilia", "Brazil")]
        return pd.DataFrame({"answers": answers, "right": [True, seed > 0]}).set_index("answers")

    return measure


def test_one_row_an_observation(toy_base, log):
    measures = {"items": counted(log), "size": lambda run: run.model.num_parameters()}
    arms = {"second": {"form": "b"}, "first": {"form": "a"}, "again": {"form": "b"}}
    frame = frame_of(toy_base, measure=measures, arms=arms, seeds=[3, 1])
    columns = "arm seed measure answers right value seconds loss run error"
    assert list(frame.columns) == columns.split()
    assert frame["arm"].tolist() == ["second"] * 6 + ["first"] * 6 + ["again"] * 6
    assert frame["seed"].tolist() == [3, 3, 3, 1, 1, 1] * 3
    assert frame["measure"].tolist() == ["items", "items", "size"] * 6
    assert frame["answers"].tolist()[:2] == [("Vienna",), ("Brasilia", "Brazil")]
    right = frame.loc[frame["measure"] == "items", "right"]
    assert right.all()
    assert not (~right).any()
    assert (frame["seed"].dtype, frame["measure"].dtype) == (int, object)
    assert frame[["loss", "error"]].isna().all(axis=None)
    assert lines(log) == ["a1", "a3", "b1", "b3"], "what two arms need is run once, and kept"


def test_what_is_stored_is_not_run_again(toy_base, log):
    go = functools.partial(frame_of, toy_base, measure={"items": counted(log)})
    first = go(seeds=2)
    pd.testing.assert_frame_equal(go(seeds=2), first)
    assert lines(log) == ["a0", "a1"]
    go(seeds=3)
    assert lines(log) == ["a0", "a1", "a2"]
    go(seeds=1, refresh=True)
    assert lines(log) == ["a0", "a0", "a1", "a2"]
    (cache.runs_folder() / first["run"].iloc[0] / "run.json").write_text('{"measures"')
    pd.testing.assert_frame_equal(go(seeds=2), first)  # what is damaged is run again
    assert lines(log) == ["a0", "a0", "a0", "a1", "a2"]
    once = frame_of(toy_base, measure={"m": lambda run: note(log, "base") or 1.0}, seeds=4)
    assert once["seed"].tolist() == [0, 1, 2, 3]
    assert lines(log).count("base") == 1, "no measure takes a seed: one run for all of them"


def test_measures_draw_the_same_numbers_in_any_order_and_remember_nothing(toy_base):
    def draw(run, seed):
        return random.random() + numpy.random.rand() + torch.rand(1).item()

    known = []
    memo = {"memo": lambda run: known.append(1) or len(known)}
    first = frame_of(toy_base, measure={"one": draw, "two": draw} | memo, seeds=2, jobs=1)
    assert first["value"].nunique() == 3
    assert first["value"].tolist()[0] == first["value"].tolist()[1]
    again = frame_of(toy_base, measure=memo | {"two": draw, "one": draw}, seeds=2)
    assert again["measure"].tolist() == ["memo", "two", "one"] * 2
    assert again["run"].tolist() == first["run"].tolist()


def test_a_changed_constant_runs_again_and_a_changed_base_too(toy_base, log, tmp_path):
    def value(base, limit):
        measure = {"limit": lambda run: note(log, limit) or limit}
        return frame_of(base, measure=measure, seeds=1)["value"].tolist()

    assert [value(toy_base, limit) for limit in (1, 2, 1)] == [[1], [2], [1]]
    assert lines(log) == ["1", "2"]
    other = tmp_path / "other"
    shutil.copytree(toy_base, other)
    value(other, 1)
    assert len(lines(log)) == 2, "the same weights under another path are the same base"
    config, weights = other / "config.json", other / "model.safetensors"
    config.write_text(json.dumps({**json.loads(config.read_text()), "rms_norm_eps": 1e-3}))
    value(other, 1)
    assert len(lines(log)) == 3
    raw = weights.read_bytes()
    weights.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    value(other, 1)
    assert len(lines(log)) == 4


def test_a_run_that_fails_is_a_row_and_is_tried_again(toy_base, log):
    def measure(run, seed, profile):
        note(log, seed)
        if seed == 1:
            raise KeyError("capitall")
        return seed

    for _ in range(2):
        with pytest.warns(UserWarning, match="1 runs failed .* KeyError: 'capitall'"):
            frame = frame_of(toy_base, measure={"m": measure}, seeds=3)
    assert lines(log) == ["0", "1", "1", "2"]
    assert frame["value"].tolist()[::2] == [0, 2]
    assert frame["error"].tolist()[1].startswith("KeyError: 'capitall' (in the measure 'm', line ")
    assert frame["error"].isna().tolist() == [True, False, True]


def same_name(run):
    return pd.DataFrame({"arm": ["a"]})


def test_the_error_of_a_run_says_what_failed_and_where(toy_base):
    def typed(code):
        exec(code, space := {"__name__": "__main__", "pd": pd, "json": json})
        return {"measure": {"m": space["measure"]}}

    bad, good = [{"messages": [{"role": "user", "content": "?"}]}], conversations(2)
    nested = "def part(run):\n    return run.answers[0]\n\ndef measure(run):\n    part(run)"
    mixed = "def measure(run): return pd.DataFrame({'right': [1, 'two']})"
    twice = "def measure(run): return pd.DataFrame([[1, 2]], columns=['a', 'a'])"
    where = r"\(in the measure 'm'\)"
    cases = [
        ({"examples": [*good, *bad]}, r"ExampleError: example 2, messages\[0\].role.*"),
        ({"examples": good, "eval_dataset": bad}, "ExampleError: validation example 0, messages.*"),
        ({"examples": good, "num_train_epochs": -1}, "SettingsError: num_train.* -1.*"),
        ({"examples": lambda seed: good[seed]["rows"]}, r"KeyError: 'rows' \(in the function `.*"),
        ({"eval_dataset": good}, "TypeError: .*missing.* 'examples'"),
        (typed(nested), r".*'answers' \(in the measure 'm', line 5\)"),
        (typed("def measure(run):\n    json.loads('?')"), r".*\(in the measure 'm', line 2\)"),
        (typed("def measure(run): return ''"), rf".*it returned a str; return a number.*{where}"),
        (typed(mixed), rf".*for column right.*{where}"),
        (typed(twice), rf".*Duplicate column.*{where}"),
        ({"measure": {"m": same_name}}, rf".*'arm', which every.*{where}"),
    ]
    arms = {str(n): arm for n, (arm, _) in enumerate(cases)}
    with pytest.warns(UserWarning, match="11 runs failed"):
        frame = frame_of(toy_base, measure={"m": lambda run: 1}, arms=arms, seeds=1)
    for found, (_, said) in zip(frame["error"], cases, strict=True):
        assert re.fullmatch(said, found)


@pytest.mark.slow
def test_the_run_of_a_killed_worker_is_tried_again_alone_and_named(toy_base, log):
    def measure(run, seed):
        note(log, seed)
        if seed == 1 or (seed == 2 and lines(log).count("2") == 1):
            psutil.Process().kill()
        return seed

    with pytest.warns(UserWarning, match="WorkerDied.*tried again alone.*a smaller jobs"):
        frame = frame_of(toy_base, measure={"m": measure}, seeds=4, jobs=1)
    assert frame["value"].isna().tolist() == [False, True, False, False]
    assert lines(log) == ["0", "1", "1", "2", "2", "3"], "what was done is kept"


def test_warnings_reach_the_caller_once_also_from_the_cache(toy_base):
    def measure(run, seed):
        warnings.warn("mind the gap", stacklevel=1)
        return seed

    for _ in range(2):
        with pytest.warns(UserWarning, match="mind the gap") as caught:
            frame_of(toy_base, measure={"m": measure}, seeds=2)
        assert [str(warning.message) for warning in caught] == ["mind the gap"]


LAYER = torch.nn.Linear(1, 1)
HELD = {"deep": [LAYER]}
STREAM = (n for n in range(3))
MODEL = r"the measure 'm' uses a model from outside.*run\.model"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"arms": {"a": {"learning_rat": 1}}}, "nothing takes 'learning_rat'.*form.*learning_rate"),
        ({"arms": {"a": {"packing": 1}}, "examples": None}, "nothing takes 'packing'"),
        ({"arms": {"a": {"seed": 1}}}, "nothing takes 'seed'; .* seeds"),
        ({"seeds": [0, 0]}, "different whole numbers"),
        ({"seeds": 0}, "give how many"),
        ({"jobs": 0}, "1 or more"),
        ({"measure": {"m": lambda run, count: 1}}, "needs 'count': name it in the arm"),
        ({"measure": len}, "from names to functions"),
        ({"measure": {"m": lambda run: LAYER(1)}}, MODEL),
        ({"measure": {"m": lambda run: HELD["deep"]}}, MODEL),
        ({"measure": {"m": functools.partial(lambda run, by: 1, by=LAYER)}}, MODEL),
        ({"measure": {"m": lambda run: next(STREAM)}}, "make it inside the function"),
        ({"profile": "tinny"}, "no profile is called 'tinny'"),
    ],
)
def test_a_wrong_argument_is_an_error_with_a_remedy(toy_base, arguments, message):
    usual = {"measure": {"m": lambda run, form="a": 1}, "examples": conversations(2)}
    with pytest.raises((SweepError, UnknownProfileError), match=message):
        frame_of(**{"profile": toy_base, **usual, "settings": QUICK, **arguments})


def test_a_container_gets_as_many_workers_as_its_memory_holds(tmp_path, monkeypatch):
    """On a server with 64 cores, of which a learner may take all, and 3 GB."""
    inside = {"max": "3000000000", "current": "200000000", "stat": "inactive_file 0\nactive_file 0"}
    for name, text in inside.items():
        (tmp_path / f"memory.{name}").write_text(text)
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    monkeypatch.setattr(loky, "cpu_count", lambda: 64)

    def asked(jobs, **_):
        raise RuntimeError(f"{jobs} workers")

    monkeypatch.setattr(loky, "get_reusable_executor", asked)
    with pytest.raises(RuntimeError, match=r"^2 workers$"):
        frame_of("tiny", measure={"one": lambda run: 1.0})


@pytest.mark.slow
def test_it_trains_as_finetune_does_whatever_the_number_of_jobs(toy_base, tmp_path, monkeypatch):
    def weights(run):
        return float(sum(w.double().sum() for w in run.model.state_dict().values()))

    def items(run, seed):
        return pd.DataFrame({"output": run.answer(["What is 1?", "What is 2?"]), "item": [1, 2]})

    frames, fast = [], {"learning_rate": 1e-2}
    for jobs in (1, 2):
        monkeypatch.setenv("SFTLAB_CACHE", str(tmp_path / f"cache{jobs}"))
        frame = frame_of(
            toy_base,
            measure={"items": items, "weights": weights},
            examples=conversations,
            jobs=jobs,
            seeds=[3, 4],
            arms={"few": {"n": 8}, "many": {"n": numpy.int64(16)}, "fast": {"n": 8} | fast},
            settings=QUICK.changed(num_train_epochs=2),
        )
        frames.append(frame.drop(columns="seconds"))
    pd.testing.assert_frame_equal(*frames)
    assert frame["error"].isna().all()
    assert frame["loss"].nunique() == 6, "seed, data and rate differ"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    examples, settings = conversations(8, seed=3), QUICK.changed(num_train_epochs=2)
    run = finetune(toy_base, examples, settings=settings, seed=3, progress=False)
    torch.set_num_threads(threads)
    first = frame.iloc[2]
    assert (first["value"], first["loss"]) == (weights(run), run.history[-1]["loss"])
    assert cache.read(first["run"])["settings"] == vars(run.settings)


@pytest.mark.slow
def test_the_content_of_the_examples_decides_and_not_their_code(toy_base, log):
    def curve(run):
        note(log, run.settings.seed)
        return pd.DataFrame(run.validation).rename(columns={"loss": "nats"})

    go = functools.partial(frame_of, toy_base, measure={"curve": curve}, settings=QUICK)
    apart = {"eval_dataset": lambda seed, n: conversations(n, seed=50 + seed)}
    frame = go(examples=conversations(8), **apart, arms={"2": {"n": 2}, "3": {"n": 3}}, seeds=2)
    assert frame["nats"].nunique() == 4, "seed and n reach the function"
    assert lines(log) == ["0", "0", "1", "1"]
    go(examples=lambda: [*conversations(8)], eval_dataset=conversations(2, seed=51), seeds=2)
    assert lines(log) == ["0", "0", "0", "1", "1"], "of seed 1 the content is the same"


def four(seed):
    return conversations(4, seed=seed)


def items(run, seed, bonus=0):
    right = [True, run.settings.learning_rate > 1e-3, bonus > seed]
    return pd.DataFrame({"country": ["Chad", "Peru", "Laos"], "right": right})


@pytest.fixture
def experiment(toy_base):
    return Experiment(toy_base, measure={"items": items}, examples=four, settings=QUICK, seeds=2)


def test_arms_differ_in_what_they_name_alone(experiment):
    arms = {"slow": {}, "fast": {"learning_rate": 2e-3}, "bonus": {"bonus": 1}}
    results = experiment.run(arms, progress=False)
    assert [*results.frame["arm"].unique()] == [*arms]
    means = results.mean("items")
    found = {arm: round(estimate.value * 6) for arm, estimate in means.items()}
    assert found == {"slow": 2, "fast": 4, "bonus": 3}
    assert results.difference("fast", "slow").value == pytest.approx(1 / 3)
    assert len(results["fast"]) == len(results.of("items", arm="fast", seed=0)) * 2 == 6


def test_an_arm_may_have_other_examples_or_none(experiment):
    arms = {"trained": {}, "base": {"examples": None}, "reworded": {"examples": reworded}}
    results = experiment.run(arms, progress=False)
    assert results["base"]["loss"].isna().all()
    assert results["trained"]["loss"].notna().all()
    runs = results.frame.groupby("arm")["run"].unique()
    assert not set(runs["trained"]) & set(runs["reworded"])


def reworded(seed):
    return conversations(4, seed=seed + 50)


def test_what_is_not_there_is_named(experiment):
    with pytest.raises(SweepError, match="needs an arm"):
        experiment.run({})
    results = experiment.run({"slow": {}}, progress=False)
    with pytest.raises(SweepError, match="no row has arm 'fast'; there are slow"):
        results["fast"]
    with pytest.raises(SweepError, match="no row has measure 'facts'; there are items"):
        results.mean("facts")
