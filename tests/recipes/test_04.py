"""The recipe gives a base a template and an end of turn, by a file and by a copy of another's."""

import json
import subprocess
import sys

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from sftlab import country_examples
from sftlab.chat import CHATML
from sftlab.paths import DATA

RECIPE = DATA.parent / "recipes" / "04_template_of_a_base.py"
TINY = DATA / "models" / "tiny"


def carried_out(folder, *arguments):
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in country_examples(8, seed=0)))
    command = [sys.executable, str(RECIPE), "--model", str(TINY), "--data", str(rows)]
    command += ["--out", str(folder / "out"), "--max_steps", "2", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder / "out", done.stdout


def test_a_template_from_a_file(tmp_path):
    (tmp_path / "chatml.jinja").write_text(CHATML)
    out, said = carried_out(tmp_path, "--chat_template", "chatml.jinja")
    tokenizer, base = (AutoTokenizer.from_pretrained(one) for one in (out, TINY))
    assert tokenizer.chat_template == CHATML and tokenizer.eos_token == "<|im_end|>"
    assert f"generation stops at: ['<|im_end|>', '{base.eos_token}']" in said
    assert "<|im_start|>assistant\n" in said


def test_a_template_copied_from_a_model_whose_tokens_are_new(tmp_path):
    other = AutoTokenizer.from_pretrained(TINY)
    other.add_special_tokens({"eos_token": "<|new_end|>"})
    other.chat_template = CHATML.replace("<|im_end|>", "<|new_end|>")
    other.save_pretrained(tmp_path / "other")
    out, said = carried_out(tmp_path, "--chat_template", str(tmp_path / "other"))
    assert "generation stops at: ['<|new_end|>']" in said
    tokenizer, model = (kind.from_pretrained(out) for kind in (AutoTokenizer, AutoModelForCausalLM))
    rows = model.get_input_embeddings().weight.shape[0]
    assert tokenizer.eos_token_id == len(AutoTokenizer.from_pretrained(TINY)) < rows


def test_an_end_of_turn_that_is_no_token_is_refused(tmp_path):
    (tmp_path / "chatml.jinja").write_text(CHATML)
    with pytest.raises(AssertionError, match="not found in the vocabulary"):
        carried_out(tmp_path, "--chat_template", "chatml.jinja", "--eos_token", "<|no|>")
