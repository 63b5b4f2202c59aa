"""A file of one's own: every row is accounted for, and faults are told before a model is loaded."""

import csv
import json

import pytest

from sftlab.data import RecordsError
from sftlab.train.finetuning import finetune
from sftlab.train.own_data import DataFaults, TrainingFaults, prepare
from sftlab.train.settings import Settings

GOOD = [(f"What is {n} of {n * 7919:x}?", f"{n**3:x}") for n in range(40)]


def in_shapes(pairs):
    """The pairs, each in one of the shapes that the readers know."""
    shapes = (
        lambda q, a: {
            "messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]
        },
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
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["question", "answer"])
            writer.writeheader()
            writer.writerows({"question": q, "answer": a} for q, a in rows)
    else:
        import pandas as pd

        pd.DataFrame([{"prompt": q, "completion": a} for q, a in rows]).to_parquet(path)
    return path


def talk(question, answer):
    return {
        "messages": [
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ]
    }


BAD = ["{not json", {"prompt": "", "completion": "x"}]
UNFIT = [
    talk("an answer that ends its own turn", "so <|im_end|> it is"),
    talk("many words " * 300, "gone"),
]
CUT = talk("long?", "many words " * 300)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    return write(
        tmp_path_factory.mktemp("mixed") / "my.jsonl", [*in_shapes(GOOD), *BAD, *UNFIT, CUT]
    )


def test_every_row_is_used_or_counted(mixed, toy_base):
    made = prepare(mixed, profile=toy_base, skip_bad=True, max_length=200)
    assert made.report.rows == 45
    assert made.report.bad == 2
    assert made.used + made.report.bad + len(made.left_out) == 45
    assert made.reasons() == {
        "they hold a token that only the template may write": 1,
        "nothing of their answers is learned": 1,
    }
    assert made.cut == 1
    seen = {row["messages"][0]["content"] for row in [*made.train, *made.held_out]}
    assert seen == {question for question, _ in GOOD} | {"long?"}
    assert {row["messages"][0]["content"] for row in made.train}.isdisjoint(
        row["messages"][0]["content"] for row in made.held_out
    )
    shown = str(made)
    assert "45 in " in shown
    assert "41 used, 2 bad, 2 left out" in shown
    assert "max_length 200 cuts 1 rows" in shown
    assert "row 43" in shown, "the row that is cut, among the good ones"
    assert "rows counted without the bad ones" in shown


@pytest.mark.filterwarnings("ignore:.* are longer than max_length")
def test_counts_are_those_of_the_training(mixed, toy_base):
    made = prepare(
        mixed, profile=toy_base, skip_bad=True, per_device_train_batch_size=8, num_train_epochs=1
    )
    rows = [{"messages": row["messages"]} for row in made.train]
    run = finetune(toy_base, rows, settings=made.settings, progress=False)
    lengths = [made.lengths[n] for n in made.split.train]
    assert run.tokens["total"] == made.tokens
    assert run.tokens["supervised"] == sum(one.learned for one in lengths)
    assert run.tokens["cut"] == sum(one.lost > 0 for one in lengths)
    assert run.history[-1]["step"] == made.steps


@pytest.mark.parametrize("name", ["a.json", "a.csv", "a.parquet"])
def test_other_formats_give_the_same_rows(tmp_path, toy_base, name):
    rows = in_shapes(GOOD) if name == "a.json" else GOOD
    made = prepare(write(tmp_path / name, rows), profile=toy_base)
    lines = prepare(write(tmp_path / "a.jsonl", in_shapes(GOOD)), profile=toy_base)
    for side in ("train", "held_out"):
        assert [row["messages"] for row in getattr(made, side)] == [
            row["messages"] for row in getattr(lines, side)
        ]
    assert made.held_out


def test_faults_of_all_rows_are_told_at_once(mixed, toy_base):
    with pytest.raises(DataFaults, match="line 41") as caught:
        prepare(mixed, profile=toy_base)
    assert caught.value.report.bad == 2
    assert "line 42" in str(caught.value)


def test_a_file_without_one_good_row_is_refused(tmp_path, toy_base):
    with pytest.raises(DataFaults, match="the content is empty"):
        prepare(write(tmp_path / "a.jsonl", BAD), profile=toy_base, skip_bad=True)
    with pytest.raises(RecordsError, match="no such file"):
        prepare(tmp_path / "none.jsonl", profile=toy_base)


def test_rows_that_teach_nothing_stop_it(tmp_path, toy_base):
    file = write(tmp_path / "a.jsonl", [*in_shapes(GOOD), *UNFIT])
    with pytest.raises(TrainingFaults, match=r"2 of 42 rows, add --skip-bad") as caught:
        prepare(file, profile=toy_base)
    said = str(caught.value)
    assert "hold a token that only the template may write" in said
    assert "lose their whole answer" in said
    assert "the model reads 512 at most (--set max_length=...)" in said
    masked = write(tmp_path / "b.jsonl", [UNFIT[1]] * 9)
    with pytest.raises(TrainingFaults, match="no row is left"):
        prepare(masked, profile=toy_base, skip_bad=True)


def test_a_row_whose_last_answer_is_cut_off_teaches_nothing_where_the_last_counts(
    tmp_path, toy_base
):
    two = talk("hi", "ho")["messages"] + talk("many words " * 300, "gone")["messages"]
    file = write(tmp_path / "a.jsonl", [*in_shapes(GOOD), {"messages": two}])
    assert prepare(file, profile=toy_base).cut == 1
    with pytest.raises(TrainingFaults, match="is row 41"):
        prepare(file, profile=toy_base, supervised="last")


def test_a_template_with_an_error_stops_it_unless_told_otherwise(tmp_path, toy_base):
    file = write(tmp_path / "a.jsonl", in_shapes(GOOD))
    endless = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    with pytest.raises(TrainingFaults, match=r"nothing ends an answer(.|\n)*--anyway"):
        prepare(file, profile=toy_base, template=endless)
    made = prepare(file, profile=toy_base, template=endless, anyway=True)
    assert any("nothing ends an answer" in note for note in made.notes)
    assert prepare(file, profile=toy_base, template="alpaca").notes[:-1] == []


def test_a_limit_beyond_what_the_model_reads_is_not_promised(tmp_path, toy_base):
    file = write(tmp_path / "a.jsonl", in_shapes(GOOD))
    assert prepare(file, profile=toy_base, max_length=4000).settings.max_length == 512
    assert prepare(file, profile=toy_base, max_length=100).settings.max_length == 100


def test_few_steps_are_told_before(tmp_path, toy_base):
    file = write(tmp_path / "a.jsonl", in_shapes(GOOD))
    assert "3 steps of training are few" in str(prepare(file, profile=toy_base))
    many = prepare(
        file,
        profile=toy_base,
        settings=Settings(num_train_epochs=10, per_device_train_batch_size=4),
    )
    assert many.steps == 80
    assert many.notes == []
