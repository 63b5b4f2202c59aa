"""Asking in a template of one's choice: prompts as text, and what counts as a clean answer."""

from types import SimpleNamespace

import pytest

from sftlab.chat import find_template
from sftlab.measure import templates
from sftlab.measure.templates import probe_template, render_questions, reply
from sftlab.train import finetune
from sftlab.world import country

QUESTIONS = ["What is the capital of France?", "Who is it?"]


@pytest.fixture(scope="module")
def run(toy_base):
    example = {
        "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
    }
    return finetune(toy_base, [example] * 4, template="llama-3", num_train_epochs=1, progress=False)


def test_prompts_are_in_the_form_of_training(run):
    apply = run.tokenizer.apply_chat_template
    asked = [[{"role": "user", "content": question}] for question in QUESTIONS]
    assert render_questions(run, QUESTIONS) == [
        apply(one, tokenize=False, add_generation_prompt=True) for one in asked
    ]
    assert render_questions(run, QUESTIONS, generation_prompt=False) == [
        apply(one, tokenize=False) for one in asked
    ]


def test_prompts_in_another_form_have_the_bos_of_the_run(run):
    (prompt,) = render_questions(run, QUESTIONS[:1], template="mistral")
    assert prompt == f"{run.tokenizer.bos_token}[INST] {QUESTIONS[0]}[/INST]"
    assert render_questions(run, QUESTIONS[:1], template=find_template("chatml")) == [
        f"<|im_start|>user\n{QUESTIONS[0]}<|im_end|>\n<|im_start|>assistant\n"
    ]


def test_change_is_made_to_each_prompt(run):
    assert render_questions(run, QUESTIONS, template="chatml", change=lambda text: text[-3:]) == [
        "nt\n", "nt\n",
    ]  # fmt: skip


def test_replies_are_those_of_the_run(run):
    outputs, stopped = reply(run, render_questions(run, QUESTIONS), max_new_tokens=6)
    ids = [run.tokenizer(text, add_special_tokens=False)["input_ids"] for text in outputs]
    plain = [run.tokenizer.decode(one, skip_special_tokens=True) for one in ids]
    assert plain == run.answer(QUESTIONS, max_new_tokens=6)
    assert len(stopped) == len(QUESTIONS)


def written(monkeypatch, tokenizer, texts):
    """Let the model write these texts, whatever it is asked."""

    def generate(model, prompts, **options):
        return [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]

    monkeypatch.setattr(templates, "generate", generate)
    return SimpleNamespace(model=None, tokenizer=tokenizer)


def test_special_tokens_are_shown_and_the_limit_is_no_stop(monkeypatch, run):
    tokenizer = run.tokenizer
    limit = len(tokenizer(" Paris", add_special_tokens=False)["input_ids"])
    texts = [" Paris", "<|im_end|>", " Paris<|im_end|>"]
    stub = written(monkeypatch, tokenizer, texts)
    assert reply(stub, ["a"] * 3, max_new_tokens=limit + 1) == (texts, [True, True, False])
    assert reply(stub, ["a"] * 3, max_new_tokens=limit)[1] == [False, limit > 1, False]


@pytest.mark.parametrize(
    ("text", "right", "clean"),
    [
        (" Paris", True, True),
        ("Paris", True, True),
        (" Paris, Paris", True, False),
        (" Paris<|im_start|>", True, False),
        (" Rome", False, False),
        ("", False, False),
    ],
)
def test_clean_is_right_and_nothing_else(monkeypatch, run, text, right, clean):
    stub = written(monkeypatch, run.tokenizer, [text])
    for limit, stopped in ((64, True), (1, False)):
        frame = probe_template(
            stub, among=[country("France")], relations=["capital"], max_new_tokens=limit
        )
        row = frame.iloc[0]
        assert bool(row["right"]) == right
        assert bool(row["clean"]) == (clean and row["stopped"])
        assert row["stopped"] == (stopped or text == "")


def test_sampling_follows_its_seed(run):
    prompts = render_questions(run, QUESTIONS)
    drawn = [reply(run, prompts, sample=True, seed=seed)[0] for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
