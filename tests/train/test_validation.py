"""Stopping by the validation loss: which epoch is kept, exactly, and also when it is resumed."""

import math

import pytest
import torch

from sftlab.train.conversations import ExampleError
from sftlab.train.finetuning import finetune
from sftlab.train.saved_run import load_run
from sftlab.train.settings import SettingsError
from sftlab.train.supervision import supervise
from sftlab.train.validation import LOSS, best, mean_loss, stops


def row(question, answer):
    return {
        "messages": [
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ]
    }


TRAINED = [row(f"What is {n}?", "Paris" if n % 2 else "Rome, Italy") for n in range(16)]
HELD_OUT = [row(f"What is {n}?", "Oslo is the capital") for n in range(20, 26)]
# A constant rate, so that a run of fewer epochs has the same steps.
SETTINGS = {
    "bf16": False,
    "per_device_train_batch_size": 8,
    "num_train_epochs": 8,
    "learning_rate": 5e-3,
    "lr_scheduler_type": "constant_with_warmup",
    "warmup_steps": 0.0,
    "progress": False,
}


def run(base, **settings):
    return finetune(str(base), TRAINED, eval_dataset=HELD_OUT, **{**SETTINGS, **settings})


def equal(one, other):
    one, other = one.model.state_dict(), other.model.state_dict()
    return all(torch.equal(one[name], other[name]) for name in other)


def log(*losses):
    return [{"loss": 9.0}, *({"epoch": n + 1.0, "step": n, LOSS: v} for n, v in enumerate(losses))]


@pytest.mark.parametrize(
    ("losses", "kept", "stopping"),
    [
        ((), None, {}),
        ((3,), 1, {1: False}),
        ((3, 2, 1), 3, {1: False, 2: False}),
        ((3, 2, 2), 2, {1: True, 2: False}),
        ((3, 1, 2, 2), 2, {1: True, 2: True, 3: False}),
        ((math.nan, 5, math.nan), 2, {1: True, 2: False}),
        ((math.nan, math.nan), 1, {1: True, 2: False}),
        ((math.inf, math.nan), 1, {1: True}),
    ],
)
def test_the_best_epoch_and_when_to_stop(losses, kept, stopping):
    assert best(log(*losses)) == kept
    for patience, expected in stopping.items():
        assert stops(log(*losses), patience) is expected


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_best_epochs_weights_are_kept_exactly(toy_base, method):
    settings = {"method": method, "learning_rate": 5e-3 if method == "full" else 2e-2}
    patient = run(toy_base, early_stopping_patience=2, **settings)
    losses = [point["loss"] for point in patient.validation]
    kept = losses.index(min(losses)) + 1
    assert patient.kept_epoch == kept
    assert 1 < kept < len(losses) < 8, f"this test needs a minimum inside: {losses}"
    assert len(losses) == kept + 2
    assert patient.history[-1]["epoch"] == len(losses)
    short = run(toy_base, num_train_epochs=kept, **settings)
    assert short.kept_epoch is None
    assert equal(patient, short)
    assert not equal(patient, run(toy_base, num_train_epochs=kept + 1, **settings))


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"method": "frozen"},
        {"method": "gradual", "dropout": 0.1},
        {"method": "head"},
        {"method": "prefix", "learning_rate": 0.3},
        {"method": "qlora", "learning_rate": 2e-2},
        {"method": "lora", "init_lora_weights": "pissa", "learning_rate": 5e-3},
        {"method": "lora", "use_dora": True, "learning_rate": 2e-2, "dropout": 0.1},
    ],
    ids=lambda settings: "-".join(
        [settings["method"], *(k for k in settings if "use_" in k or "init" in k)]
    ),
)
def test_under_every_method_the_run_has_the_lowest_loss(toy_base, settings):
    made = run(toy_base, early_stopping_patience=1, num_train_epochs=5, **settings)
    rows, _ = supervise(HELD_OUT, made.tokenizer, made.settings, max_length=128)
    losses = [point["loss"] for point in made.validation]
    assert losses[int(made.kept_epoch) - 1] == min(losses)
    again = mean_loss(made.model, rows, made.tokenizer.pad_token_id)
    assert again == pytest.approx(min(losses), rel=1e-3)


