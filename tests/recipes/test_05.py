"""The recipe's labels are those of the lab; on everything they are all tokens."""

import json
import re
import subprocess
import sys

import pytest
from transformers import AutoTokenizer

from sftlab import country_examples
from sftlab.chat import CHATML, labels
from sftlab.paths import DATA

RECIPE = DATA.parent / "recipes" / "05_loss_masks.py"
TINY = DATA / "models" / "tiny"


def by_lab(tokenizer, loss):
    row = labels(tokenizer, country_examples(8, seed=0)[0]["messages"], template=CHATML)
    if loss == "everything":
        return row.ids
    if loss == "last answer":  # and the line break after its end
        return [*row.labels[:-1], row.ids[-1]]
    return row.labels


@pytest.mark.parametrize("loss", ["answers", "last answer", "everything"])
def test_the_labels_are_those_of_the_lab(tmp_path, loss):
    rows, template = tmp_path / "rows.jsonl", tmp_path / "chatml.jinja"
    rows.write_text("".join(json.dumps(row) + "\n" for row in country_examples(8, seed=0)))
    template.write_text(CHATML)
    command = [sys.executable, str(RECIPE), "--model", str(TINY), "--data", str(rows)]
    command += ["--chat_template", str(template), "--out", str(tmp_path / "out")]
    command += ["--max_steps", "1", "--loss", loss]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    printed = re.findall(r"^ *(-?\d+) '.*'$", done.stdout, flags=re.MULTILINE)
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    assert list(map(int, printed)) == by_lab(tokenizer, loss)
    assert "8 of 8 rows have something to learn" in done.stdout
    assert (tmp_path / "out" / "model.safetensors").is_file()
