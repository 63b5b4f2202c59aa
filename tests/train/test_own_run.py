"""A training in a folder: taken up where it was left, and never over another one."""

import json
import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
import torch
from toy_run import stop_at

from sftlab.measure import read_meter
from sftlab.models import find_profile
from sftlab.train import OwnRunError, last_step, run_identity, run_state, train_own_data
from sftlab.train.own_data import prepare
from sftlab.train.own_run import Outcome, first_difference, is_exact, is_short, measure
from sftlab.train.run import load_run
from sftlab.train.settings import Settings, SettingsError

ROWS = [{"prompt": f"What is {n} of {n * 7919:x}?", "completion": "Paris"} for n in range(40)]
# In float32, in which the losses are measured after the training too.
HOW = {
    "num_train_epochs": 6,
    "per_device_train_batch_size": 8,
    "learning_rate": 1e-2,
    "bf16": False,
}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("own") / "my.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def go(file, base, folder, **how):
    profile, settings = find_profile(base), Settings(**HOW | how)
    data = prepare(file, profile=profile, settings=settings)
    wanted = run_identity(file, profile, settings)
    return train_own_data(data, profile, folder=folder, wanted=wanted, progress=False)


@pytest.fixture(scope="module")
def done(file, toy_base, tmp_path_factory):
    return go(file, toy_base, tmp_path_factory.mktemp("runs") / "whole")


def weights(folder):
    return (folder / "model.safetensors").read_bytes()


def test_what_came_of_it(done):
    assert len(done.data.held_out) == 10
    assert done.after.loss == pytest.approx(done.run.validation[-1]["loss"], abs=1e-4)
    assert done.after.loss < done.before.loss / 2
    assert {answer.text for answer in done.after.answers} == {"Paris"}
    assert all(answer.ended for answer in done.after.answers)
    held = done.data.held_out
    assert all(is_exact(one.text, held[one.row]) for one in done.after.answers)
    assert not any(is_exact(one.text, held[one.row]) for one in done.before.answers)
    assert is_short(held)
    assert Outcome.from_dict(json.loads(json.dumps(done.after.as_dict()))) == done.after


