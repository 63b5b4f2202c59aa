"""What plans say, and what a training needs: properties, speed, refusals."""

import json
import shutil
from collections import namedtuple

import huggingface_hub
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sftlab.planner import (
    GPUS,
    ArchitectureError,
    PlanError,
    PreflightError,
    estimate,
    find_architecture,
    needs,
    operations_per_token,
    preflighting,
    speed,
)
from sftlab.profiles import METHODS, find_profile
from sftlab.train import finetune, prepare


@pytest.fixture(scope="module")
def llama_8b():
    return find_architecture("llama-3.1-8b")


@given(
    method=st.sampled_from(METHODS),
    bf16=st.booleans(),
    per_device_train_batch_size=st.integers(1, 64),
    max_length=st.integers(2, 9000),
    gradient_accumulation_steps=st.integers(1, 4),
    gradient_checkpointing=st.booleans(),
    supervised=st.floats(0.01, 1),
    device=st.sampled_from(["cpu", "cuda"]),
    padded=st.booleans(),
)
def test_parts_sum_to_the_total(llama_8b, **asked):
    assume(not (asked["method"] == "prefix" and asked["gradient_checkpointing"]))
    plan = estimate(llama_8b, **asked)
    assert plan.total == sum(plan.at_peak().values())
    assert min(plan.at_peak().values()) >= 0
    assert plan.total >= plan.weights + plan.adapters + plan.optimizer + plan.gradients * (
        plan.peak == "end"
    )
    once = estimate(llama_8b, **{**asked, "gradient_accumulation_steps": 1})
    assert plan.total >= once.total


def test_trained_weights_are_those_that_a_fine_tune_trains(toy_base):
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    for method in METHODS:
        made = finetune(
            str(toy_base), [{"messages": turns}], method=method, num_train_epochs=1, progress=False
        )
        assert estimate(toy_base, method=method, max_length=8).trained == made.trained, method


def test_operations_of_a_token_by_hand(llama_8b):
    plan = estimate(llama_8b, max_length=2048, supervised=0.5)
    linear = 8_030_261_248 - 2 * 128256 * 4096 - (2 * 32 + 1) * 4096
    head = 128256 * 4096
    forward = 2 * linear + 2 * 32 * 4096 * 2048 + head
    assert operations_per_token(plan) == 3 * forward
    for method, backward in {
        "lora": forward,
        "prefix": forward,
        "gradual": 2 * forward,
        "head": head,
        "frozen": forward - head + 2 * head,  # both gradients, in half of the layers
    }.items():
        plan = estimate(llama_8b, method=method, max_length=2048, supervised=0.5)
        assert operations_per_token(plan) == forward + backward, method


def test_every_gpu_says_where_its_figures_are_from(llama_8b):
    plan = estimate(llama_8b, method="qlora")
    for name, gpu in GPUS.items():
        pace = speed(plan, gpu=name)
        assert 0 < pace.tokens_per_second < gpu.peak / (2 * 8_030_261_248)
        assert pace.hours(pace.tokens_per_second) == pytest.approx(1 / 3600)
        assert pace.source.startswith("estimate: 30% of ")
        assert gpu.source in pace.source


def test_a_model_that_is_unknown_or_no_causal_language_model(monkeypatch, tmp_path):
    with pytest.raises(ArchitectureError, match=r"llama-9.*smollm2-135m"):
        find_architecture("llama-9")
    with pytest.raises(ArchitectureError, match=r"no folder with a config\.json"):
        find_architecture(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(ArchitectureError, match="t5 is not a causal language model"):
        find_architecture(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        ArchitectureError, match=r"can't be loaded.*network.*built-in architectures: llama"
    ):
        find_architecture("somebody/some-model-that-is-not-cached")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"per_device_train_batch_size": 0}, "per_device_train_batch_size is 0"),
        ({"supervised": 0}, "supervised is 0"),
        ({"method": "magic"}, "full, lora, qlora"),
        ({"method": "prefix", "gradient_checkpointing": True}, "does not go with"),
        ({"method": "frozen", "trained_layers": 33}, "trained_layers is 33.*32 layers"),
        ({"gpu": "abacus"}, "abacus.*a100-80gb"),
        ({"gpu": "t4", "bf16": False}, "bfloat16"),
    ],
)
def test_value_that_a_plan_can_not_have(llama_8b, asked, said):
    gpu = asked.pop("gpu", None)
    with pytest.raises(PlanError, match=said):
        speed(estimate(llama_8b, **asked), gpu=gpu)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("own") / "my.jsonl"
    rows = [{"prompt": f"What is {n * 7919:x}?", "completion": "Paris"} for n in range(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return prepare(path, profile="tiny", per_device_train_batch_size=8)


def table_of(data, folder):
    """What a training of `tiny` on the rows needs, and the rows of the table by name."""
    found = needs(data, find_profile("tiny"), folder=folder)
    return found, {row.what: row for row in found.rows}


def test_needs_are_those_planned_for_the_longest_row(data, tmp_path):
    found, rows = table_of(data, tmp_path / "new" / "run")
    assert found.ok
    longest = max(data.lengths[n].tokens for n in data.split.train)
    planned = estimate(
        "tiny",
        method="full",
        per_device_train_batch_size=8,
        max_length=longest,
        bf16=data.settings.bf16,
        supervised=sum(data.lengths[n].learned for n in data.split.train) / data.tokens,
    )
    assert f"{planned.needed / 1e9:.1f} GB" in rows["memory"].needed
    assert f"rows of {longest} tokens, 8 at a time" in rows["memory"].needed
    assert f"{planned.result / 1e6:.0f} MB" in rows["disk"].needed
    assert f"{data.steps} steps over {data.tokens:,} tokens" in rows["time"].needed


def test_what_to_do_without_memory_or_disk(data, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(preflighting, "free_memory", lambda: 0.71e9)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage(10**9, 10**9, 10**6))
    found, rows = table_of(data, tmp_path)
    with pytest.raises(PreflightError, match="add --method lora, --set per_device_train_batch"):
        found.require()
    assert not rows["disk"].ok
    assert "--out" in rows["disk"].remedy


def test_lora_beside_a_base_in_16_bits_halves_the_weights(llama_8b):
    plan, half = (estimate(llama_8b, method="lora", half_base=one) for one in (False, True))
    assert half.weights == plan.weights / 2 == 2 * 8_030_261_248
    assert (half.adapters, half.optimizer) == (plan.adapters, plan.optimizer)
    assert half.total < plan.total - half.weights
    with pytest.raises(PlanError, match="half_base"):
        estimate(llama_8b, method="full", half_base=True)