def test_a_loss_that_still_falls_is_waited_for(toy_base):
    patient = finetune(
        str(toy_base),
        TRAINED,
        eval_dataset=TRAINED,
        early_stopping_patience=1,
        **{**SETTINGS, "num_train_epochs": 3, "learning_rate": 1e-3},
    )
    assert patient.kept_epoch == 3
    whole = finetune(
        str(toy_base), TRAINED, **{**SETTINGS, "num_train_epochs": 3, "learning_rate": 1e-3}
    )
    assert equal(patient, whole)


def test_saved_and_opened_it_is_told(toy_base, tmp_path):
    made = run(toy_base, early_stopping_patience=1)
    opened = load_run(made.save(tmp_path / "run"))
    assert opened.kept_epoch == made.kept_epoch is not None
    assert opened.settings.early_stopping_patience == 1


class Killed(Exception):
    pass


def interrupted(monkeypatch, at):
    """Training that ends at a step as a kill does: no more checkpoints after it."""
    from sftlab.train.step import SupervisedTrainer

    plain = SupervisedTrainer.training_step

    def step(self, *args, **kwargs):
        if self.state.global_step == at:
            raise Killed
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(SupervisedTrainer, "training_step", step)


@pytest.mark.slow
def test_resumed_is_uninterrupted(toy_base, tmp_path, monkeypatch):
    settings = {"early_stopping_patience": 2, "dropout": 0.1}
    plain = run(toy_base, **settings)
    best_step = int(plain.kept_epoch) * 2
    last = plain.history[-1]["step"]
    assert best_step < last - 2
    for number, at in enumerate((best_step - 1, best_step, last - 1)):
        folder = tmp_path / str(number)
        with monkeypatch.context() as patch:
            interrupted(patch, at)
            with pytest.raises(Killed):
                run(toy_base, output_dir=folder, save_steps=1, **settings)
        resumed = run(toy_base, output_dir=folder, save_steps=1, **settings)
        assert resumed.history == plain.history
        assert resumed.validation == plain.validation
        assert resumed.kept_epoch == plain.kept_epoch
        assert equal(resumed, plain), f"killed after step {at}"


def test_a_run_that_had_stopped_is_not_trained_on(toy_base, tmp_path, monkeypatch):
    settings = {"early_stopping_patience": 1, "output_dir": tmp_path / "c", "save_steps": 5}
    plain = run(toy_base, **settings)
    assert plain.history[-1]["step"] % 5, "the stop itself has to write the checkpoint"
    interrupted(monkeypatch, plain.history[-1]["step"])
    again = run(toy_base, **settings)
    assert (again.history, again.validation) == (plain.history, plain.validation)
    assert again.kept_epoch == plain.kept_epoch
    assert equal(again, plain)


def test_checkpoints_with_another_validation_are_refused(toy_base, tmp_path):
    run(toy_base, num_train_epochs=1, output_dir=tmp_path / "c")
    with pytest.raises(ValueError, match="a run with other validation"):
        finetune(
            str(toy_base),
            TRAINED,
            eval_dataset=TRAINED,
            output_dir=tmp_path / "c",
            **{**SETTINGS, "num_train_epochs": 1},
        )


def test_measured_at_the_end_alone_the_loss_is_the_same(toy_base):
    each, some = run(toy_base), run(toy_base, eval_strategy="no")
    assert [point["epoch"] for point in some.validation] == [8]
    assert some.validation == [point for point in each.validation if point["epoch"] == 8]
    assert equal(some, each)
    with pytest.raises(SettingsError, match="needs the loss after each epoch"):
        run(toy_base, eval_strategy="no", early_stopping_patience=2)


def test_patience_without_validation_is_refused(toy_base):
    with pytest.raises(SettingsError, match="give `eval_dataset`"):
        finetune(str(toy_base), TRAINED, early_stopping_patience=1, **SETTINGS)


def test_a_mistake_in_validation_is_told_apart_from_one_in_the_examples(toy_base):
    bad = [*HELD_OUT, row("?", " ")]
    with pytest.raises(ExampleError, match="validation example 6, messages"):
        finetune(str(toy_base), TRAINED, eval_dataset=bad, **SETTINGS)
    with pytest.raises(ExampleError, match="no validation examples"):
        finetune(str(toy_base), TRAINED, eval_dataset=[], **SETTINGS)
    with pytest.raises(ExampleError, match=r"validation example 6 has .* nothing of its answer"):
        finetune(
            str(toy_base),
            TRAINED,
            eval_dataset=[*HELD_OUT, row("x " * 90, "y")],
            **{**SETTINGS, "max_length": 60},
        )
