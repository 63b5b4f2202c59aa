"""A file of one's own: every row is accounted for, and its training goes on where it was left."""

import json
import re
import shutil

import pandas as pd
import pytest
from filelock import FileLock
from toy_run import CALL, TOOLS, Stopped, stop_at, talk

from sftlab.chat import FAMILIES
from sftlab.data import RecordsError
from sftlab.measure import read_meter
from sftlab.profiles import find_profile
from sftlab.show import summary, write_report
from sftlab.train import (
    DataFaults,
    ExampleError,
    OwnRunError,
    Settings,
    SettingsError,
    TrainingFaults,
    finetune,
    last_step,
    load_run,
    prepare,
    run_identity,
    run_state,
    train_own_data,
    untrained,
)
from sftlab.train import own_run as module
from sftlab.train.own_run import measure
from sftlab.train.run import Run

QUESTIONS = [f"What is {n} of {n * 7919:x}?" for n in range(40)]
ROWS = [{"prompt": question, "completion": "Paris"} for question in QUESTIONS]
BAD = ["{not json", {"prompt": "", "completion": "x"}]
UNFIT = [
    talk("an answer that ends its own turn", "so <|im_end|> it is"),
    talk("many words " * 300, "gone"),
]
CUT = talk("long?", "many words " * 300)


