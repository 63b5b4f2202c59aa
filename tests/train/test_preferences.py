"""Options, prompts and trainers with which TRL goes on from a run."""

import pytest
from datasets import Dataset
from tokenizers.processors import TemplateProcessing
from toy_run import train
from trl import DPOConfig, DPOTrainer, GRPOConfig, SFTConfig

from sftlab.train import prompt_text, quietly, trl_options


@pytest.fixture(scope="module")
def run(toy_base):
    return train(toy_base)


@pytest.mark.parametrize("kind", [DPOConfig, GRPOConfig, SFTConfig])
def test_options_are_the_runs_and_changes_take_precedence(run, kind):
    config = kind(**trl_options(run))
    assert config.learning_rate == run.settings.learning_rate == 1e-3
    assert (config.bf16, config.report_to, config.save_strategy) == (False, [], "no")
    assert kind(**trl_options(run, learning_rate=5e-4, seed=3)).learning_rate == 5e-4


def test_a_prompt_is_what_the_run_answers(run):
    messages = [{"role": "user", "content": "What is 1?"}]
    text = prompt_text(run, "What is 1?")
    assert "What is 1?" in text
    assert run.tokenizer(text)["input_ids"] == run.prompt_ids(messages)


def test_a_bos_is_not_written_twice(toy_base):
    run = train(toy_base)  # its own tokenizer: it is changed
    bos, before = run.tokenizer.bos_token, prompt_text(run, "What is 1?")
    pair = {"special_tokens": [(bos, run.tokenizer.bos_token_id)]}
    run.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(f"{bos} $A", **pair)
    run.tokenizer.chat_template = bos + run.tokenizer.chat_template
    assert prompt_text(run, "What is 1?") == before
    assert run.tokenizer(before)["input_ids"].count(run.tokenizer.bos_token_id) == 1


def test_a_trainer_says_nothing(run, capfd):
    rows = {"prompt": ["What is 1?"] * 2, "chosen": [" Paris"] * 2, "rejected": [" Rome"] * 2}
    how = {"args": DPOConfig(**trl_options(run)), "processing_class": run.tokenizer}
    trainer = quietly(DPOTrainer, run.model, train_dataset=Dataset.from_dict(rows), **how)
    trainer.train()
    assert "loss" in trainer.state.log_history[0]
    assert capfd.readouterr() == ("", "")
