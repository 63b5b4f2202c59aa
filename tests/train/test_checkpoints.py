"""A folder of checkpoints: what in it is the run's, and what is someone else's."""

import json
import platform
import shutil

import numpy as np
import pytest

from sftlab.train import adapters, trainer
from sftlab.train import finetuning as module
from sftlab.train.checkpoints import WHOLE, CheckpointError
from sftlab.train.finetuning import finetune
from sftlab.train.own_folder import last_step
from sftlab.train.settings import SettingsError

EXAMPLES = [
    {
        "messages": [
            {"role": "user", "content": f"What is {n}?"},
            {"role": "assistant", "content": "Paris"},
        ]
    }
    for n in range(12)
]


def train(base, folder, *, save_steps=1, **settings):
    how = {"num_train_epochs": 1, "per_device_train_batch_size": 4, "progress": False, **settings}
    return finetune(str(base), EXAMPLES, output_dir=folder, save_steps=save_steps, **how)


def own(folder):
    return sorted(file.parent.name for file in folder.glob(f"checkpoint-*/{WHOLE}"))


def put_beside(folder):
    """What a learner may keep there: a copy of a checkpoint, notes, a file, an empty folder."""
    shutil.copytree(folder / "checkpoint-2", folder / "checkpoint-best")
    for name in ("checkpoint-notes", "checkpoint-2-copy", "old-checkpoint-1"):
        (folder / name).mkdir()
        (folder / name / "mine.txt").write_text(name)
    (folder / "checkpoint-").mkdir()
    (folder / "checkpoint-notes.txt").write_text("mine")
    return files(folder)


def files(folder):
    """Everything in a folder that isn't the run's own, with what is in it."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
        if path.relative_to(folder).parts[0] not in {"recipe.json", *OWN}
    }


OWN = {f"checkpoint-{step}" for step in range(1, 10)}


def test_neighbours_of_checkpoints_are_left_alone_by_a_resume(toy_base, tmp_path):
    first = train(toy_base, tmp_path / "c")
    before = put_beside(tmp_path / "c")
    again = train(toy_base, tmp_path / "c")
    assert files(tmp_path / "c") == before
    assert again.history == first.history


def test_neighbours_of_checkpoints_outlive_the_checkpoints_that_follow(
    toy_base, tmp_path, monkeypatch
):
    """The trainer's own rotation would count them, and delete them as the oldest."""
    plain = train(toy_base, tmp_path / "plain", num_train_epochs=3)
    mark, before = trainer.mark_whole, {}

    def mark_and_put_beside(folder, step):
        mark(folder, step)
        if step == 2:
            before.update(put_beside(folder))

    monkeypatch.setattr(trainer, "mark_whole", mark_and_put_beside)
    run = train(toy_base, tmp_path / "c", num_train_epochs=3)
    assert before
    assert files(tmp_path / "c") == before
    assert {"checkpoint-8", "checkpoint-9"} == {*own(tmp_path / "c")} - {"checkpoint-best"}
    assert own(tmp_path / "plain") == ["checkpoint-8", "checkpoint-9"]
    assert run.history == plain.history


def test_half_written_checkpoint_is_removed_and_never_a_link(toy_base, tmp_path):
    train(toy_base, tmp_path / "c")
    (tmp_path / "c" / "checkpoint-3" / WHOLE).unlink()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    try:
        (tmp_path / "c" / "checkpoint-7").symlink_to(tmp_path / "mine", target_is_directory=True)
    except OSError:
        pytest.skip("this system lets only an administrator make links")
    train(toy_base, tmp_path / "c")
    assert own(tmp_path / "c") == ["checkpoint-2", "checkpoint-3"]
    assert (tmp_path / "c" / "checkpoint-7" / "notes.txt").read_text() == "mine"


def test_last_step_reads_the_runs_own_checkpoints(tmp_path):
    for name in ("checkpoint-5", "checkpoint-10", "checkpoint-best", "checkpoint-5-copy-20"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
        (tmp_path / "checkpoints" / name / WHOLE).touch()
    (tmp_path / "checkpoints" / "checkpoint-15").mkdir()  # half-written
    assert last_step(tmp_path) == 10
    assert last_step(tmp_path / "none") == 0


@pytest.mark.parametrize("steps", [0, -1, 2.5, 0.5, 2.0, True, "a", None, np.int64(0)])
def test_steps_between_checkpoints_are_checked_before_the_model_is_loaded(
    toy_base, tmp_path, monkeypatch, steps
):
    monkeypatch.setattr(adapters, "load_base", lambda *a, **k: pytest.fail("it was loaded"))
    with pytest.raises(SettingsError) as caught:
        train(toy_base, tmp_path / "c", save_steps=steps)
    assert str(caught.value) == f"save_steps is {steps!r}; give a whole number of steps, 1 or more"
    assert not (tmp_path / "c").exists()


def test_steps_between_checkpoints_may_be_numpys(toy_base, tmp_path):
    train(toy_base, tmp_path / "c", save_steps=np.int64(2))
    assert own(tmp_path / "c") == ["checkpoint-2", "checkpoint-3"]


def test_on_another_kernel_a_run_goes_on_and_with_another_torch_it_does_not(
    toy_base, tmp_path, monkeypatch
):
    first = train(toy_base, tmp_path / "c")
    begun = (tmp_path / "c" / "recipe.json").read_bytes()
    before = (tmp_path / "c" / "checkpoint-3" / WHOLE).stat().st_mtime_ns
    monkeypatch.setattr(platform, "platform", lambda: "Linux-6.99-x86_64-with-glibc2.99")
    again = train(toy_base, tmp_path / "c")
    assert again.history == first.history
    assert again.provenance["platform"] == "Linux-6.99-x86_64-with-glibc2.99"
    assert (tmp_path / "c" / "checkpoint-3" / WHOLE).stat().st_mtime_ns == before
    assert (tmp_path / "c" / "recipe.json").read_bytes() == begun
    assert json.loads(begun)["platform"] == first.provenance["platform"]
    known = module.version
    monkeypatch.setattr(module, "version", lambda p: "9.9" if p == "torch" else known(p))
    with pytest.raises(CheckpointError, match="a run with other packages; give a new folder"):
        train(toy_base, tmp_path / "c")
