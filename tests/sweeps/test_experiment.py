"""Experiments: arms that differ in one thing, on a random two-layer model."""

import loky
import pandas as pd
import pytest

from sftlab.sweeps import Experiment, SweepError
from sftlab.train import Settings

QUICK = Settings(num_train_epochs=1, per_device_train_batch_size=8, learning_rate=1e-3)


@pytest.fixture(scope="module", autouse=True)
def _no_process_left():
    yield
    loky.get_reusable_executor().shutdown(kill_workers=True)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SFTLAB_CACHE", str(tmp_path / "cache"))


def numbers(seed, first="What is"):
    answer = {"role": "assistant", "content": "Paris"}
    return [
        {"messages": [{"role": "user", "content": f"{first} {seed + i}?"}, answer]}
        for i in range(4)
    ]


def items(run, seed, bonus=0):
    right = [True, run.settings.learning_rate > 1e-3, bonus > seed]
    return pd.DataFrame({"country": ["Chad", "Peru", "Laos"], "right": right})


@pytest.fixture
def experiment(toy_base):
    return Experiment(toy_base, measure={"items": items}, examples=numbers, settings=QUICK, seeds=2)


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
    return numbers(seed, first="Tell me")


def test_what_is_not_there_is_named(experiment):
    with pytest.raises(SweepError, match="needs an arm"):
        experiment.run({})
    with pytest.raises(SweepError, match="nothing takes 'learning_speed'"):
        experiment.run({"odd": {"learning_speed": 1}}, progress=False)
    results = experiment.run({"slow": {}}, progress=False)
    with pytest.raises(SweepError, match="no row has arm 'fast'; there are slow"):
        results["fast"]
    with pytest.raises(SweepError, match="no row has measure 'facts'; there are items"):
        results.mean("facts")
