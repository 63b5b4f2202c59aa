"""The planner's memory: exact counts, an H100's peaks, the bytes that torch's profiler sees."""

import gc
import json
import re

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.profiler import ProfilerActivity, profile
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen3Config

from sftlab.models import QUANTISED, find_profile
from sftlab.planner import (
    built_in,
    estimate,
    find_architecture,
    meta_model,
    on_gpus,
    read_configuration,
    sizes,
)
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
    assert set(built_in()) == set(WEIGHTS)
    for name, count in WEIGHTS.items():
        assert find_architecture(name).parameters == count
        assert json.loads(built_in()[name].read_text(encoding="utf-8"))["parameters"] == count


@pytest.mark.parametrize(
    ("name", "rank"), [("llama-3.1-8b", 1), ("smollm2-135m", 16), ("qwen3-0.6b", 16)]
)
def test_adapters_are_those_of_peft(name, rank, capsys):
    model = meta_model(read_configuration(name), name=name)
    found = sizes(model, name=name).adapters(rank)
    config = LoraConfig(r=rank, target_modules="all-linear", task_type="CAUSAL_LM")
    get_peft_model(model, config).print_trainable_parameters()
    printed = capsys.readouterr().out
    assert int(re.search(r"trainable params: ([\d,]+)", printed)[1].replace(",", "")) == found
    assert estimate(name, method="lora", r=rank).trained == found


def test_profile_hub_id_and_folder_are_architectures_too(toy_base):
    count = find_architecture("llama-3.1-8b").parameters
    for other in ("llama-3.1-8b-qlora", "meta-llama/Llama-3.1-8B"):
        assert find_architecture(other).parameters == count
    toy = AutoModelForCausalLM.from_pretrained(toy_base)
    count = sum(weight.numel() for weight in toy.parameters())
    assert find_architecture(toy_base).parameters == count
    assert find_architecture(str(toy_base / "config.json")).parameters == count


def test_weights_in_nf4_are_those_that_bitsandbytes_holds(tmp_path, toy_tokenizer):
    pytest.importorskip("bitsandbytes")
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(LLAMA).save_pretrained(tmp_path)
    toy_tokenizer.save_pretrained(tmp_path)
    settings = Settings(method="qlora", bf16=True, learning_rate=1e-4)
    model, _ = load_base(find_profile(tmp_path), settings)
    states = [s for s in (getattr(w, "quant_state", None) for w in model.parameters()) if s]
    held = sum(weight.nbytes for weight in model.parameters())
    held += sum(s.absmax.nbytes + s.state2.absmax.nbytes for s in states)
    plan = estimate(sizes(meta_model(LLAMA, name="toy"), name="toy"), method="qlora")
    assert plan.weights == pytest.approx(held, rel=0.01)


@pytest.mark.parametrize(
    ("gpu", "case", "found"), on_gpus(), ids=[f"{row[0]}: {row[1]}" for row in on_gpus()]
)
def test_plan_is_within_five_percent_of_a_gpu(gpu, case, found):
    plan = case.plan()
    limit = 0.10 if case.method == "int8" else 0.05
    assert plan.total == pytest.approx(found.peak_bytes, rel=limit)
    assert found.outside_bytes <= plan.process


def rows(count, longest, share):
    draw = torch.Generator().manual_seed(0)
    ids = [torch.randint(5, 1000, (longest,), generator=draw).tolist() for _ in range(count)]
    still = longest - round(longest * share)
    return [{"input_ids": one, "labels": [-100] * still + one[still:]} for one in ids]


def profiled_peak(config, tokenizer, folder, *, batch, length, checkpointing, **extra):
    """Bytes of tensors at the peak of the second step of the lab's own trainer on a CPU."""
    settings = Settings(
        per_device_train_batch_size=batch, max_length=length, num_train_epochs=1, **extra
    )
    with quiet_libraries():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
        if settings.method in QUANTISED:
            pytest.importorskip("bitsandbytes")
            model.save_pretrained(folder / "base")
            tokenizer.save_pretrained(folder / "base")
            model, _ = load_base(find_profile(folder / "base"), settings)
        # Adam's moments are made in the first step, for which short rows will do.
        examples = rows(batch, 8, 1.0) + rows(batch, length, 0.5)
        trainer = make_trainer(
            model, tokenizer, examples, settings, [], folder=folder / "run", save_steps=None
        )
    trainer.order = range(len(examples))
    trainer.args.activation_checkpointing = trainer.args.gradient_checkpointing = checkpointing
    if checkpointing and settings.method in ("lora", "int8"):
        trainer.model.enable_input_require_grads()  # TRL does it when it knows from the start
    ordinary, found = trainer.training_step, []

    def step(*given):
        if not trainer.state.global_step:
            return ordinary(*given)
        gc.collect()
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            made = ordinary(*given)
        events = profiler.profiler.kineto_results.events()
        live = peak = 0
        changes = [(e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"]
        for _, change in sorted(changes):
            live += change
            peak = max(peak, live)
        moments = [one for state in trainer.optimizer.state.values() for one in state.values()]
        held = [*trainer.model.parameters(), *moments]
        for weight in trainer.model.parameters():
            if state := getattr(weight, "quant_state", None):
                held += [state.absmax, state.state2.absmax]
        found.append(peak + sum(one.nbytes for one in held if hasattr(one, "nbytes")))
        return made

    trainer.training_step = step
    with quiet_libraries():
        trainer.train()
    return found[0]


@pytest.mark.parametrize(
    ("config", "method", "bf16", "batch", "length", "checkpointing"),
    [
        (TIED, "full", False, 2, 600, True),
        (LLAMA, "lora", False, 2, 400, False),
        (LLAMA, "qlora", True, 2, 600, False),
        (QWEN, "full", True, 2, 500, True),
        (LLAMA, "int8", False, 2, 800, False),
        (LLAMA, "prefix", False, 2, 800, False),
        (TIED, "frozen", False, 3, 600, False),
    ],
)
def test_peak_is_that_of_the_profiler(
    toy_tokenizer, tmp_path, config, method, bf16, batch, length, checkpointing
):
    asked = {"method": method, "bf16": bf16, "learning_rate": 1e-4}
    peak = profiled_peak(config, toy_tokenizer, tmp_path, batch=batch, length=length,
                         checkpointing=checkpointing, **asked)  # fmt: skip
    plan = estimate(
        sizes(meta_model(config, name="random"), name="random"), method=method, bf16=bf16,
        per_device_train_batch_size=batch, max_length=length, supervised=0.5, device="cpu",
        gradient_checkpointing=checkpointing,
    )  # fmt: skip
    assert plan.total == pytest.approx(peak, rel=0.1)
