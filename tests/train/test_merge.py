"""A run as a plain model, its adapters in plain PEFT, and a second training from it."""

import json
import re
import warnings
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from toy_run import logits, same, train, write_base
from transformers import AutoModelForCausalLM, AutoTokenizer

from sftlab.models import load
from sftlab.planner import find_architecture, preflight
from sftlab.profiles import ModelNotAvailableError, UnknownProfileError, find_profile
from sftlab.train import RunError, load_run

# Its end of turn is in no vocabulary, and is added.
TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|fin|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
HOW = {"num_train_epochs": 4, "learning_rate": 1e-2, "template": TEMPLATE}
IDS = (5, 6, 2048, 9)  # 2048 is the added token
PARTS = {"config.json", "generation_config.json", "model.safetensors", "chat_template.jinja"}
PARTS |= {"tokenizer.json", "tokenizer_config.json", "run.json", "contract.json"}


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def base(request, tmp_path_factory, toy_tokenizer):
    return write_base(tmp_path_factory.mktemp("base"), toy_tokenizer, tied=request.param)


@pytest.fixture(scope="module")
def first(toy_base, tmp_path_factory):
    """The folder of a LoRA run with an added token, and its run."""
    run = train(toy_base, method="lora", **HOW)
    return run.save(tmp_path_factory.mktemp("runs") / "first"), run


def apart(one, other, ids=IDS):
    return (logits(one, ids) - logits(other, ids)).abs().max().item()


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"use_dora": True},
        {"use_rslora": True},
        {"train_control_tokens": False},
        {"target_modules": ["q_proj"]},
        {"method": "full"},
    ],
    ids=str,
)
def test_merged_it_is_a_plain_model_that_computes_the_same(base, tmp_path, how):
    run = train(base, **{"method": "lora", **HOW, **how})
    before = logits(run.model, IDS)
    folder = run.merge().save(tmp_path / "plain")
    assert torch.equal(before, logits(run.model, IDS)), "the run itself is left as it was"
    assert {file.name for file in folder.iterdir()} == PARTS
    assert str(base) not in (folder / "run.json").read_text()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain = AutoModelForCausalLM.from_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
    assert apart(plain, run.model) < 1e-5
    config = json.loads((folder / "config.json").read_text())
    rows = [len(end.weight) for end in (plain.get_input_embeddings(), plain.lm_head)]
    assert rows == [len(tokenizer)] * 2 == [config["vocab_size"]] * 2
    assert (config["architectures"], config["dtype"]) == (["Qwen3ForCausalLM"], "float32")
    asked = [{"role": "user", "content": "What is 3?"}]
    form = {"add_generation_prompt": True, "return_tensors": "pt", "return_dict": True}
    given = tokenizer.apply_chat_template(asked, **form)
    new = plain.generate(**given, max_new_tokens=24)[0, given["input_ids"].shape[1] :]
    assert tokenizer.decode(new, skip_special_tokens=True) == run.answer(["What is 3?"])[0]
    opened = load_run(folder)
    assert opened.answer(["What is 3?"]) == run.answer(["What is 3?"])
    assert opened.provenance["base_weights"] == run.provenance["base_weights"]


@pytest.mark.parametrize(("method", "most"), [("qlora", 0.6), ("int8", 0.03)])
def test_adapters_of_a_quantised_run_are_merged_into_full_weights(toy_base, tmp_path, method, most):
    pytest.importorskip("bitsandbytes")
    run = train(toy_base, method=method, **HOW)
    model = load(str(toy_base))[0]
    model.resize_token_embeddings(2049, mean_resizing=False)
    beside = PeftModel.from_pretrained(model, run.save(tmp_path / "run"))
    merged = load_run(tmp_path / "run", merge=True)
    assert not hasattr(merged.model.config, "quantization_config")
    assert apart(merged.model, beside.eval()) < 1e-5
    one, other = logits(merged.model, IDS), logits(run.model, IDS)
    # The rounding of the base is gone, which on random weights is large.
    assert 1e-4 < (one - other).square().mean().sqrt() / other.square().mean().sqrt() < most
    assert load_run(tmp_path / "run", merge=True, dtype="bfloat16").model.dtype == torch.bfloat16