HOLD = """import sys
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_kept_out_and_one_that_was_killed_is_not(file, toy_base, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder / ".lock")],
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(OwnRunError, match="another `sftlab train` is at work"):
            go(file, toy_base, folder, num_train_epochs=1)
        assert [one.name for one in folder.iterdir()] == [".lock"]
    finally:
        other.kill()
        other.wait()
    assert go(file, toy_base, folder, num_train_epochs=1).run.seconds > 0
    assert not (folder / ".lock").exists()


def test_the_folder_is_a_run_with_its_rows_and_without_checkpoints(done, file):
    opened = load_run(done.folder)
    assert opened.chat("What is 77 of 777?") == "Paris"
    assert measure(opened, done.data.held_out) == done.after
    rows = [
        json.loads(line)
        for name in ("train", "held_out")
        for line in (done.folder / "data" / f"{name}.jsonl").read_text().splitlines()
    ]
    assert sorted(row["messages"][0]["content"] for row in rows) == sorted(
        row["prompt"] for row in ROWS
    )
    assert {one.name for one in done.folder.iterdir()}.isdisjoint({"checkpoints", "unfinished"})


def test_the_loss_of_the_whole_is_that_of_the_rows(done, toy_base):
    rows = done.data.held_out
    single = [measure(done.run, [row]).loss for row in rows[:3]]
    assert done.after.losses[:3] == pytest.approx(single, abs=1e-4)
    # All answers are alike, and so is their number of tokens.
    assert done.after.loss == pytest.approx(sum(done.after.losses) / len(rows), abs=1e-4)


def test_the_forgetting_meter_is_read_before_and_after_and_kept(done):
    now = read_meter(done.run.model, done.run.tokenizer, known_corpus=False)
    pd.testing.assert_frame_equal(done.skills["after"], now)
    pd.testing.assert_frame_equal(pd.read_parquet(done.folder / "meter.parquet"), now)
    before = pd.read_parquet(done.folder / "before.parquet")
    pd.testing.assert_frame_equal(done.skills["before"], before)
    apart = (done.skills["before"]["nats"] - now["nats"]).abs()
    assert apart.min() > 0, "the base is another model"


@pytest.mark.parametrize("where", ["before", "while", "saving", "after"])
def test_stopped_anywhere_it_ends_at_the_same_weights(
    file, toy_base, done, tmp_path, monkeypatch, where
):
    import sftlab.train.own_run as module
    from sftlab.train.run import Run

    with monkeypatch.context() as patch:

        def stop(*args, **kwargs):
            raise KeyboardInterrupt

        if where == "before":
            patch.setattr(module, "measure", stop)
        elif where == "saving":
            patch.setattr(Run, "save", stop)
        elif where == "after":
            patch.setattr(module, "remove_checkpoints", stop)
        else:
            stop_at(patch, 12, KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            go(file, toy_base, tmp_path / "run")
    left = {"before": 0, "while": 10, "saving": 24, "after": 24}
    assert last_step(tmp_path / "run" / "checkpoints") == left[where]
    again = go(file, toy_base, tmp_path / "run")
    assert weights(again.folder) == weights(done.folder)
    assert again.after == done.after
    assert again.run.validation == done.run.validation
    assert again.run.history == done.run.history
    assert not (again.folder / "checkpoints").exists()


def test_nothing_of_another_run_is_overwritten(file, toy_base, done, tmp_path):
    profile, settings = find_profile(toy_base), Settings(**HOW)
    assert (
        run_state(done.folder, run_identity(file, profile, settings)) == "begun"
    )  # no report is written yet
    with pytest.raises(OwnRunError, match=r"another run \(other num_train_epochs, seed\)"):
        run_state(
            done.folder, run_identity(file, profile, settings.changed(num_train_epochs=2, seed=1))
        )
    changed = tmp_path / "my.jsonl"
    changed.write_text(file.read_text() + json.dumps({"prompt": "a", "completion": "b"}))
    with pytest.raises(OwnRunError, match=r"other data"):
        run_state(done.folder, run_identity(changed, profile, settings))
    with pytest.raises(OwnRunError, match="holds no run"):
        run_state(tmp_path, run_identity(file, profile, settings))
    with pytest.raises(OwnRunError, match="is a file"):
        run_state(changed, run_identity(file, profile, settings))
    assert run_state(tmp_path / "new", run_identity(file, profile, settings)) == "new"


def test_a_template_file_that_has_changed_makes_another_run(file, toy_base, tmp_path):
    template = tmp_path / "my.jinja"
    form = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] + eos_token }}{% endfor %}"
    told = []
    for text in (form, form.replace(": ", "> ")):
        template.write_text(text)
        settings = Settings(template=str(template))
        told.append(run_identity(file, find_profile(toy_base), settings))
    assert told[0].pop("template_text") != told[1].pop("template_text")
    assert told[0] == told[1]


def test_patience_keeps_the_best_epoch_and_wants_held_out_rows(file, toy_base, tmp_path):
    from sftlab.show import summary

    done = go(file, toy_base, tmp_path / "run", early_stopping_patience=1, learning_rate=0.3)
    best = min(done.run.validation, key=lambda point: point["loss"])
    assert done.run.kept_epoch == best["epoch"] < 6
    assert done.after.loss == pytest.approx(best["loss"], abs=1e-4)
    assert any(f"those of epoch {best['epoch']:g}" in line for line in summary(done))
    three = tmp_path / "three.jsonl"
    three.write_text("".join(json.dumps(row) + "\n" for row in ROWS[:3]))
    with pytest.raises(SettingsError, match="none is held out"):
        go(three, toy_base, tmp_path / "other", early_stopping_patience=1)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("method", ["qlora", "prefix"])
def test_other_methods_are_measured_before_and_after(file, toy_base, tmp_path, method):
    done = go(file, toy_base, tmp_path / "run", method=method, num_train_epochs=2)
    assert done.after.loss == pytest.approx(done.run.validation[-1]["loss"], abs=0.02)
    assert done.after.loss != done.before.loss
    again = measure(load_run(done.folder), done.data.held_out)
    assert again.loss == pytest.approx(done.after.loss, abs=0.02)


def test_too_few_rows_are_trained_on_and_nothing_is_measured(toy_base, tmp_path):
    file = tmp_path / "three.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS[:3]))
    done = go(file, toy_base, tmp_path / "run")
    assert (done.before, done.after, done.run.validation) == (None, None, [])
    assert done.run.tokens["examples"] == 3


@pytest.mark.parametrize(
    ("answer", "words"), [("Lima", 0), ("Paris.", 0), ("It is Lima", 2), ("It is Paris.", 3)]
)
def test_first_difference(answer, words):
    row = {
        "messages": [
            {"role": "user", "content": "?"},
            {"role": "assistant", "content": "It is  Paris."},
        ]
    }
    assert first_difference(answer, row) == words


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_killed_process_goes_on_and_ends_at_the_same_weights(file, toy_base, done, tmp_path):
    how = [f"--set={name}={value}" for name, value in HOW.items()]
    command = [
        sys.executable,
        "-m",
        "sftlab",
        "train",
        str(file),
        "--out",
        str(tmp_path / "run"),
        "--profile",
        str(toy_base),
        *how,
    ]
    threads = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    # A step takes milliseconds: the process stops itself when the second checkpoint is whole.
    slow = (
        "import os, signal, sys; from sftlab.train.checkpoints import KeepNewestCheckpoints\n"
        "def on_save(self, args, state, control, **kwargs):\n"
        "    if state.global_step == 10: os.kill(os.getpid(), signal.SIGKILL)\n"
        "KeepNewestCheckpoints.on_save = on_save\n"
        "sys.argv = ['sftlab', *sys.argv[1:]]\n"
        "from sftlab.cli.main import main; main()"
    )
    killed = subprocess.run(
        [sys.executable, "-c", slow, *command[3:]], env=threads, capture_output=True
    )
    assert killed.returncode == -signal.SIGKILL
    assert last_step(tmp_path / "run" / "checkpoints") == 10
    ended = subprocess.run(command, env=threads, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert "going on from step 10" in ended.stderr
    assert weights(tmp_path / "run") == weights(done.folder)
    assert (tmp_path / "run" / "report.html").is_file()
    start = time.time()
    assert subprocess.run(command, env=threads, capture_output=True).returncode == 0
    assert (tmp_path / "run" / "model.safetensors").stat().st_mtime < start


def test_what_a_learner_keeps_with_the_checkpoints_outlives_the_run(
    file, toy_base, tmp_path, monkeypatch
):
    from sftlab.train.run import Run

    save, kept = Run.save, tmp_path / "run" / "checkpoints" / "checkpoint-best"

    def save_and_keep(self, folder):
        kept.mkdir()
        (kept / "mine.txt").write_text("mine")
        return save(self, folder)

    monkeypatch.setattr(Run, "save", save_and_keep)
    go(file, toy_base, tmp_path / "run", num_train_epochs=1)
    assert (kept / "mine.txt").read_text() == "mine"
    assert [path.name for path in kept.parent.iterdir()] == ["checkpoint-best"]
    assert last_step(tmp_path / "run" / "checkpoints") == 0
