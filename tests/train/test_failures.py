"""What ends a training early, and what is left of it: one line, and the checkpoints before."""

import json
import os
import pickle
import shutil
import warnings
from functools import partial

import pytest
from safetensors.torch import load_file, save_file
from toy_run import EXAMPLES, Stopped, before_step, equal, stop_at, train

from sftlab.train import CheckpointError, Settings, SettingsError, TrainingError, last_step
from sftlab.train.checkpoints import CheckpointWarning

KEPT = {"num_train_epochs": 2, "save_steps": 2}
"""Six steps, with checkpoints of 2, 4 and 6, of which two stay."""


@pytest.mark.parametrize("how", [{}, {"method": "lora"}, {"eval_dataset": EXAMPLES[:4]}])
def test_a_diverged_training_ends_with_step_rate_and_remedy(toy_base, tmp_path, how):
    steep = {"learning_rate": 100.0, "weight_decay": 1e9, "max_grad_norm": 0.0, "warmup_steps": 2}
    with pytest.raises(TrainingError) as told:
        train(toy_base, output_dir=tmp_path / "c", **steep, **how, num_train_epochs=9, save_steps=1)
    said = str(told.value)
    step = int(said.partition("at step ")[2].split(",")[0])
    assert step > 1
    assert ("nan" in said) or ("inf" in said)
    for part in ("learning rate 1", "--rate", "warmup_steps", "max_grad_norm", "new folder"):
        assert part in said
    assert last_step(tmp_path / "c") == step - 1
    for file in (tmp_path / "c").rglob("*.json"):
        json.loads(file.read_text(), parse_constant=pytest.fail)


def test_a_base_that_is_not_finite_is_said_at_once(toy_base, tmp_path):
    base = shutil.copytree(toy_base, tmp_path / "base")
    file = base / "model.safetensors"
    save_file({name: one * float("nan") for name, one in load_file(file).items()}, file)
    with pytest.raises(TrainingError, match=r"step 1, .* another base"):
        train(base)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("seed", [-1, 2**32, 2**64, 1.0, "1", True]),
        ("learning_rate", [float("nan"), float("inf"), 0, -1e-3, 1e30, "1e-3"]),
        ("num_train_epochs", [float("nan"), float("inf"), 0, -1, 1e12]),
        ("per_device_train_batch_size", [0, -1, 10**12, 1.5]),
        ("max_length", [0, -1, 10**10]),
        ("warmup_steps", [float("inf"), float("nan"), -1]),
        ("max_grad_norm", [float("inf"), float("nan"), -1]),
        ("r", [0, 10**4000]),
    ],
)
def test_a_value_that_no_training_can_have_is_refused(name, values):
    for value in values:
        with pytest.raises(SettingsError, match=f"^{name} is ") as told:
            Settings(**{name: value})
        assert len(str(told.value)) < 200
    assert Settings(seed=2**32 - 1).seed == 2**32 - 1


DAMAGE = {
    "trainer_state.json": lambda content: b"[]",
    "optimizer.pt": lambda content: content[:200] + bytes([content[200] ^ 1]) + content[201:],
    "scheduler.pt": lambda content: b"",
    "rng_state.pth": lambda content: pickle.dumps(print),
    "model.safetensors": lambda content: content[:-9],
}


@pytest.fixture(scope="module")
def checkpoints(toy_base, tmp_path_factory):
    """A folder with checkpoints 2 and 4, and the run that it would have become."""
    folder = tmp_path_factory.mktemp("whole") / "c"
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, 5)
        with pytest.raises(Stopped):
            train(toy_base, output_dir=folder, **KEPT)
    return folder, train(toy_base, **KEPT)


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_checkpoint_is_one_line_and_the_one_before_is_taken(
    toy_base, tmp_path, checkpoints, name
):
    folder, plain = checkpoints
    made = shutil.copytree(folder, tmp_path / "c")

    def damage(step):
        file = made / f"checkpoint-{step}" / name
        file.write_bytes(DAMAGE[name](file.read_bytes()))

    damage(4)
    line = f"^checkpoint-4 is damaged \\({name}\\); going on from checkpoint-2$"
    with pytest.warns(CheckpointWarning, match=line):
        assert equal(train(toy_base, output_dir=made, **KEPT), plain)
    assert last_step(made) == 6
    damage(4)
    (made / "checkpoint-6" / name).unlink()
    with pytest.warns(CheckpointWarning, match="; starting again: there is no other$"):
        assert equal(train(toy_base, output_dir=made, **KEPT), plain)


@pytest.mark.parametrize("spoilt", [b"", b"[]", b"\xff", b"[" * 10**5])
def test_a_damaged_training_json_is_one_line(toy_base, tmp_path, spoilt):
    (tmp_path / "training.json").write_bytes(spoilt)
    with pytest.raises(CheckpointError, match=r"training.json is damaged .* another folder"):
        train(toy_base, output_dir=tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="a limit on the size of files")
@pytest.mark.parametrize("size", [100, 20_000, 600_000])  # of trainer_state, weights, optimizer
def test_a_full_disk_is_one_line_and_it_resumes(toy_base, tmp_path, checkpoints, monkeypatch, size):
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (size, before[1]))
    before_step(monkeypatch, 3, limit)
    try:
        with pytest.raises(TrainingError, match=r"can't be written to .*; free space there"):
            train(toy_base, output_dir=tmp_path / "c", **KEPT)
    finally:
        monkeypatch.undo()
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert last_step(tmp_path / "c") == 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CheckpointWarning)
        assert equal(train(toy_base, output_dir=tmp_path / "c", **KEPT), checkpoints[1])
