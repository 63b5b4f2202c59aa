"""What a run tells while it goes, and writes for TensorBoard."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sftlab.train.finetuning import finetune
from sftlab.train.logs import LogError, read_logs
from sftlab.train.settings import SettingsError

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = [
    {
        "messages": [
            {"role": "user", "content": f"What is {n}?"},
            {"role": "assistant", "content": "Paris"},
        ]
    }
    for n in range(24)
]
SETTINGS = {
    "bf16": False,
    "num_train_epochs": 2,
    "per_device_train_batch_size": 8,
    "learning_rate": 1e-3,
    "progress": False,
}


def train(base, **how):
    return finetune(str(base), EXAMPLES, **{**SETTINGS, **how})


def equal(one, other):
    one, other = one.model.state_dict(), other.model.state_dict()
    return all(torch.equal(one[name], other[name]) for name in other)


@pytest.fixture(scope="module")
def plain(toy_base):
    return train(toy_base, eval_dataset=EXAMPLES[:4])


def test_each_step_is_told_and_each_measurement_after_its_step(toy_base, plain):
    told = []
    made = train(toy_base, eval_dataset=EXAMPLES[:4], on_step=told.append)
    assert equal(made, plain)
    assert [row for row in told if "loss" in row] == made.history
    measured = [row for row in told if "loss" not in row]
    assert [row["eval_loss"] for row in measured] == [p["loss"] for p in made.validation]
    assert [(row["step"], "eval_loss" in row) for row in told] == [
        (1, False),
        (2, False),
        (3, False),
        (3, True),
        (4, False),
        (5, False),
        (6, False),
        (6, True),
    ]


def test_it_is_told_while_the_run_goes_and_a_mistake_in_it_ends_the_run(toy_base, capsys):
    told = []

    def on_step(row):
        told.append(row["step"])
        if row["step"] == 2:
            raise KeyError("lost")

    with pytest.raises(KeyError, match="lost"):
        train(toy_base, on_step=on_step, progress=True)
    assert told == [1, 2]
    assert "".join(capsys.readouterr()).endswith("\n"), "the bar's line is ended"
    with pytest.raises(SettingsError, match="on_step is 3"):
        train(toy_base, on_step=3)


def test_event_files_hold_the_numbers_of_the_run(toy_base, plain, tmp_path):
    made = train(toy_base, eval_dataset=EXAMPLES[:4], logging_dir=tmp_path / "logs")
    assert equal(made, plain)
    frame = read_logs(tmp_path / "logs")
    assert list(frame.columns) == ["step", "name", "value"]

    def of(name):
        rows = frame[frame["name"] == name]
        return rows["step"].tolist(), rows["value"].tolist()

    assert of("train/loss") == (
        [row["step"] for row in made.history],
        pytest.approx([row["loss"] for row in made.history]),
    )
    assert of("train/learning_rate")[1] == pytest.approx(
        [row["learning_rate"] for row in made.history]
    )
    assert of("eval/loss") == ([3, 6], pytest.approx([p["loss"] for p in made.validation]))


def test_a_folder_is_one_run(toy_base, tmp_path):
    train(toy_base, num_train_epochs=1, logging_dir=tmp_path / "logs")
    with pytest.raises(LogError, match="a folder of its own"):
        train(toy_base, num_train_epochs=1, logging_dir=tmp_path / "logs")
    with pytest.raises(LogError, match="no event files"):
        read_logs(tmp_path)


def test_a_resumed_run_goes_on_in_its_logs(toy_base, plain, tmp_path):
    class Killed(Exception):
        pass

    def kill(row):
        if row["step"] == 5:
            raise Killed

    how = {"output_dir": tmp_path / "c", "save_steps": 2, "logging_dir": tmp_path / "logs"}
    with pytest.raises(Killed):
        train(toy_base, on_step=kill, **how)
    resumed = train(toy_base, **how)
    frame = read_logs(tmp_path / "logs")
    losses = frame[frame["name"] == "train/loss"]
    assert losses["step"].tolist() == [1, 2, 3, 4, 5, 6], "each once, though 5 was trained twice"
    assert losses["value"].tolist() == pytest.approx([row["loss"] for row in resumed.history])
    assert equal(resumed, plain)


def test_nothing_is_imported_without_logs_and_nothing_printed_or_sent_with_them(toy_base, tmp_path):
    script = f"""
import json, socket, sys
def refuse(*args, **kwargs):
    raise AssertionError("the network was used")
socket.socket.connect = socket.getaddrinfo = refuse
from sftlab.train import finetune
from sftlab.train.logs import read_logs
rows = {json.dumps(EXAMPLES)}
how = {{**{SETTINGS!r}, "num_train_epochs": 1}}
finetune({str(toy_base)!r}, rows, **how)
assert not {{"tensorboard", "torch.utils.tensorboard"}} & set(sys.modules)
finetune({str(toy_base)!r}, rows, logging_dir={str(tmp_path / "logs")!r}, **how)
assert len(read_logs({str(tmp_path / "logs")!r})) > 9
"""
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", script],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "0"},
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    said = [line for line in done.stderr.splitlines() if "tensor" in line.lower()]
    assert not said, "of TensorBoard not even what Python hides by default"
