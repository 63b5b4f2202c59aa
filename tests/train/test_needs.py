"""What a training needs against what the machine has: told from the rows themselves."""

import json
import shutil
from collections import namedtuple
from dataclasses import replace

import pytest

from sftlab.models import METHODS, find_profile
from sftlab.planner import PreflightError, estimate, find_architecture
from sftlab.planner import preflighting as module
from sftlab.train.own_data import prepare
from sftlab.train.settings import Settings


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("own") / "my.jsonl"
    rows = [{"prompt": f"What is {n * 7919:x}?", "completion": "Paris"} for n in range(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return prepare(path, profile="tiny", per_device_train_batch_size=8)


def row(found, what):
    (one,) = [one for one in found.rows if one.what == what]
    return one


def test_memory_is_the_planners_for_the_longest_row(data, tmp_path):
    found = module.needs(data, find_profile("tiny"), folder=tmp_path / "new" / "run")
    assert found.ok
    longest = max(data.lengths[n].tokens for n in data.split.train)
    planned = estimate(
        find_architecture("tiny"),
        method="full",
        per_device_train_batch_size=8,
        max_length=longest,
        bf16=data.settings.bf16,
        supervised=sum(data.lengths[n].learned for n in data.split.train) / data.tokens,
    )
    assert f"{planned.needed / 1e9:.1f} GB" in row(found, "memory").needed
    assert f"rows of {longest} tokens, 8 at a time" in row(found, "memory").needed
    assert f"{planned.result / 1e6:.0f} MB" in row(found, "disk").needed
    assert f"{data.steps} steps over {data.tokens:,} tokens" in row(found, "time").needed


def test_what_to_do_without_memory_or_disk(data, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(module, "free_memory", lambda: 0.71e9)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage(10**9, 10**9, 10**6))
    found = module.needs(data, find_profile("tiny"), folder=tmp_path)
    assert not found.ok
    single = "--set per_device_train_batch_size=1"
    with pytest.raises(PreflightError, match=f"--method lora {single} needs"):
        found.require()
    assert f"{single} --set gradient_accumulation_steps=8" in row(found, "memory").remedy
    assert not row(found, "disk").ok
    assert "--out" in row(found, "disk").remedy


def test_an_unknown_architecture_stops_nothing(data, tmp_path, monkeypatch):
    def unknown(name):
        raise module.ArchitectureError("no such sizes")

    monkeypatch.setattr(module, "find_architecture", unknown)
    found = module.needs(data, find_profile("tiny"), folder=tmp_path)
    assert row(found, "memory").needed == "unknown"


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_its_figures_and_ways_out(data, tmp_path, monkeypatch, method):
    profile, settings = find_profile("tiny"), Settings(method=method, per_device_train_batch_size=8)
    changed = replace(data, settings=settings.filled(profile))
    planned = estimate(
        find_architecture("tiny"), method=method, per_device_train_batch_size=8, max_length=30
    )
    found = module.needs(changed, profile, folder=tmp_path)
    assert found.method == method
    needed = float(row(found, "memory").needed.split()[1])
    assert needed == pytest.approx(planned.needed / 1e9, abs=0.15)
    monkeypatch.setattr(module, "free_memory", lambda: 1e6)
    remedy = row(module.needs(changed, profile, folder=tmp_path), "memory").remedy
    assert "--method lora needs" in remedy
    assert ("--set gradient_checkpointing=True needs" in remedy) == (method != "prefix")
