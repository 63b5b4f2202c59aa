"""Recipe 14, run as a script of its own on `tiny`: prompt and completion, merged at the end."""

import json

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from sftlab.chat import CHATML


def test_it_learns_the_answers_alone_and_saves_a_whole_model(run_recipe, country_file, tmp_path):
    template = tmp_path / "chatml.jinja"
    template.write_text(CHATML, encoding="utf-8")
    short = ("--chat_template", template, "--learning_rate", 2e-3, "--max_steps", 12)
    said = json.loads(run_recipe("14_real_model", *short).splitlines()[-1])
    assert said["before"] == 0
    assert 0 <= said["after"] <= 1
    assert len(said["losses"]) == 12
    assert said["losses"][-1] < said["losses"][0] / 2
    assert not (tmp_path / "out" / "adapter_config.json").exists()
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.chat_template == CHATML
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True, return_dict=True, return_tensors="pt",
    )  # fmt: skip
    with torch.no_grad():
        assert merged(**prompt).logits.isfinite().all()