def test_older_transformers_finds_its_names(toy_base, tmp_path):
    config = json.loads((toy_base / "config.json").read_text())
    rope = {"rope_type": "linear", "factor": 2.0, "rope_theta": 500_000.0}
    model = AutoModelForCausalLM.from_pretrained(toy_base, rope_parameters=dict(rope))
    model.save_pretrained(tmp_path / "base")
    AutoTokenizer.from_pretrained(toy_base).save_pretrained(tmp_path / "base")
    folder = train(tmp_path / "base", method="lora", **HOW).merge().save(tmp_path / "plain")
    config = json.loads((folder / "config.json").read_text())
    assert config["rope_theta"] == 500_000
    assert config["rope_scaling"] == {"rope_type": "linear", "factor": 2.0}
    assert AutoModelForCausalLM.from_pretrained(folder).config.rope_parameters == rope
    stated = json.loads((folder / "tokenizer_config.json").read_text())
    assert stated["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert "<|fin|>" in stated["additional_special_tokens"]
    assert "extra_special_tokens" not in stated


@pytest.mark.parametrize(
    "how", [{}, {"train_control_tokens": False}, {"method": "qlora"}, {"method": "prefix"}], ids=str
)
def test_the_lines_of_an_adapters_readme_open_it_with_peft_alone(
    toy_base, tmp_path, monkeypatch, how
):
    template = {"template": "chatml"} if how.get("method") == "prefix" else {}
    run = train(toy_base, **{"method": "lora", **HOW, **template, **how})
    monkeypatch.chdir(run.save(tmp_path / "run"))
    text = (tmp_path / "run" / "README.md").read_text()
    assert str(toy_base) not in text
    made = {}
    exec(re.search(r"```python\n(.*?)```", text, flags=re.S)[1], made)
    ids = IDS[:2] if template else IDS
    # PEFT computes in float32 with adapters that were trained in bfloat16.
    assert apart(made["model"], run.model, ids) < (0.2 if how.get("method") == "qlora" else 1e-5)
    assert made["model"].generation_config.eos_token_id == run.model.generation_config.eos_token_id
    assert made["tokenizer"].chat_template == run.tokenizer.chat_template


@pytest.mark.parametrize("method", ["lora", "full", "qlora"])
def test_a_second_and_a_third_training_go_on_from_adapters(first, tmp_path, monkeypatch, method):
    folder, run = first
    monkeypatch.chdir(folder.parents[1])
    assert apart(load_run(folder.relative_to(Path.cwd())).model, run.model) < 1e-6
    found = find_profile(folder)
    assert (found.method, found.source) == ("lora", str(folder))
    assert preflight(folder).ok
    assert find_architecture(folder).vocabulary == 2049
    begun, tokenizer = load(folder)
    assert apart(begun, run.model) < 1e-5
    assert tokenizer.chat_template == run.tokenizer.chat_template
    second = train(folder, **{**HOW, "method": method})
    assert second.provenance["added_tokens"] == []
    assert second.history[0]["loss"] < run.history[0]["loss"] / 1.2
    third = train(second.save(tmp_path / "second"), **{**HOW, "method": "lora"})
    assert apart(load_run(tmp_path / "second").model, second.model) < 1e-6
    assert apart(load_run(third.save(tmp_path / "third")).model, third.model) < 1e-6
    assert apart(third.merge().model, third.model) < 1e-5


def test_what_cannot_be_gone_on_from_says_what_to_do(first, toy_base, tmp_path):
    prefix = train(toy_base, method="prefix").save(tmp_path / "prefix")
    with pytest.raises(UnknownProfileError, match=r"holds a prefix.*--method lora"):
        train(prefix)
    with pytest.raises(RunError, match=r"holds a prefix.*README\.md.*--method lora"):
        load_run(prefix).merge()
    with pytest.raises(RunError, match="dtype is 'int4'; choose one of float32"):
        load_run(first[0], merge=True, dtype="int4")
    second = train(first[0], method="lora", **HOW).save(tmp_path / "second")
    first[0].rename(tmp_path / "elsewhere")
    with pytest.raises(ModelNotAvailableError, match="the run it went on from, where it was"):
        load_run(second)
    (tmp_path / "elsewhere").rename(first[0])
    assert same(load_run(second).merge().model.state_dict(), load(second)[0].state_dict())
    (second / "adapter_model.safetensors").rename(second / "adapter_model.bin")
    with pytest.raises(UnknownProfileError, match="no whole run of the lab"):
        load(find_profile(second, verify=False))
