"""Recipe 12_entities: labels by offsets, strict F1 on held-out rows, a saved model."""

import json
from random import Random

import pytest
import torch
from transformers import AutoModelForTokenClassification, AutoTokenizer

from sftlab import countries

NAMES = "Ada Ben Clara Dino Elsa Finn Greta Hugo Inga Jonas".split()


def row(name, city):
    text = f"{name} lives in {city}."
    start = text.index(city)
    spans = [(0, len(name), "person"), (start, start + len(city), "city")]
    return {
        "text": text,
        "entities": [dict(zip(("start", "end", "label"), s, strict=True)) for s in spans],
    }


@pytest.fixture
def write(tmp_path):
    """A function that writes rows to a JSONL, and returns its path."""

    def write(rows):
        file = tmp_path / "names.jsonl"
        file.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
        return file

    return write


def test_it_learns_to_mark_names_and_saves_a_model_that_marks_them(run_recipe, write, tmp_path):
    draw = Random(0)
    cities = [one.capital for one in countries(split="sft")]
    rows = [row(draw.choice(NAMES), draw.choice(cities)) for _ in range(200)]
    printed = run_recipe("12_entities", "--data", write(rows), "--learning_rate", 1e-3)
    said = json.loads(next(x for x in printed.splitlines() if x.startswith('{"rows"')))
    assert said["rows"] == 200
    assert said["strict_f1"] > 0.9

    model = AutoModelForTokenClassification.from_pretrained(tmp_path / "out").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert model.config.id2label == {0: "O", 1: "city", 2: "person"}
    tokens = tokenizer("Ada lives in Paris.", return_tensors="pt", return_offsets_mapping=True)
    offsets = tokens.pop("offset_mapping")[0].tolist()
    with torch.no_grad():
        likeliest = model(**tokens).logits[0].argmax(-1).tolist()
    marked = {
        name: {
            model.config.id2label[label]
            for (start, end), label in zip(offsets, likeliest, strict=True)
            if start < stop and end > first
        }
        for name, first, stop in [("Ada", 0, 3), ("lives", 4, 9), ("Paris", 13, 18)]
    }
    assert marked == {"Ada": {"person"}, "lives": {"O"}, "Paris": {"city"}}


def test_without_training_the_score_is_low(run_recipe, write):
    rows = [row(name, one.capital) for name in NAMES for one in countries(split="sft")[:4]]
    printed = run_recipe("12_entities", "--data", write(rows), "--learning_rate", 0)
    assert json.loads(printed.splitlines()[-1])["strict_f1"] < 0.3


@pytest.mark.parametrize(("start", "end"), [(0, 99), (3, 3), (-1, 2)])
def test_a_span_that_is_not_in_the_text_is_refused(run_recipe, write, capsys, start, end):
    broken = row("Ada", "Paris")
    broken["entities"].append({"start": start, "end": end, "label": "city"})
    with pytest.raises(SystemExit):
        run_recipe("12_entities", "--data", write([row("Ben", "Oslo"), broken]))
    assert f"row 2: the span {start} to {end} is not in its 19" in capsys.readouterr().err
