"""Recipe 12 for classifiers, run as a script on `tiny`: what it learns, chooses and saves."""

import json

import pytest
import torch
from datasets import load_dataset
from safetensors.torch import load_file
from sklearn.calibration import calibration_curve
from transformers import AutoModelForSequenceClassification, AutoTokenizer

GOOD, BAD = "good great fine lovely".split(), "bad awful poor ugly".split()
THINGS = "hotel lamp phone film book game chair meal tent radio museum concert".split()


def texts(words):
    return [f"The {thing} was {word}." for word in words for thing in THINGS]


@pytest.fixture
def rows(tmp_path):
    """96 rows whose label is in one word, in a file."""
    made = [{"text": text, "label": "positive"} for text in texts(GOOD)]
    made += [{"text": text, "label": "negative"} for text in texts(BAD)]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in made), encoding="utf-8")
    return file


@pytest.fixture
def predict(tmp_path):
    """A function that gives the saved model's probabilities of texts, and its labels' names."""

    def run(texts):
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
        model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
        with torch.no_grad():
            batch = tokenizer(texts, padding=True, return_tensors="pt")
            return model(**batch).logits.softmax(-1), model.config.id2label

    return run


@pytest.fixture
def parts(rows, tmp_path):
    """The splits that the recipe makes, made again."""
    how = {"test_size": 0.2, "seed": 0, "stratify_by_column": "label"}
    data = load_dataset("json", data_files=str(rows), split="train", cache_dir=str(tmp_path / "c"))
    rest, test = data.class_encode_column("label").train_test_split(**how).values()
    train, validation = rest.train_test_split(**how).values()
    return {"train": train, "validation": validation, "test": test}


def scores(printed):
    return json.loads(printed.splitlines()[-1])


def test_what_is_saved_has_the_printed_scores_and_the_test_split_chose_nothing(
    run_recipe, rows, parts, predict, tmp_path
):
    """Where each text of the test split says the contrary of its label the same model is saved."""
    how = ("--learning_rate", 1e-3, "--data")
    said = scores(run_recipe("12_classification", *how, rows))
    assert said["test"] >= 0.9
    for name in ("validation", "test"):
        p, names = predict(list(parts[name]["text"]))
        assert names == {0: "negative", 1: "positive"}
        right = (p.argmax(-1) == torch.tensor(parts[name]["label"])).numpy()
        assert right.mean() == pytest.approx(said[name])
    confidence = p.max(-1).values.numpy()
    share, stated = calibration_curve(right, confidence, n_bins=10)
    sizes = torch.histc(torch.tensor(confidence), 10, 0, 1).numpy()
    expected = (abs(share - stated) * sizes[sizes > 0]).sum() / len(right)
    assert said["ece"] == pytest.approx(expected, abs=1e-4)

    contrary = dict(zip(texts(GOOD) + texts(BAD), texts(BAD) + texts(GOOD), strict=True))
    made = [json.loads(line) for line in rows.read_text("utf-8").splitlines()]
    for row in made:
        if row["text"] in list(parts["test"]["text"]):
            row["text"] = contrary[row["text"]]
    other = tmp_path / "contrary.jsonl"
    other.write_text("".join(json.dumps(row) + "\n" for row in made), encoding="utf-8")
    after = scores(run_recipe("12_classification", *how, other, "--out", tmp_path / "other"))
    assert after["validation"] == said["validation"]
    assert after["test"] <= 0.1
    first, second = (load_file(tmp_path / out / "model.safetensors") for out in ("out", "other"))
    assert all(torch.equal(first[name], second[name]) for name in first)
