"""What outlives a stop: checkpoints, and the best epoch of early stopping."""

import math
import platform
import shutil

import pytest
from toy_run import EXAMPLES, MIXED, Stopped, before_step, equal, stop_at, talk, train

from sftlab.train import CheckpointError, ExampleError, SettingsError, last_step, load_run


@pytest.mark.parametrize(
    "how",
    [
        {"padding_free": True, "bf16": True},
        {"dropout": 0.2, "gradient_checkpointing": True, "gradient_accumulation_steps": 2},
        {"method": "lora", "learning_rate": 1e-2, "lora_dropout": 0.1},
        {"method": "lora", "use_dora": True},
        {"method": "qlora"},
        {"method": "prefix", "learning_rate": 0.1},
        {"method": "frozen"},
        {"method": "gradual"},
    ],
)
def test_stopped_and_resumed_is_uninterrupted_bit_for_bit(toy_base, tmp_path, how):
    kept = {"output_dir": tmp_path / "c", "save_steps": 2}
    how = {"num_train_epochs": 2, "per_device_train_batch_size": 3, **how}
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, 7)
        with pytest.raises(Stopped):
            train(toy_base, MIXED, **how, **kept)
    assert last_step(tmp_path / "c") == 6
    assert len(list((tmp_path / "c").glob("checkpoint-*"))) == 2
    resumed, plain = train(toy_base, MIXED, **how, **kept), train(toy_base, MIXED, **how)
    assert equal(resumed, plain)
    assert resumed.history == plain.history


def test_finished_run_is_not_trained_again_and_another_runs_folder_is_refused(toy_base, tmp_path):
    how = {"output_dir": tmp_path / "c", "save_steps": 1}
    first = train(toy_base, **how)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(platform, "platform", lambda: "another kernel")
        stop_at(patch, 0)
        again = train(toy_base, **how)
    assert equal(first, again)
    assert again.history == first.history
    for change, said in (
        ({"seed": 9}, "a run with other settings; give a new folder"),
        ({"eval_dataset": EXAMPLES[:2]}, "a run with other validation"),
        ({"output_dir": tmp_path}, "holds something else"),
    ):
        with pytest.raises(CheckpointError, match=said):
            train(toy_base, **how | change)


def test_a_half_written_checkpoint_is_not_gone_on_from(toy_base, tmp_path):
    how = {"output_dir": tmp_path / "c", "save_steps": 1}
    plain = train(toy_base, **how)
    state = tmp_path / "c" / "checkpoint-3" / "trainer_state.json"  # it is written last
    for spoil in (state.unlink, lambda: state.write_text(state.read_text()[:50])):
        spoil()
        assert last_step(tmp_path / "c") == 2
        assert equal(train(toy_base, **how), plain)
        assert last_step(tmp_path / "c") == 3
    assert last_step(tmp_path / "none") == 0


def test_neighbours_of_checkpoints_are_left_alone(toy_base, tmp_path):
    """The Trainer's own rotation would count them, and delete them as the oldest."""
    folder, names = tmp_path / "c", {"checkpoint-notes", "checkpoint-2-copy"}

    def copy():
        for name in names:
            shutil.copytree(folder / "checkpoint-2", folder / name)

    how = {"num_train_epochs": 3, "output_dir": folder, "save_steps": 1}
    with pytest.MonkeyPatch.context() as patch:
        before_step(patch, 2, copy)
        first = train(toy_base, **how)
    found = {path.name for path in folder.iterdir()}
    assert found == names | {"training.json", "checkpoint-8", "checkpoint-9"}
    assert train(toy_base, **how).history == first.history


TRAINED = [talk(f"What is {n}?", "Paris" if n % 2 else "Rome, Italy") for n in range(16)]
HELD_OUT = [talk(f"What is {n}?", "Oslo is the capital") for n in range(20, 26)]
# A constant rate, so that a run of fewer epochs has the same steps.
STOPPING = {
    "eval_dataset": HELD_OUT,
    "num_train_epochs": 8,
    "learning_rate": 5e-3,
    "lr_scheduler_type": "constant_with_warmup",
    "warmup_steps": 0,
}


def stopping(base, **settings):
    return train(base, TRAINED, **{**STOPPING, **settings})


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_best_epochs_weights_are_kept_exactly(toy_base, tmp_path, method):
    how = {"method": method, "learning_rate": 5e-3 if method == "full" else 2e-2}
    patient = stopping(toy_base, early_stopping_patience=2, **how)
    losses = [point["loss"] for point in patient.validation]
    kept = losses.index(min(losses)) + 1
    assert patient.kept_epoch == kept
    assert 1 < kept < len(losses) < 8, f"this test needs a minimum inside: {losses}"
    assert len(losses) == kept + 2
    assert patient.history[-1]["epoch"] == len(losses)
    short = stopping(toy_base, num_train_epochs=kept, **how)
    assert short.kept_epoch is None
    assert equal(patient, short)
    opened = load_run(patient.save(tmp_path / "run"))
    assert opened.kept_epoch == kept
    assert opened.validation == patient.validation
    assert opened.settings == patient.settings


def test_resumed_within_early_stopping_is_uninterrupted(toy_base, tmp_path):
    how = {"early_stopping_patience": 2, "dropout": 0.1}
    plain = stopping(toy_base, **how)
    best, last = int(plain.kept_epoch) * 2, plain.history[-1]["step"]
    assert best < last - 2
    for step in (best - 1, best, last - 1):  # within an epoch, after the best, before the stop
        kept = {"output_dir": tmp_path / str(step), "save_steps": 1}
        with pytest.MonkeyPatch.context() as patch:
            stop_at(patch, step)
            with pytest.raises(Stopped):
                stopping(toy_base, **how, **kept)
        resumed = stopping(toy_base, **how, **kept)
        with pytest.MonkeyPatch.context() as patch:
            stop_at(patch, last)  # what had stopped by itself does not go on
            again = stopping(toy_base, **how, **kept)
        for run in (resumed, again):
            assert (run.history, run.validation) == (plain.history, plain.validation)
            assert run.kept_epoch == plain.kept_epoch
            assert equal(run, plain), f"stopped before step {step + 1}"


def test_validation_changes_nothing_and_a_loss_that_still_falls_is_waited_for(toy_base):
    how = {"eval_dataset": TRAINED, "num_train_epochs": 3, "learning_rate": 1e-3}
    made, alone = stopping(toy_base, **how), stopping(toy_base, **how | {"eval_dataset": None})
    assert equal(made, alone)
    assert alone.validation == []
    assert [(p["epoch"], p["step"]) for p in made.validation] == [(1, 2), (2, 4), (3, 6)]
    assert all(math.isfinite(point["loss"]) for point in made.validation)
    end = stopping(toy_base, eval_strategy="no", **how)
    assert end.validation == made.validation[-1:]
    patient = stopping(toy_base, early_stopping_patience=1, eval_strategy="no", **how)
    assert patient.kept_epoch == 3
    assert equal(patient, made)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"eval_dataset": None, "early_stopping_patience": 1}, "give `eval_dataset`, or leave"),
        ({"eval_dataset": [*HELD_OUT, talk("?", " ")]}, "validation example 6, messages"),
        ({"eval_dataset": [*HELD_OUT, talk("x " * 90, "y")]}, "example 6 has .* nothing of its"),
    ],
)
def test_mistakes_in_validation_are_told_apart_from_those_in_the_examples(toy_base, how, said):
    with pytest.raises((SettingsError, ExampleError), match=said):
        stopping(toy_base, max_length=60, **how)
