"""The recipe's labels are those of the lab; on everything they are all tokens."""

import json
import re

import pytest
from transformers import AutoTokenizer

from sftlab import find_profile
from sftlab.chat import CHATML, labels

TINY = find_profile("tiny").source


def expected(tokenizer, messages, loss):
    row = labels(tokenizer, messages, template=CHATML)
    if loss == "everything":
        return row.ids
    if loss == "last answer":  # and the line break after its end
        return [*row.labels[:-1], row.ids[-1]]
    return row.labels


@pytest.mark.parametrize("loss", ["answers", "last answer", "everything"])
def test_the_labels_are_those_of_the_lab(run_recipe, country_file, tmp_path, loss):
    template = tmp_path / "chatml.jinja"
    template.write_text(CHATML, encoding="utf-8")
    options = ["--chat_template", template, "--loss", loss, "--max_steps", 1]
    printed = run_recipe("05_loss_masks", *options)
    rows = [json.loads(line) for line in country_file.read_text().splitlines()]
    assert f"{len(rows)} of {len(rows)} rows have something to learn" in printed
    found = [int(n) for n in re.findall(r"^ *(-?\d+) ['\"].*['\"]$", printed, re.MULTILINE)]
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    assert found == expected(tokenizer, rows[0]["messages"], loss)
    assert (tmp_path / "out" / "model.safetensors").is_file()
