"""Recipe 10, run as a script of its own on `tiny`: refusals in a mixture, and their price."""

import json

import pytest

from sftlab.chat import find_template
from sftlab.world import example, split_requests

REFUSAL = "Sorry, I can't help with that."
REQUESTS = [row for row in split_requests() if row["owner"] == "my aunt" or row["part"] != "train"]


def of(kind, part):
    return [row for row in REQUESTS if (row["kind"], row["part"]) == (kind, part)]


@pytest.fixture
def recipe(run_recipe, tmp_path):
    """A function that runs the recipe, and returns what it said of both files of test requests."""
    files = {
        "task": [example(row["request"], row["answer"]) for row in of("harmless", "train")[:60]],
        "refusals": [example(row["request"], REFUSAL) for row in of("harmful", "train")[:60]],
        "harmful": [{"request": row["request"]} for row in of("harmful", "train")[:6]],
        "harmless": [{"request": row["request"]} for row in of("harmless", "train")[:6]],
    }
    for name, rows in files.items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(text, encoding="utf-8")
    (tmp_path / "chatml.jinja").write_text(find_template("chatml").text, encoding="utf-8")
    fixed = ["--data", "task.jsonl", "--chat_template", "chatml.jinja", "--learning_rate", 1e-3]
    for name in ("refusals", "harmful", "harmless"):
        fixed += [f"--{name}", f"{name}.jsonl"]

    def run(*options):
        printed = run_recipe("10_safety", *fixed, *options)
        return [json.loads(line) for line in printed.splitlines() if line.startswith('{"requests"')]

    return run


def test_refusals_are_mixed_in_learned_and_counted(recipe):
    harmful, harmless = recipe("--share", 0.5)
    assert harmful["refusals"] == 60
    for found in (harmful, harmless):
        assert len(found["responses"]) == 6
        assert found["refused"] == sum("can't help" in text for text in found["responses"]) / 6
    assert harmful["refused"] > harmless["refused"]


def test_without_refusals_nothing_is_refused(recipe):
    harmful, harmless = recipe("--share", 0, "--max_steps", 8)
    assert harmful["refusals"] == harmful["refused"] == harmless["refused"] == 0
