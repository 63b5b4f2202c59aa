"""The recipe, run on a fine-tune of `tiny`, answers as the lab does and counts by hand."""

import json

import pytest

from sftlab import behind_prompt, countries, country_examples, finetune, load
from sftlab.measure import LOCAL_METRICS
from sftlab.profiles import find_profile

TRAIN = country_examples(40, seed=0)
TEST = country_examples(24, seed=1, among=countries(split="held_out", group="asked"))


def plain(text):
    return text.strip().split("\n")[0].strip(" .")


def test_batches_with_left_padding_answer_as_the_lab_does_and_differences_are_paired(
    run_recipe, tmp_path
):
    run = finetune("tiny", TRAIN, per_device_train_batch_size=8, progress=False)
    saved, base = str(run.save(tmp_path / "run")), find_profile("tiny").source
    for name, rows in {"train": TRAIN, "test": TEST}.items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(text, encoding="utf-8")
    files = ["--data", tmp_path / "test.jsonl", "--shots", tmp_path / "train.jsonl"]
    models = ["--model", saved, "--baseline", base, "--metric", LOCAL_METRICS]
    assert "24 questions" in run_recipe("09_evaluation", *files, *models)
    result = json.loads((tmp_path / "out").read_text())

    questions = [row["messages"][0]["content"] for row in TEST]
    said = list(map(plain, run.answer(questions, max_new_tokens=32)))
    assert result["outputs"][saved] == said
    shots = [tuple(turn["content"] for turn in row["messages"]) for row in TRAIN[:4]]
    theirs = behind_prompt(*load("tiny"), shots, max_new_tokens=32)(questions)
    assert result["outputs"][base] == list(map(plain, theirs))

    right = [row["messages"][1]["content"] for row in TEST]
    gaps = [(a == t) - (b == t) for a, b, t in zip(said, map(plain, theirs), right, strict=True)]
    assert result["difference"] == pytest.approx(sum(gaps) / len(gaps))
    assert result["low"] <= result["difference"] <= result["high"]
