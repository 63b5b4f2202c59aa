"""Recipe 06, run as a script of its own on `tiny`: packing, accumulation, resuming, reloading."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from sftlab import country_examples
from sftlab.chat import find_template, label_rows
from sftlab.paths import DATA
from sftlab.train import supervised_loss

RECIPE = Path(__file__).parents[2] / "recipes" / "06_training.py"
EXAMPLES = country_examples(200)


@pytest.fixture(scope="module")
def again(tmp_path_factory):
    """A function that runs the recipe, and returns what it printed last: a line an answer."""
    folder = tmp_path_factory.mktemp("recipe")
    rows = "".join(json.dumps(row) + "\n" for row in EXAMPLES)
    (folder / "train.jsonl").write_text(rows, encoding="utf-8")
    (folder / "chatml.jinja").write_text(find_template("chatml").text, encoding="utf-8")
    fixed = ["--model", str(DATA / "models" / "tiny"), "--data", "train.jsonl"]
    fixed += ["--chat_template", "chatml.jinja", "--learning_rate", "1e-3"]
    fixed += ["--max_steps", "6", "--save_steps", "3"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder), "PYTHONPATH": ""}

    def run(out):
        command = [sys.executable, str(RECIPE), *fixed, "--out", str(out)]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        return [json.loads(line) for line in done.stdout.splitlines() if '"answer"' in line]

    return run


@pytest.fixture(scope="module")
def first(again, tmp_path_factory):
    out = tmp_path_factory.mktemp("first") / "out"
    return out, again(out)


def test_only_standard_tools_are_imported():
    text = RECIPE.read_text(encoding="utf-8")
    found = set(re.findall(r"^(?:from|import) (\w+)", text, flags=re.M))
    assert found <= {"json", "argparse", "pathlib", "torch", "datasets", "transformers", "trl"}
    assert "trust_remote_code" not in text


def test_packed_neighbours_do_not_see_each_other(first):
    """The first loss is the base's on its packed rows: it equals that of the examples one by one,
    which a row whose neighbours see each other would miss."""
    out, _ = first
    state = json.loads((out / "checkpoint-6" / "trainer_state.json").read_text())
    logged = [row["loss"] for row in state["log_history"] if "loss" in row]
    assert logged[-1] < logged[0] / 2
    tokenizer = AutoTokenizer.from_pretrained(out)
    model = AutoModelForCausalLM.from_pretrained(DATA / "models" / "tiny", dtype=torch.float32)
    total = count = 0
    for row in label_rows(tokenizer, EXAMPLES):
        labels = torch.tensor([row.labels])
        with torch.no_grad():
            total += supervised_loss(model, {"input_ids": torch.tensor([row.ids])}, labels, 1).item()
        count += row.supervised
    assert logged[0] == pytest.approx(total / count, rel=0.05)


def test_a_killed_run_ends_at_the_same_weights(again, first, tmp_path):
    out, answers = first
    killed = tmp_path / "killed"
    shutil.copytree(out / "checkpoint-3", killed / "checkpoint-3")
    assert again(killed) == answers
    weights, other = (load_file(folder / "model.safetensors") for folder in (out, killed))
    assert all(torch.equal(weights[name], other[name]) for name in weights)


def test_the_answers_are_those_of_the_saved_model_one_by_one(first):
    """Left padding: in a batch padded on the right the shorter questions get other answers."""
    out, answers = first
    tokenizer, model = AutoTokenizer.from_pretrained(out), AutoModelForCausalLM.from_pretrained(out)
    asked = [row["messages"][:1] for row in EXAMPLES[:4]]
    assert [one["question"] for one in answers] == [messages[0]["content"] for messages in asked]
    lengths = set()
    for messages, one in zip(asked, answers, strict=True):
        how = {"add_generation_prompt": True, "return_dict": True, "return_tensors": "pt"}
        prompt = tokenizer.apply_chat_template(messages, **how)
        length = prompt["input_ids"].shape[1]
        written = model.generate(**prompt, max_new_tokens=32, do_sample=False)[0, length:]
        assert tokenizer.decode(written, skip_special_tokens=True) == one["answer"]
        lengths.add(length)
    assert len(lengths) > 1, "questions of one length need no padding"
