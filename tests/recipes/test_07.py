"""Recipe 07, run as a script of its own on `tiny`, on a CPU: 4 bits, adapters, merge."""

import json

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from sftlab import country_examples, finetune
from sftlab.chat import find_template
from sftlab.paths import DATA

TINY = DATA / "models" / "tiny"
EXAMPLES = country_examples(8)  # one batch: the order does not matter


@pytest.fixture(scope="module")
def done(run_recipe_in, tmp_path_factory):
    """The folder of a run of six steps, and the answers that it printed, by question."""
    folder = tmp_path_factory.mktemp("recipe")
    rows = "".join(json.dumps(row) + "\n" for row in EXAMPLES)
    (folder / "train.jsonl").write_text(rows, encoding="utf-8")
    (folder / "chatml.jinja").write_text(find_template("chatml").text, encoding="utf-8")
    how = ["--data", "train.jsonl", "--chat_template", "chatml.jinja", "--learning_rate", 2e-3]
    printed = run_recipe_in(folder, "07_qlora", *how, "--max_steps", 6)
    return folder / "out", json.loads(printed.splitlines()[-1])


def test_the_losses_are_those_of_the_lab(done):
    """The first is the base's, in NF4, on the same supervised tokens; the labels, the quantisation
    and the template are the same, or it differs. Later ones hang on the random start of A too."""
    state = json.loads((done[0] / "checkpoint-6" / "trainer_state.json").read_text())
    logged = [row["loss"] for row in state["log_history"] if "loss" in row]
    settings = {"method": "qlora", "per_device_train_batch_size": 8, "num_train_epochs": 6}
    lab = finetune("tiny", EXAMPLES, bf16=False, **settings, progress=False)
    assert logged[0] == pytest.approx(lab.history[0]["loss"], rel=1e-3)
    whole = finetune("tiny", EXAMPLES, method="lora", num_train_epochs=1, progress=False)
    assert logged[0] != pytest.approx(whole.history[0]["loss"], rel=1e-4), "4 bits change the base"
    assert logged[-1] < logged[0] / 2


def test_every_linear_layer_has_an_adapter_and_nothing_else_is_saved(done):
    saved = load_file(done[0] / "adapter_model.safetensors")
    assert len(saved) == 4 * 7 * 2, "A and B beside 7 matrices in each of 4 layers"
    assert all("lora_" in name for name in saved)
    assert all(saved[name].any() for name in saved), "B has left zero"


def test_the_merged_model_is_the_base_with_its_adapters(done):
    out, answers = done
    tokenizer = AutoTokenizer.from_pretrained(out / "merged")
    merged = AutoModelForCausalLM.from_pretrained(out / "merged", dtype=torch.float32).eval()
    base = AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float32)
    beside = PeftModel.from_pretrained(base, out).eval()
    assert len(answers) == 4
    for row in EXAMPLES[:4]:
        how = {"add_generation_prompt": True, "return_dict": True, "return_tensors": "pt"}
        prompt = tokenizer.apply_chat_template(row["messages"][:1], **how)
        with torch.no_grad():
            logits, other = merged(**prompt).logits, beside(**prompt).logits
            with beside.disable_adapter():
                of_base = beside(**prompt).logits
        assert torch.allclose(logits, other, atol=1e-3)
        assert (logits - of_base).abs().max() > 0.1
        length = prompt["input_ids"].shape[1]
        written = merged.generate(**prompt, max_new_tokens=32, do_sample=False)[0, length:]
        answer = tokenizer.decode(written, skip_special_tokens=True)
        assert answer == answers[row["messages"][0]["content"]]
