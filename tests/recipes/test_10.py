"""Recipe 10, run as a script of its own on `tiny`: refusals in a mixture, and what is refused."""

import json

import pytest

from sftlab.chat import find_template
from sftlab.world import example, split_requests

REFUSAL = "Sorry, I can't help with that."


def rows(kind, part):
    return [row for row in split_requests() if (row["kind"], row["part"]) == (kind, part)]


@pytest.fixture
def recipe(run_recipe, tmp_path):
    """A function that runs the recipe, and returns what it said of both files of test requests."""
    files = {
        "task": [example(row["request"], row["answer"]) for row in rows("harmless", "train")[::13]],
        "refusals": [example(row["request"], REFUSAL) for row in rows("harmful", "train")[::13]],
        "harmful": [{"request": row["request"]} for row in rows("harmful", "new request")[::32]],
        "harmless": [{"request": row["request"]} for row in rows("harmless", "new request")[::32]],
    }
    options = ["--chat_template", tmp_path / "chatml.jinja", "--learning_rate", 1e-3]
    options[1].write_text(find_template("chatml").text, encoding="utf-8")
    for name, found in files.items():
        file = tmp_path / f"{name}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
        options += ["--data" if name == "task" else f"--{name}", file]

    def run(*more):
        printed = run_recipe("10_safety", *options, *more)
        return [json.loads(line) for line in printed.splitlines() if line.startswith('{"requests"')]

    return run


def test_refusals_are_mixed_in_learned_and_counted(recipe):
    harmful, harmless = recipe("--share", 0.5)
    assert harmful["refusals"] == 60
    for found in (harmful, harmless):
        assert found["refused"] == sum("can't help" in text for text in found["responses"]) / 6
    assert harmful["refused"] > harmless["refused"]


def test_without_refusals_nothing_is_refused(recipe):
    harmful, harmless = recipe("--share", 0, "--max_steps", 8)
    assert harmful["refusals"] == harmful["refused"] == harmless["refused"] == 0