def write(path, rows):
    lines = [one if isinstance(one, str) else json.dumps(one) for one in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write(tmp_path_factory.mktemp("own") / "my.jsonl", ROWS)


def asked(rows):
    return {row["messages"][0]["content"] for row in rows}


@pytest.mark.filterwarnings("ignore:.* are longer than max_length")
def test_every_row_is_used_or_counted_as_in_the_training(tmp_path, toy_base):
    mixed = write(tmp_path / "my.jsonl", [*ROWS, *BAD, *UNFIT, CUT])
    how = {"per_device_train_batch_size": 8, "num_train_epochs": 1, "max_length": 200}
    made = prepare(mixed, profile=toy_base, skip_bad=True, **how)
    counts = made.report.rows, len(made.lengths), made.report.bad, len(made.left_out)
    assert counts == (45, 41, 2, 2)
    assert made.reasons() == {
        "they hold a token that only the template may write": 1,
        "nothing of their answers is learned": 1,
    }
    assert made.cut == 1
    assert asked(made.train) | asked(made.held_out) == {*QUESTIONS, "long?"}
    assert asked(made.train).isdisjoint(asked(made.held_out))
    shown = str(made)
    for said in (
        "45 in ",
        "41 used, 2 bad, 2 left out",
        "max_length 200 cuts 1 rows",
        "row 43",  # the row that is cut, among the good ones
    ):
        assert said in shown
    run = finetune(toy_base, made.train, settings=made.settings, progress=False)
    lengths = [made.lengths[n] for n in made.split.train]
    assert run.tokens["total"] == made.tokens
    assert run.tokens["supervised"] == sum(one.learned for one in lengths)
    assert run.history[-1]["step"] == made.steps


THOUGHT = talk("Why?", "So.")
THOUGHT["messages"][1]["reasoning_content"] = "I wonder whether it is so."
TWO = {"messages": talk("hi", "ho")["messages"] + UNFIT[1]["messages"]}
ENDLESS = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"


@pytest.mark.parametrize(
    ("rows", "how", "said"),
    [
        ([*ROWS, *BAD], {}, "line 41(.|\n)*line 42"),
        ([*ROWS, THOUGHT], {}, "leaves out a text that is to be learned(.|\n)*--skip-bad"),
        (BAD, {"skip_bad": True}, "the content is empty"),
        ([*ROWS, *UNFIT], {}, "a token that only the template may write"),
        ([*ROWS, *UNFIT], {}, "lose their whole answer(.|\n)*of 42 rows.*is 512; add --skip-bad"),
        ([UNFIT[1]] * 2, {"skip_bad": True}, "no row is left"),
        ([*ROWS, TWO], {"turns": "last"}, "is row 41: nothing of their answers"),
        (ROWS, {"template": ENDLESS}, "ends no answer(.|\n)*--anyway"),
    ],
)
def test_faults_of_all_rows_are_told_at_once(tmp_path, toy_base, rows, how, said):
    with pytest.raises((DataFaults, TrainingFaults), match=said):
        prepare(write(tmp_path / "a.jsonl", rows), profile=toy_base, **how)


def test_what_is_no_fault_is_noted(tmp_path, toy_base, file):
    with pytest.raises(RecordsError, match="no such file"):
        prepare(tmp_path / "none.jsonl", profile=toy_base)
    assert prepare(write(tmp_path / "b.jsonl", [*ROWS, TWO]), profile=toy_base).cut == 1
    made = prepare(file, profile=toy_base, template=ENDLESS, anyway=True)
    assert any("ends no answer" in note for note in made.notes)
    assert prepare(file, profile=toy_base, max_length=4000).settings.max_length == 512
    assert "12 steps of training are few" in str(prepare(file, profile=toy_base))
    how = Settings(num_train_epochs=10, per_device_train_batch_size=4)
    many = prepare(file, profile=toy_base, settings=how)
    assert (many.steps, many.notes) == (80, [])


CALLED = {"messages": talk("Weather?", "")["messages"], "tools": TOOLS}
CALLED["messages"][1]["tool_calls"] = [CALL]


def test_tools_thinking_and_further_columns_are_counted_and_trained(tmp_path, toy_base):
    rows = [{**row, "split": "test" if n < 4 else "train"} for n, row in enumerate(ROWS[:20])]
    rows += [{**row, "split": "test", "source": "b"} for row in (CALLED, THOUGHT)]
    file = write(tmp_path / "my.jsonl", rows)
    made = prepare(file, profile=toy_base, template="qwen3")
    lines = dict(made.table())
    assert lines["shapes"] == "prompt-completion 20, messages 2"
    assert "messages[].tool_calls 1" in lines["used"]
    assert "source 2" in lines["carried"]
    assert lines["template"] == "qwen3: as asked"
    assert any("the file's own split is used: 16 rows" in note for note in made.notes)
    assert [row["messages"][1]["content"] for row in made.held_out] == ["Paris"] * 4 + ["", "So."]
    more = write(tmp_path / "more.jsonl", [{**row, "mood": "c"} for row in ROWS])
    with pytest.raises(DataFaults, match="--meta 'mood'"):
        prepare(more, profile=toy_base)
    assert prepare(more, profile=toy_base, meta=["mood"]).train[0]["meta"] == {"mood": "c"}
    done = go(file, toy_base, tmp_path / "run", num_train_epochs=1, template="qwen3")
    # What the template writes after the prompt is what the model is to say.
    wanted = [one["wanted"] for one in done.after.answers]
    assert wanted[:4] == ["Paris"] * 4
    assert re.sub(r"\s", "", wanted[4]).endswith(
        '<tool_call>{"name":"weather","arguments":{"town":"Oslo"}}</tool_call>'
    )
    assert "I wonder whether it is so.\n</think>\n\nSo." in wanted[5]
    page = write_report(done).markdown
    assert '{"name": "weather", "arguments": {"town": "Oslo"}}' in page
    assert "qwen3: as asked" in page
    again = [json.loads(line) for line in (done.folder / "data" / "held_out.jsonl").open()]
    assert again == done.data.held_out == prepare(file, profile=toy_base, template="qwen3").held_out
    ids = done.run.prompt_ids(CALLED["messages"][:1], TOOLS)
    assert '"name": "weather"' in done.run.tokenizer.decode(ids)
    assert isinstance(done.run.chat("Weather?", tools=TOOLS), str)
    with pytest.raises(ExampleError, match=r"writes no tools.*--template qwen3"):
        untrained(toy_base, Settings()).chat("Weather?", tools=TOOLS)


def test_the_template_is_the_bases_own_where_it_brings_one(tmp_path, toy_base, toy_tokenizer, file):
    folder = shutil.copytree(toy_base, tmp_path / "base")
    toy_tokenizer.chat_template = FAMILIES["llama-3"].text
    try:
        toy_tokenizer.save_pretrained(folder)
    finally:
        toy_tokenizer.chat_template = None
    for base, how, said in (
        (folder, {}, "own: the model brings it"),
        (folder, {"template": "own"}, "own: the model brings it"),
        (folder, {"template": "chatml"}, "chatml: as asked"),
        (toy_base, {}, "chatml: the base brings none"),
    ):
        made = prepare(file, profile=base, **how)
        assert dict(made.table())["template"] == said
        assert made.settings.template == said.partition(":")[0]
    with pytest.raises(SettingsError, match=r"brings no chat template.*--template chatml"):
        prepare(file, profile=toy_base, template="own")
    with pytest.raises(SettingsError, match=r"train_control_tokens=False.*--template\s+chatml"):
        prepare(file, profile=folder, train_control_tokens=False)
    run = finetune(folder, ROWS[:8], num_train_epochs=1, progress=False)
    opened = load_run(run.save(tmp_path / "run"))
    assert opened.settings.template == "own"
    ids = opened.prompt_ids(CALLED["messages"][:1])
    assert "<|start_header_id|>user" in opened.tokenizer.decode(ids)
    found = run_identity(file, find_profile(folder), Settings())["template_text"]
    assert found == FAMILIES["llama-3"].text


# In float32, in which the losses are measured after the training too.
HOW = {
    "num_train_epochs": 6,
    "per_device_train_batch_size": 8,
    "learning_rate": 1e-2,
    "bf16": False,
}


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
    assert [one["row"] for one in done.after.answers] == list(range(10))
    found = {(one["text"], one["ended"], one["exact"]) for one in done.after.answers}
    assert found == {("Paris", True, True)}
    assert not any(one["exact"] for one in done.before.answers)
    # All answers are alike, and so is their number of tokens.
    assert done.after.loss == pytest.approx(sum(done.after.losses) / len(held), abs=1e-4)


def test_the_folder_is_a_run_with_its_rows_and_meter_and_without_checkpoints(done):
    opened = load_run(done.folder)
    assert opened.chat("What is 77 of 777?") == "Paris"
    assert measure(opened, done.data.held_out) == done.after
    files = [done.folder / "data" / f"{name}.jsonl" for name in ("train", "held_out")]
    lines = [line for file in files for line in file.read_text().splitlines()]
    assert asked(map(json.loads, lines)) == set(QUESTIONS)
    assert len(lines) == len(ROWS)
    assert not (done.folder / "checkpoints").exists()
    now = read_meter(done.run.model, done.run.tokenizer, known_corpus=False)
    pd.testing.assert_frame_equal(done.skills["after"], now)
    pd.testing.assert_frame_equal(pd.read_parquet(done.folder / "meter.parquet"), now)
    assert (done.skills["before"]["nats"] - now["nats"]).abs().min() > 0, "another model"


@pytest.mark.parametrize(("where", "step"), [("before", 0), ("while", 10), ("saving", 24)])
def test_stopped_anywhere_it_ends_at_the_same_weights(
    file, toy_base, done, tmp_path, monkeypatch, where, step
):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    places = {"before": (module, "measure"), "saving": (Run, "write")}
    checkpoints = tmp_path / "run" / "checkpoints"
    with monkeypatch.context() as patch:
        if where == "while":
            stop_at(patch, 12, KeyboardInterrupt)
        else:
            patch.setattr(*places[where], stop)
        with pytest.raises(KeyboardInterrupt):
            go(file, toy_base, tmp_path / "run")
    assert last_step(checkpoints) == step
    again = go(file, toy_base, tmp_path / "run")
    assert weights(again.folder) == weights(done.folder)
    assert again.after == done.after
    assert again.run.validation == done.run.validation
    assert again.run.history == done.run.history
    assert not checkpoints.exists()


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
        (changed, same, "holds no run"),
    ):
        with pytest.raises(OwnRunError, match=said):
            run_state(folder, wanted)


