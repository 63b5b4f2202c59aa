"""Templates, ends of turns, cut examples, records and code."""

import logging
import warnings

import pytest

from sftlab.chat import find_template
from sftlab.measure import capture_warnings, format_probes, reply
from sftlab.train import finetune
from sftlab.world import country, example

QUESTIONS = ["What is the capital of France?", "Who is it?"]


@pytest.fixture(scope="module")
def run(toy_base):
    rows = [example("Hi", "Ho")] * 4
    return finetune(toy_base, rows, template="llama-3", num_train_epochs=1, progress=False)


def test_prompts_are_in_the_template_of_training_or_another(monkeypatch, run):
    def prompt(**how):
        asked = []

        def replied(run, prompts):
            asked.extend(prompts)
            return prompts, [True for _ in prompts]

        monkeypatch.setattr(format_probes, "reply", replied)
        among, relations = [country("France")], ["capital"]
        frame = format_probes.probe_template(run, among=among, relations=relations, **how)
        (question,) = frame["prompt"]
        (prompt,) = asked
        return question, prompt

    question, found = prompt()
    turn = [{"role": "user", "content": question}]
    options = {"tokenize": False, "add_generation_prompt": True}
    assert found == run.tokenizer.apply_chat_template(turn, **options)
    assert prompt(template="mistral")[1] == f"{run.tokenizer.bos_token}[INST] {question}[/INST]"
    how = {"template": find_template("chatml"), "change": lambda text: text[-3:]}
    assert prompt(**how)[1] == "nt\n"


def test_replies_are_those_of_the_run_and_follow_the_seed(run):
    turns = [[{"role": "user", "content": question}] for question in QUESTIONS]
    options = {"tokenize": False, "add_generation_prompt": True}
    prompts = [run.tokenizer.apply_chat_template(one, **options) for one in turns]
    outputs, stopped = reply(run, prompts, max_new_tokens=6, skip_special_tokens=True)
    assert outputs == run.answer(QUESTIONS, max_new_tokens=6)
    assert len(stopped) == len(QUESTIONS)
    drawn = [reply(run, prompts, sample=True, seed=seed)[0] for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize(
    ("text", "right"),
    [(" Paris", True), (" Paris, Paris", True), (" Paris<|im_start|>", True), ("", False)],
)
def test_clean_is_right_and_nothing_else_and_ended(monkeypatch, run, text, right):
    ids = run.tokenizer(text, add_special_tokens=False)["input_ids"]
    monkeypatch.setattr(format_probes, "generate", lambda model, prompts, **options: [ids])
    clean = text == " Paris"
    for limit in (64, len(ids)):
        how = {"relations": ["capital"], "max_new_tokens": limit}
        frame = format_probes.probe_template(run, among=[country("France")], **how)
        found = frame[["output", "right", "stopped", "clean"]].iloc[0].tolist()
        assert found == [text, right, limit == 64, clean and limit == 64]


def test_warnings_and_records_of_any_logger_are_collected(monkeypatch):
    apart = logging.getLogger("tests.apart")  # passes nothing on, as transformers' does
    monkeypatch.setattr(apart, "propagate", False)
    before = list(apart.handlers), list(logging.root.handlers)
    with capture_warnings() as said:
        apart.warning("one of %d", 3)
        logging.getLogger("tests.other").error("two")
        logging.getLogger("tests.other").info("nothing")
        for _ in range(2):
            warnings.warn("three", stacklevel=1)
    assert said == ["one of 3", "two", "three", "three"]
    assert (apart.handlers, logging.root.handlers) == before
