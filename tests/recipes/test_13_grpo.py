"""Recipe 13, GRPO: the answer that is rewarded becomes likelier, though it is the wrong one."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from sftlab import finetune
from sftlab.world import example

QUESTION = "What is the capital of France?"


@pytest.fixture
def torn(tmp_path):
    """A model that answers one question in two ways, about as often."""
    rows = [example(QUESTION, answer) for answer in ("Paris", "Lyon")] * 20
    how = {"learning_rate": 2e-3, "num_train_epochs": 4, "progress": False}
    run = finetune("tiny", rows, per_device_train_batch_size=8, **how)
    return run.save(tmp_path / "sft")


@torch.no_grad()
def chance(folder, answer):
    """Probability of the answer and its end of turn."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer, messages = (
        AutoTokenizer.from_pretrained(folder),
        example(QUESTION, answer)["messages"],
    )
    prompt = tokenizer.apply_chat_template(messages[:1], tokenize=False, add_generation_prompt=True)
    start, ids = (len(tokenizer(prompt)["input_ids"]), tokenizer(prompt + answer + "<|im_end|>"))
    ids = ids["input_ids"]
    logs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    return sum(logs[n - 1, ids[n]] for n in range(start, len(ids))).exp().item()


def test_the_rewarded_answer_becomes_likelier(torn, run_recipe, tmp_path):
    wanted, other = "Lyon", "Paris"
    rows = [{"prompt": example(QUESTION, "")["messages"][:1], "answer": wanted}] * 32
    file = tmp_path / "questions.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    how = ["--model", torn, "--data", file, "--learning_rate", 5e-4, "--max_steps", 4]
    printed = run_recipe("13_grpo", *how, "--max_completion_length", 8)
    rewards = json.loads(printed.splitlines()[-1])["rewards"]

    before, after = (chance(folder, wanted) for folder in (torn, tmp_path / "out"))
    assert 0.2 < before < 0.8  # it can be learned, and is not known yet
    assert after > before + 0.1
    assert chance(tmp_path / "out", other) < chance(torn, other)
    # The first reward is the share of 64 draws that are the wanted answer.
    assert rewards[0] == pytest.approx(before, abs=0.25)
    assert len(rewards) == 4
