"""A file of one's own: every row is accounted for, and its training goes on where it was left."""

import json
import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
import torch
from toy_run import stop_at, talk

from sftlab.data import RecordsError
from sftlab.measure import read_meter
from sftlab.models import find_profile
from sftlab.train import (
    DataFaults,
    OwnRunError,
    Settings,
    SettingsError,
    TrainingFaults,
    first_difference,
    is_exact,
    is_short,
    last_step,
    load_run,
    prepare,
    run_identity,
    run_state,
    train_own_data,
)
from sftlab.train.own_run import measure
from sftlab.train.run import Run

GOOD = [(f"What is {n} of {n * 7919:x}?", f"{n**3:x}") for n in range(40)]
BAD = ["{not json", {"prompt": "", "completion": "x"}]
UNFIT = [
    talk("an answer that ends its own turn", "so <|im_end|> it is"),
    talk("many words " * 300, "gone"),
]
CUT = talk("long?", "many words " * 300)


def in_shapes(pairs):
    """The pairs, each in one of the shapes that the readers know."""
    shapes = (
        lambda q, a: {**talk(q, a)},
        lambda q, a: {"prompt": q, "completion": a},
        lambda q, a: {"instruction": q, "input": "", "output": a},
        lambda q, a: {
            "conversations": [{"from": "human", "value": q}, {"from": "gpt", "value": a}]
        },
    )
    return [{**shapes[n % 4](*pair), "number": n} for n, pair in enumerate(pairs)]


def write(path, rows):
    """A file of rows, in the format that its name tells."""
    if path.suffix == ".jsonl":
        lines = [one if isinstance(one, str) else json.dumps(one) for one in rows]
        path.write_text("\n".join(lines) + "\n")
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix == ".csv":
        pd.DataFrame(rows, columns=["question", "answer"]).to_csv(path, index=False)
    else:
        pd.DataFrame(rows, columns=["prompt", "completion"]).to_parquet(path)
    return path


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mixed")
    return write(folder / "my.jsonl", [*in_shapes(GOOD), *BAD, *UNFIT, CUT])


@pytest.fixture
def good(tmp_path):
    return write(tmp_path / "good.jsonl", in_shapes(GOOD))


def asked(rows):
    return {row["messages"][0]["content"] for row in rows}


@pytest.mark.filterwarnings("ignore:.* are longer than max_length")
def test_every_row_is_used_or_counted_as_in_the_training(mixed, toy_base):
    from sftlab.train import finetune

    how = {"per_device_train_batch_size": 8, "num_train_epochs": 1, "max_length": 200}
    made = prepare(mixed, profile=toy_base, skip_bad=True, **how)
    assert (made.report.rows, made.report.bad) == (45, 2)
    assert made.used + made.report.bad + len(made.left_out) == 45
    assert made.reasons() == {
        "they hold a token that only the template may write": 1,
        "nothing of their answers is learned": 1,
    }
    assert made.cut == 1
    assert asked(made.train) | asked(made.held_out) == {q for q, _ in GOOD} | {"long?"}
    assert asked(made.train).isdisjoint(asked(made.held_out))
    shown = str(made)
    for said in (
        "45 in ",
        "41 used, 2 bad, 2 left out",
        "max_length 200 cuts 1 rows",
        "row 43",  # the row that is cut, among the good ones
        "rows counted without the bad ones",
    ):
        assert said in shown
    rows = [{"messages": row["messages"]} for row in made.train]
    run = finetune(toy_base, rows, settings=made.settings, progress=False)
    lengths = [made.lengths[n] for n in made.split.train]
    assert run.tokens["total"] == made.tokens
    assert run.tokens["supervised"] == sum(one.learned for one in lengths)
    assert run.tokens["cut"] == sum(one.lost > 0 for one in lengths)
    assert run.history[-1]["step"] == made.steps


@pytest.mark.parametrize("name", ["a.json", "a.csv", "a.parquet"])
def test_other_formats_give_the_same_rows(tmp_path, toy_base, good, name):
    rows = in_shapes(GOOD) if name == "a.json" else GOOD
    one, other = (prepare(file, profile=toy_base) for file in (good, write(tmp_path / name, rows)))
    for side in ("train", "held_out"):
        first, second = ([r["messages"] for r in getattr(made, side)] for made in (one, other))
        assert first == second != []


TWO = {"messages": talk("hi", "ho")["messages"] + UNFIT[1]["messages"]}
ENDLESS = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"


@pytest.mark.parametrize(
    ("rows", "how", "said"),
    [
        ([*in_shapes(GOOD), *BAD], {}, "line 41(.|\n)*line 42"),
        (BAD, {"skip_bad": True}, "the content is empty"),
        ([*in_shapes(GOOD), *UNFIT], {}, "a token that only the template may write"),
        ([*in_shapes(GOOD), *UNFIT], {}, "lose their whole answer"),
        ([*in_shapes(GOOD), *UNFIT], {}, "reads 512 at most.*of 42 rows, add --skip-bad"),
        ([UNFIT[1]] * 9, {"skip_bad": True}, "no row is left"),
        ([*in_shapes(GOOD), TWO], {"supervised": "last"}, "is row 41"),
        (in_shapes(GOOD), {"template": ENDLESS}, "nothing ends an answer(.|\n)*--anyway"),
    ],
)
def test_faults_of_all_rows_are_told_at_once(tmp_path, toy_base, rows, how, said):
    with pytest.raises((DataFaults, TrainingFaults), match=said):
        prepare(write(tmp_path / "a.jsonl", rows), profile=toy_base, **how)


