"""The planner's memory: exact counts, an H100's peaks, the bytes that torch's profiler sees."""

import gc
from itertools import accumulate

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen3Config

from sftlab.planner import estimate, find_architecture, on_gpus
from sftlab.profiles import QUANTISED, find_profile
from sftlab.quiet import quiet_libraries
from sftlab.train import Settings, load_base, make_trainer

# As the publishers and the hub's pages of the models state them.
WEIGHTS = {
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    "llama-2-7b": 6_738_415_616,
    "mistral-7b-v0.1": 7_241_732_096,
    "smollm2-135m": 134_515_008,
    "qwen3-0.6b": 596_049_920,
}
COMMON = {"vocab_size": 8192, "hidden_size": 512, "intermediate_size": 1408}
COMMON |= {"num_hidden_layers": 3, "max_position_embeddings": 4096}
LLAMA = LlamaConfig(
    **COMMON, num_attention_heads=8, num_key_value_heads=4, tie_word_embeddings=False
)
TIED = LlamaConfig(**{**LLAMA.to_dict(), "tie_word_embeddings": True, "vocab_size": 16384})
QWEN = Qwen3Config(
    **COMMON, num_attention_heads=6, num_key_value_heads=2, head_dim=128, tie_word_embeddings=True
)


def test_weights_are_exact():
    for name, count in WEIGHTS.items():
        assert find_architecture(name).parameters == count


def test_profile_hub_id_and_folder_are_architectures_too(toy_base):
    count = find_architecture("llama-3.1-8b").parameters
    for other in ("llama-3.1-8b-qlora", "meta-llama/Llama-3.1-8B"):
        assert find_architecture(other).parameters == count
    toy = AutoModelForCausalLM.from_pretrained(toy_base)
    count = sum(weight.numel() for weight in toy.parameters())
    assert find_architecture(toy_base).parameters == count


@pytest.mark.parametrize(
    ("gpu", "case", "found"), on_gpus(), ids=[f"{row[0]}: {row[1]}" for row in on_gpus()]
)
def test_plan_is_within_five_percent_of_a_gpu(gpu, case, found):
    plan = case.plan()
    limit = 0.10 if case.method == "int8" else 0.05
    assert plan.total == pytest.approx(found["peak_bytes"], rel=limit)
    assert found["outside_bytes"] <= plan.process


def held(model):
    """Bytes of a model's weights, and of the scales of those in NF4."""
    states = (getattr(weight, "quant_state", None) for weight in model.parameters())
    scales = sum(one.absmax.nbytes + one.state2.absmax.nbytes for one in states if one)
    return sum(weight.nbytes for weight in model.parameters()) + scales


def rows(count, longest, share):
    draw = torch.Generator().manual_seed(0)
    ids = [torch.randint(5, 1000, (longest,), generator=draw).tolist() for _ in range(count)]
    still = longest - round(longest * share)
    return [{"input_ids": one, "labels": [-100] * still + one[still:]} for one in ids]


def profiled(trainer):
    """Bytes of tensors at the peak of the last step of a training on a CPU."""
    ordinary, found = trainer.training_step, []

    def step(*given):
        gc.collect()
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            made = ordinary(*given)
        events = profiler.profiler.kineto_results.events()
        changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
        live = accumulate(change for _, change in changes)
        moments = [one for state in trainer.optimizer.state.values() for one in state.values()]
        found.append(max(live) + held(trainer.model) + sum(one.nbytes for one in moments))
        return made

    trainer.training_step = step
    with quiet_libraries():
        trainer.train()
    return found[-1]


@pytest.mark.parametrize(
    ("config", "method", "bf16", "batch", "length", "checkpointing"),
    [
        (TIED, "full", False, 2, 600, True),
        (LLAMA, "lora", False, 2, 400, False),
        (LLAMA, "qlora", True, 2, 300, False),
        (QWEN, "full", True, 2, 250, True),
        (LLAMA, "int8", False, 2, 800, False),
        (LLAMA, "prefix", False, 2, 800, False),
        (TIED, "frozen", False, 3, 600, False),
    ],
)
def test_weights_are_those_held_and_peak_is_that_of_the_profiler(
    toy_tokenizer, tmp_path, config, method, bf16, batch, length, checkpointing
):
    if method in QUANTISED:
        pytest.importorskip("bitsandbytes")
    asked = {"method": method, "bf16": bf16, "gradient_checkpointing": checkpointing}
    asked |= {"per_device_train_batch_size": batch, "max_length": length}
    settings = Settings(
        learning_rate=1e-4, num_train_epochs=1, train_sampling_strategy="sequential", **asked
    )
    with quiet_libraries():
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "base")
        toy_tokenizer.save_pretrained(tmp_path / "base")
        plan = estimate(tmp_path / "base", supervised=0.5, device="cpu", **asked)
        model, tokenizer = load_base(find_profile(tmp_path / "base"), settings)
        assert plan.weights == pytest.approx(held(model), rel=0.01)
        # Adam's moments are made in the first step, for which short rows will do.
        examples = rows(batch, 8, 1.0) + rows(batch, length, 0.5)
        trainer = make_trainer(
            model, tokenizer, examples, settings, [], folder=tmp_path / "run", save_steps=None
        )
    assert plan.total == pytest.approx(profiled(trainer), rel=0.1)
