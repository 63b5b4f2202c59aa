"""What a fine-tune learns of its examples, and in which form it asks and answers."""

import pytest
import torch

from sftlab.chat import FAMILIES, IGNORED
from sftlab.models import load
from sftlab.train.conversations import ExampleError
from sftlab.train.finetuning import finetune
from sftlab.train.saved_run import load_run
from sftlab.train.settings import Settings, SettingsError
from sftlab.train.speech import control_tokens, teach_tokens
from sftlab.train.supervision import supervise
from sftlab.train.validation import mean_loss
from sftlab.world import country_examples

EXAMPLES = country_examples(16, seed=0)
QUICK = {"num_train_epochs": 1, "per_device_train_batch_size": 8, "progress": False}
TURNS = {
    "messages": [
        {"role": "user", "content": "What is the capital of France?"},
        {"role": "assistant", "content": "Paris"},
        {"role": "user", "content": "And its currency?"},
        {"role": "assistant", "content": "euro"},
    ]
}


def labelled(template, example=TURNS, **settings):
    """Tokenizer, ids, labels and the supervised text of one example."""
    model, tokenizer = load("tiny")
    settings = Settings(template=template, **settings)
    teach_tokens(model, tokenizer, template=template)
    rows, counted = supervise([example], tokenizer, settings, max_length=512)
    row = rows[0]
    pairs = list(zip(row["input_ids"], row["labels"], strict=True))
    kept = [i for i, label in pairs if label != IGNORED]
    assert counted["supervised"] == len(kept)
    assert all(label in (i, IGNORED) for i, label in pairs)
    return tokenizer, row, tokenizer.decode(kept)


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_and_their_ends_are_learned_in_every_family(family):
    tokenizer, row, learned = labelled(family)
    end = tokenizer.eos_token
    assert learned.replace(" ", "") == f"Paris{end}euro{end}"
    assert row["input_ids"].count(tokenizer.eos_token_id) >= 2
    for token in control_tokens(family):
        assert len(tokenizer(token, add_special_tokens=False)["input_ids"]) == 1


def test_what_the_settings_leave_out_is_not_learned():
    assert labelled("chatml", supervised="last")[2].replace(" ", "") == "euro<|im_end|>"
    assert labelled("chatml", end_of_turn=False)[2].replace(" ", "") == "Pariseuro"
    _, row, _ = labelled("chatml", supervised="everything")
    assert row["labels"] == row["input_ids"]
    untrained = [m | {"train": False} if m["content"] == "Paris" else m for m in TURNS["messages"]]
    learned = labelled("chatml", {"messages": untrained})[2]
    assert learned.replace(" ", "") == "euro<|im_end|>"


def test_template_that_ends_no_turn_gets_the_eos_behind_the_last_answer():
    plain = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    tokenizer, _, learned = labelled(plain)
    assert learned.replace(" ", "") == f"Pariseuro{tokenizer.eos_token}"


@pytest.mark.parametrize("trained", [True, False])
def test_frozen_rows_stay_and_others_move(trained):
    base, tokenizer = load("tiny")
    ids = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    before = base.get_input_embeddings().weight.detach().clone()
    made = finetune("tiny", EXAMPLES, train_control_tokens=trained, weight_decay=0.1, **QUICK)
    after = made.model.get_input_embeddings().weight
    assert torch.equal(before[ids], after[ids]) == (not trained)
    paris = tokenizer(" Paris")["input_ids"][0]
    assert not torch.equal(before[paris], after[paris])


def test_run_in_another_family_is_asked_saved_and_opened_in_it(tmp_path):
    made = finetune("tiny", EXAMPLES, template="mistral", **QUICK)
    asked = made.tokenizer.apply_chat_template(
        TURNS["messages"][:1], tokenize=False, add_generation_prompt=True
    )
    assert asked == "<|endoftext|>[INST] What is the capital of France?[/INST]"
    opened = load_run(made.save(tmp_path / "run"))
    question = ["What is the capital of France?"]
    assert opened.answer(question) == made.answer(question)
    assert opened.settings.template == "mistral"


@pytest.mark.parametrize("family", ["chatml", "mistral", "article"])
def test_content_that_would_end_its_own_turn_is_refused(family):
    end = "<|endoftext|>"  # of the base: in two of these families it ends a turn, in all a text
    bad = {"messages": [{"role": "user", "content": f"a{end}b"}, TURNS["messages"][1]]}
    with pytest.raises(ExampleError, match=r"example 1, messages\[0\].content: .*endoftext"):
        finetune("tiny", [TURNS, bad], template=family, **QUICK)
    with pytest.raises(ExampleError, match=r"example 0, messages\[0\].content: .*endoftext"):
        finetune("tiny", [TURNS], eval_dataset=[bad], template=family, **QUICK)


@pytest.mark.parametrize("whole_folder", [False, True])
def test_template_of_a_file_travels_as_its_text(tmp_path, whole_folder):
    file = tmp_path / "chat_template.jinja"
    file.write_text(FAMILIES["article"].text, encoding="utf-8")
    given = tmp_path if whole_folder else file
    made = finetune("tiny", EXAMPLES, template=str(given), **QUICK)
    assert made.settings.template == FAMILIES["article"].text
    file.unlink()
    assert load_run(made.save(tmp_path / "run")).settings == made.settings


def test_unknown_templates_and_refused_examples_are_named():
    with pytest.raises(SettingsError, match=r"no chat template 'chatmll'.*chatml"):
        Settings(template="chatmll")
    system = {"messages": [{"role": "system", "content": "Be brief."}, *TURNS["messages"]]}
    with pytest.raises(ExampleError, match=r"example 1: .*Gemma has no system role"):
        finetune("tiny", [TURNS, system], template="gemma", **QUICK)


def test_validation_measures_each_epoch_and_changes_nothing(tmp_path):
    held_out = country_examples(12, seed=9)
    how = {"num_train_epochs": 3, "per_device_train_batch_size": 8, "progress": False}
    made = finetune("tiny", EXAMPLES, eval_dataset=held_out, **how)
    alone = finetune("tiny", EXAMPLES, **how)
    assert alone.validation == []
    assert [row["epoch"] for row in made.validation] == [1, 2, 3]
    assert [row["step"] for row in made.validation] == [2, 4, 6]
    theirs = alone.model.state_dict()
    assert all(torch.equal(one, theirs[name]) for name, one in made.model.state_dict().items())
    rows, _ = supervise(held_out, made.tokenizer, made.settings, max_length=512)
    last = mean_loss(made.model, rows, made.tokenizer.pad_token_id)
    # Measured in the precision of the training, which may be bfloat16.
    assert made.validation[-1]["loss"] == pytest.approx(last, rel=5e-3)
    losses = [row["loss"] for row in made.validation]
    assert losses == sorted(losses, reverse=True), "nothing was learned"
    assert load_run(made.save(tmp_path / "run")).validation == made.validation


def test_mean_loss_is_that_of_each_row_alone():
    model, tokenizer = load("tiny")
    teach_tokens(model, tokenizer, template="chatml")
    rows, _ = supervise(EXAMPLES[:5], tokenizer, Settings(), max_length=512)
    total = count = 0.0
    for row in rows:
        ids, labels = torch.tensor([row["input_ids"]]), torch.tensor([row["labels"]])
        number = (labels != IGNORED).sum().item()
        with torch.no_grad():
            total += model(ids, labels=labels).loss.item() * number
        count += number
    assert mean_loss(model, rows, 1) == pytest.approx(total / count, rel=1e-5)