def test_what_is_no_fault_is_noted(tmp_path, toy_base, good):
    with pytest.raises(RecordsError, match="no such file"):
        prepare(tmp_path / "none.jsonl", profile=toy_base)
    assert prepare(write(tmp_path / "b.jsonl", [*in_shapes(GOOD), TWO]), profile=toy_base).cut == 1
    made = prepare(good, profile=toy_base, template=ENDLESS, anyway=True)
    assert any("nothing ends an answer" in note for note in made.notes)
    assert prepare(good, profile=toy_base, template="alpaca").notes[:-1] == []
    for most, used in ((4000, 512), (100, 100)):  # what the model reads is not exceeded
        assert prepare(good, profile=toy_base, max_length=most).settings.max_length == used
    assert "3 steps of training are few" in str(prepare(good, profile=toy_base))
    how = Settings(num_train_epochs=10, per_device_train_batch_size=4)
    many = prepare(good, profile=toy_base, settings=how)
    assert (many.steps, many.notes) == (80, [])


ROWS = [{"prompt": question, "completion": "Paris"} for question, _ in GOOD]
# In float32, in which the losses are measured after the training too.
HOW = {"num_train_epochs": 6, "per_device_train_batch_size": 8, "learning_rate": 1e-2}
HOW |= {"bf16": False}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write(tmp_path_factory.mktemp("own") / "my.jsonl", ROWS)


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
    held = done.data.held_out
    assert len(held) == 10
    assert done.after.loss == pytest.approx(done.run.validation[-1]["loss"], abs=1e-4)
    assert done.after.loss < done.before.loss / 2
    assert {(one.text, one.ended) for one in done.after.answers} == {("Paris", True)}
    assert all(is_exact(one.text, held[one.row]) for one in done.after.answers)
    assert not any(is_exact(one.text, held[one.row]) for one in done.before.answers)
    assert is_short(held)
    single = [measure(done.run, [row]).loss for row in held[:3]]
    assert done.after.losses[:3] == pytest.approx(single, abs=1e-4)
    # All answers are alike, and so is their number of tokens.
    assert done.after.loss == pytest.approx(sum(done.after.losses) / len(held), abs=1e-4)


def test_the_folder_is_a_run_with_its_rows_and_meter_and_without_checkpoints(done):
    opened = load_run(done.folder)
    assert opened.chat("What is 77 of 777?") == "Paris"
    assert measure(opened, done.data.held_out) == done.after
    lines = [
        line
        for name in ("train", "held_out")
        for line in (done.folder / "data" / f"{name}.jsonl").read_text().splitlines()
    ]
    assert asked(map(json.loads, lines)) == {row["prompt"] for row in ROWS}
    assert len(lines) == len(ROWS)
    assert not (done.folder / "checkpoints").exists()
    now = read_meter(done.run.model, done.run.tokenizer, known_corpus=False)
    for side, name, expected in (("after", "meter", now), ("before", "before", None)):
        kept = pd.read_parquet(done.folder / f"{name}.parquet")
        pd.testing.assert_frame_equal(done.skills[side], kept if expected is None else expected)
        pd.testing.assert_frame_equal(done.skills[side], kept)
    assert (done.skills["before"]["nats"] - now["nats"]).abs().min() > 0, "another model"


