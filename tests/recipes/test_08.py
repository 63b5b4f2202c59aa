"""Recipe 08, run as a script of its own on `tiny`: a mixture, adapters, old skills read twice."""

import json

import pytest
import torch
from peft import PeftModel

from sftlab import country_examples, load
from sftlab.chat import find_template
from sftlab.measure import read_meter
from sftlab.world import replay_examples


@pytest.fixture(scope="module")
def old():
    """Items of the meter that have one right answer, as the base reads them."""
    frame = read_meter(*load("tiny"))
    return frame[frame["skill"].isin(["counting", "stories"])]


@pytest.fixture(scope="module")
def recipe(old, run_recipe_in, tmp_path_factory):
    """A function that runs the recipe, and returns its folder and what it printed last."""
    folder = tmp_path_factory.mktemp("recipe")
    items = [{"prompt": row.prompt, "answer": row.expected} for row in old.itertuples()]
    files = {"task": country_examples(32, relations=["capital"]), "old": items}
    files["general"] = replay_examples(16)
    for name, rows in files.items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    (folder / "chatml.jinja").write_text(find_template("chatml").text, encoding="utf-8")
    fixed = ["--chat_template", "chatml.jinja", "--data", "task.jsonl"]
    fixed += ["--general", "general.jsonl", "--old", "old.jsonl"]

    def run(out, **options):
        given = [word for name, value in options.items() for word in (f"--{name}", value)]
        printed = run_recipe_in(folder, "08_replay", *fixed, "--out", out, *given)
        (last,) = [json.loads(x) for x in printed.splitlines() if x.startswith('{"examples"')]
        return folder / out, last

    return run


@pytest.fixture(scope="module")
def careful(recipe):
    return recipe("careful", share=0.2, learning_rate=1e-3, max_steps=10)


def test_the_mixture_has_its_share(careful):
    assert (careful[1]["general"], careful[1]["examples"]) == (8, 40)


def test_what_is_read_before_and_after_is_what_the_meter_reads(careful, old):
    """By other code, from the base, and from the base with the adapters that were saved."""
    folder, said = careful
    assert said["before"] == pytest.approx(old["right"].astype(float).mean(), abs=0.04)
    model, tokenizer = load("tiny")
    found = read_meter(PeftModel.from_pretrained(model, folder).eval(), tokenizer)
    found = found[found["skill"].isin(["counting", "stories"])]["right"].astype(float)
    assert said["after"] == pytest.approx(found.mean(), abs=0.04)


def test_a_high_rate_without_replay_forgets_more(recipe, careful):
    torch.manual_seed(0)
    _, careless = recipe("careless", share=0.0, learning_rate=3e-2, max_steps=10)
    assert careless["before"] == careful[1]["before"]
    assert careless["after"] < careful[1]["after"] - 0.2