def test_a_second_process_is_kept_out_and_what_is_not_the_trainers_stays(
    file, toy_base, tmp_path, monkeypatch
):
    folder = tmp_path / "run"
    folder.mkdir()
    with (
        FileLock(folder / ".lock"),
        pytest.raises(OwnRunError, match="another `sftlab train` is at work"),
    ):
        go(file, toy_base, folder)
    with monkeypatch.context() as patch:
        stop_at(patch, 10)
        with pytest.raises(Stopped):
            go(file, toy_base, folder)
    notes = folder / "checkpoints" / "checkpoint-4-good" / "notes.txt"
    notes.parent.mkdir()
    notes.write_text("mine")
    go(file, toy_base, folder)
    assert [one.name for one in notes.parents[1].iterdir()] == ["checkpoint-4-good"]
    assert notes.read_text() == "mine"


def test_patience_keeps_the_best_epoch_and_few_rows_are_trained_on_unmeasured(
    file, toy_base, tmp_path
):
    done = go(file, toy_base, tmp_path / "run", early_stopping_patience=1, learning_rate=1.0)
    best = min(done.run.validation, key=lambda point: point["loss"])
    assert done.run.kept_epoch == best["epoch"] < 6
    assert done.after.loss == pytest.approx(best["loss"], abs=1e-4)
    assert any(f"those of epoch {best['epoch']:g}" in line for line in summary(done))
    three = write(tmp_path / "three.jsonl", ROWS[:3])
    with pytest.raises(SettingsError, match="none is held out; leave it out"):
        go(three, toy_base, tmp_path / "other", early_stopping_patience=1)
    done = go(three, toy_base, tmp_path / "other")
    assert (done.before, done.after, done.run.validation) == (None, None, [])
    assert len(done.data.train) == 3
