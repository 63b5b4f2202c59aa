"""Recipe 13, DPO: what it prints is read off the folders before and after by other code."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from sftlab import country_rows, finetune, wrong_answers


@pytest.fixture
def tuned(tmp_path):
    rows = wrong_answers(country_rows(100), share=0.4)
    return finetune("tiny", rows, per_device_train_batch_size=8, progress=False).save(
        tmp_path / "sft"
    )


@torch.no_grad()
def log_probs(folder, rows, side):
    """Of each answer with the end of its turn, and of nothing that the template writes after it."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer, found = AutoTokenizer.from_pretrained(folder), []
    for row in rows:
        text = tokenizer.apply_chat_template(row["prompt"] + row[side], tokenize=False)
        ids = tokenizer(text[: text.rindex("<|im_end|>") + len("<|im_end|>")])["input_ids"]
        start = len(
            tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True).input_ids
        )
        logs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        found.append(sum(logs[n - 1, ids[n]].item() for n in range(start, len(ids))))
    return torch.tensor(found)


def test_the_loss_and_both_log_probabilities_are_those_of_the_folders(tuned, run_recipe, tmp_path):
    right, rows = country_rows(24, seed=7), []
    for row, other in zip(right, wrong_answers(right, share=1), strict=True):
        answers = {"chosen": row["messages"][1:], "rejected": other["messages"][1:]}
        rows.append({"prompt": row["messages"][:1], **answers})
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    how = ["--model", tuned, "--data", file, "--learning_rate", 3e-4, "--beta", 0.5]
    printed = json.loads(run_recipe("13_dpo", *how).splitlines()[-1])

    sides = ("chosen", "rejected")
    places = (tuned, tmp_path / "out")
    found = {side: [log_probs(place, rows, side) for place in places] for side in sides}
    for side in sides:
        own = [one.mean().item() for one in found[side]]
        assert printed[f"logps/{side}"] == pytest.approx(own, abs=0.05)
    gained = [after - before for before, after in found.values()]
    loss = -torch.nn.functional.logsigmoid(0.5 * (gained[0] - gained[1])).mean().item()
    assert printed["loss"] == pytest.approx([0.6931, loss], abs=0.01)
    assert printed["loss"][1] < 0.6
