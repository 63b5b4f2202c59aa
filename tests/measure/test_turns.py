import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from sftlab.chat import setup_chat_template
from sftlab.measure.turns import probe_endings, probe_user_turns, user_opening
from sftlab.world import countries


@pytest.fixture
def pair(toy_base):
    model = AutoModelForCausalLM.from_pretrained(toy_base, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(toy_base)
    setup_chat_template(model, tokenizer, template="article")
    return model, tokenizer


def always(model, token):
    """Make the model write one token for ever."""
    with torch.no_grad():
        head = model.get_output_embeddings()
        bias = torch.full((head.weight.shape[0],), -1e4)
        bias[token] = 1e4
    head.register_forward_hook(lambda module, given, scores: scores + bias)


def test_a_model_that_ends_at_once_does_not_run_on(pair):
    model, tokenizer = pair
    always(model, tokenizer.eos_token_id)
    found = probe_endings(model, tokenizer, among=countries()[:3], relations=["capital"])
    assert len(found) == 3
    assert not found["ran_on"].any()
    assert list(found["output"]) == [""] * 3


def test_a_model_that_never_ends_runs_on(pair):
    model, tokenizer = pair
    always(model, tokenizer("a")["input_ids"][-1])
    found = probe_endings(model, tokenizer, among=countries()[:2], max_new_tokens=5)
    assert found["ran_on"].all()
    assert set(found["output"]) == {"aaaaa"}
    assert {"country", "right", "reaction"} <= set(found)


@pytest.mark.parametrize(("letter", "asked"), [("?", True), ("a", False)])
def test_a_user_turn_counts_as_asked_when_it_holds_a_question_mark(pair, letter, asked):
    model, tokenizer = pair
    always(model, tokenizer(letter)["input_ids"][-1])
    found = probe_user_turns(model, tokenizer, draws=3, max_new_tokens=4)
    assert list(found["output"]) == [letter * 4] * 3
    assert list(found["asked"]) == [asked] * 3


def test_draws_follow_the_seed_and_differ(pair):
    one, two, other = (probe_user_turns(*pair, draws=4, seed=seed) for seed in (1, 1, 2))
    assert list(one["output"]) == list(two["output"]) != list(other["output"])
    assert one["output"].nunique() > 1


@pytest.mark.parametrize(
    ("template", "opening"),
    [("article", "<|prompt|>"), ("chatml", "<|im_start|>user\n"), ("phi-3", "<|user|>\n")],
)
def test_the_opening_of_a_user_turn_is_the_templates(toy_base, template, opening):
    model = AutoModelForCausalLM.from_pretrained(toy_base, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(toy_base)
    setup_chat_template(model, tokenizer, template=template)
    assert user_opening(tokenizer) == opening