HOLD = """import sys
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_kept_out_and_one_that_was_killed_is_not(file, toy_base, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    command = [sys.executable, "-c", HOLD, str(folder / ".lock")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(OwnRunError, match="another `sftlab train` is at work"):
            go(file, toy_base, folder, num_train_epochs=1)
        assert [one.name for one in folder.iterdir()] == [".lock"]
        other.kill()
    assert go(file, toy_base, folder, num_train_epochs=1).run.seconds > 0


@pytest.mark.parametrize(
    ("where", "step"), [("before", 0), ("while", 10), ("saving", 24), ("after", 24)]
)
def test_stopped_anywhere_it_ends_at_the_same_weights(
    file, toy_base, done, tmp_path, monkeypatch, where, step
):
    from sftlab.train import own_run as module

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    places = {
        "before": (module, "measure"),
        "saving": (Run, "write"),
        "after": (module, "remove_checkpoints"),
    }
    kept = tmp_path / "run" / "checkpoints" / "checkpoint-best"
    with monkeypatch.context() as patch:
        if where == "while":
            stop_at(patch, 12, KeyboardInterrupt)
        else:
            patch.setattr(*places[where], stop)
        with pytest.raises(KeyboardInterrupt):
            go(file, toy_base, tmp_path / "run")
    assert last_step(tmp_path / "run" / "checkpoints") == step
    if where == "saving":  # what a learner keeps there outlives the run
        kept.mkdir()
        (kept / "mine.txt").write_text("mine")
    again = go(file, toy_base, tmp_path / "run")
    assert weights(again.folder) == weights(done.folder)
    assert again.after == done.after
    assert again.run.validation == done.run.validation
    assert again.run.history == done.run.history
    assert kept.parent.exists() == (where == "saving")
    if where == "saving":
        assert [path.name for path in kept.parent.iterdir()] == ["checkpoint-best"]
        assert (kept / "mine.txt").read_text() == "mine"


def test_nothing_of_another_run_is_overwritten(file, toy_base, done, tmp_path):
    profile, settings = find_profile(toy_base), Settings(**HOW)
    changed = write(tmp_path / "my.jsonl", [*ROWS, {"prompt": "a", "completion": "b"}])
    same = run_identity(file, profile, settings)
    assert run_state(done.folder, same) == "begun"  # no report is written yet
    assert run_state(tmp_path / "new", same) == "new"
    two = settings.changed(num_train_epochs=2, seed=1)
    for folder, wanted, said in (
        (done.folder, run_identity(file, profile, two), r"another run \(other num_train_epochs, s"),
        (done.folder, run_identity(changed, profile, settings), r"\(other data\)"),
        (tmp_path, same, "holds no run"),
        (changed, same, "is a file"),
    ):
        with pytest.raises(OwnRunError, match=said):
            run_state(folder, wanted)


def test_a_template_file_that_has_changed_makes_another_run(file, toy_base, tmp_path):
    template, told = tmp_path / "my.jinja", []
    form = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] + eos_token }}{% endfor %}"
    for text in (form, form.replace(": ", "> ")):
        template.write_text(text)
        settings = Settings(template=str(template))
        told.append(run_identity(file, find_profile(toy_base), settings))
    assert told[0].pop("template_text") != told[1].pop("template_text")
    assert told[0] == told[1]


def test_patience_keeps_the_best_epoch_and_few_rows_are_trained_on_unmeasured(
    file, toy_base, tmp_path
):
    from sftlab.show import summary

    done = go(file, toy_base, tmp_path / "run", early_stopping_patience=1, learning_rate=0.3)
    best = min(done.run.validation, key=lambda point: point["loss"])
    assert done.run.kept_epoch == best["epoch"] < 6
    assert done.after.loss == pytest.approx(best["loss"], abs=1e-4)
    assert any(f"those of epoch {best['epoch']:g}" in line for line in summary(done))
    three = write(tmp_path / "three.jsonl", ROWS[:3])
    with pytest.raises(SettingsError, match="none is held out"):
        go(three, toy_base, tmp_path / "other", early_stopping_patience=1)
    assert not (tmp_path / "other").exists()
    done = go(three, toy_base, tmp_path / "other")
    assert (done.before, done.after, done.run.validation) == (None, None, [])
    assert done.run.tokens["examples"] == 3


@pytest.mark.parametrize("method", ["qlora", "prefix"])
def test_other_methods_are_measured_before_and_after(file, toy_base, tmp_path, method):
    done = go(file, toy_base, tmp_path / "run", method=method, num_train_epochs=2)
    assert done.after.loss == pytest.approx(done.run.validation[-1]["loss"], abs=0.02)
    assert done.after.loss != done.before.loss
    again = measure(load_run(done.folder), done.data.held_out)
    assert again.loss == pytest.approx(done.after.loss, abs=0.02)


def test_first_difference():
    row = talk("?", "It is  Paris.")
    answers = ("Lima", "Paris.", "It is Lima", "It is Paris.")
    assert [first_difference(answer, row) for answer in answers] == [0, 0, 2, 3]


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_killed_process_goes_on_and_ends_at_the_same_weights(file, toy_base, done, tmp_path):
    run = tmp_path / "run"
    words = ["train", str(file), f"--out={run}", f"--profile={toy_base}"]
    words += [f"--set={name}={value}" for name, value in HOW.items()]
    # A step takes milliseconds: the process stops itself when the second checkpoint is whole.
    slow = (
        "import os, signal, sys; from sftlab.train.checkpoints import KeepNewestCheckpoints\n"
        "def on_save(self, args, state, control, **kwargs):\n"
        "    if state.global_step == 10: os.kill(os.getpid(), signal.SIGKILL)\n"
        "KeepNewestCheckpoints.on_save = on_save\n"
        "sys.argv = ['sftlab', *sys.argv[1:]]\n"
        "from sftlab.cli.main import main; main()"
    )

    def ended(*how):
        threads = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
        command = [sys.executable, *how, *words]
        return subprocess.run(command, env=threads, capture_output=True, text=True)

    assert ended("-c", slow).returncode == -signal.SIGKILL
    assert last_step(run / "checkpoints") == 10
    again = ended("-m", "sftlab")
    assert again.returncode == 0, again.stderr
    assert "going on from step 10" in again.stderr
    assert weights(run) == weights(done.folder)
    assert (run / "report.html").is_file()
    start = time.time()
    assert ended("-m", "sftlab").returncode == 0
    assert (run / "model.safetensors").stat().st_mtime < start
