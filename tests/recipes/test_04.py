"""The recipe gives a base a template and an end of turn, by a file and by a copy of another's."""

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from sftlab import find_profile
from sftlab.chat import CHATML

TINY = find_profile("tiny").source
RECIPE = ("04_template_of_a_base", "--max_steps", 1)


@pytest.fixture
def template(tmp_path):
    file = tmp_path / "chatml.jinja"
    file.write_text(CHATML, encoding="utf-8")
    return file


def test_a_template_from_a_file(run_recipe, template, tmp_path):
    printed = run_recipe(*RECIPE, "--chat_template", template)
    assert "generation stops at: ['<|im_end|>', '<|endoftext|>']" in printed
    assert "<|im_start|>assistant\n" in printed
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.chat_template == CHATML
    assert tokenizer.eos_token == "<|im_end|>"


def test_a_template_copied_from_a_model_whose_end_of_turn_is_new(run_recipe, tmp_path):
    base = AutoTokenizer.from_pretrained(TINY)
    other = AutoTokenizer.from_pretrained(TINY)
    other.add_special_tokens({"eos_token": "<|new_end|>"})
    other.chat_template = CHATML.replace("<|im_end|>", "<|new_end|>")
    other.save_pretrained(tmp_path / "other")
    printed = run_recipe(*RECIPE, "--chat_template", tmp_path / "other")
    assert "generation stops at: ['<|new_end|>']" in printed
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert AutoTokenizer.from_pretrained(tmp_path / "out").eos_token_id == len(base)
    assert model.get_input_embeddings().weight.shape[0] > len(base)


def test_an_end_of_turn_that_is_no_token_is_refused(run_recipe, template):
    with pytest.raises(ValueError, match="not found in the vocabulary"):
        run_recipe(*RECIPE, "--chat_template", template, "--eos_token", "<|no|>")
