"""Recipe 06 on `tiny`: packed neighbours, a run that was killed, the saved model's answers."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from sftlab import country_examples
from sftlab.chat import find_template, label_rows
from sftlab.paths import DATA
from sftlab.train import supervised_loss


def test_packs_resumes_and_reloads(run_recipe, tmp_path):
    template, out, killed = (tmp_path / name for name in ("chatml.jinja", "out", "killed"))
    template.write_text(find_template("chatml").text, encoding="utf-8")
    how = ["--chat_template", template, "--learning_rate", 1e-3, "--max_steps", 4]
    how += ["--save_steps", 2]

    def answered(*more):
        printed = run_recipe("06_training", *how, *more).splitlines()
        return [json.loads(line) for line in printed if '"answer"' in line]

    answers = answered()
    tokenizer, model = AutoTokenizer.from_pretrained(out), AutoModelForCausalLM.from_pretrained(out)

    # A step is the whole file, two packed rows: its first loss is that of the base on the examples
    # one by one, which it would not be if packed neighbours saw each other.
    state = json.loads((out / "checkpoint-4" / "trainer_state.json").read_text(encoding="utf-8"))
    logged = [row["loss"] for row in state["log_history"] if "loss" in row]
    base = AutoModelForCausalLM.from_pretrained(DATA / "models" / "tiny", dtype=torch.float32)
    rows = label_rows(tokenizer, country_examples(24))
    with torch.no_grad():
        losses = [
            supervised_loss(
                base, {"input_ids": torch.tensor([row.ids])}, torch.tensor([row.labels]), 1
            )
            for row in rows
        ]
    mean = sum(map(float, losses)) / sum(row.supervised for row in rows)
    assert logged[0] == pytest.approx(mean, rel=1e-3)
    assert logged[-1] < logged[0] / 2

    # Of a killed run the checkpoint is left; the same command ends at the same weights.
    shutil.copytree(out / "checkpoint-2", killed / "checkpoint-2")
    assert answered("--out", killed) == answers
    weights, other = (load_file(folder / "model.safetensors") for folder in (out, killed))
    assert all(torch.equal(weights[name], other[name]) for name in weights)

    # Left padding: padded on the right, the shorter questions get other answers than alone.
    lengths = set()
    for row, said in zip(country_examples(4), answers, strict=True):
        form = {"add_generation_prompt": True, "return_dict": True, "return_tensors": "pt"}
        prompt = tokenizer.apply_chat_template(row["messages"][:1], **form)
        lengths.add(length := prompt["input_ids"].shape[1])
        written = model.generate(**prompt, max_new_tokens=32, do_sample=False)[0, length:]
        assert tokenizer.decode(written, skip_special_tokens=True) == said["answer"]
    assert len(lengths) > 1, "questions of one length need no padding"
