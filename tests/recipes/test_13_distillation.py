"""Recipe 13, run on `tiny`: a teacher's answers are written down, and the student learns them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from sftlab import countries, country_examples, finetune, probe_questions
from sftlab.chat import find_template
from sftlab.world import house_style

TESTED = [c for c in countries(split="held_out") if c.group == "asked"]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A fine-tune that answers in a style of its own, which the student's own rows lack; saved."""
    rows = country_examples(200, style=house_style)
    run = finetune("tiny", rows, per_device_train_batch_size=8, progress=False)
    return run, run.save(tmp_path_factory.mktemp("run") / "teacher")


@pytest.fixture
def distill(teacher, run_recipe, tmp_path):
    """A function that runs the recipe on questions, and returns the student's folder, the rows that
    the teacher wrote, and what was printed last."""

    def run(name, rows, **options):
        prompts, template = tmp_path / f"{name}.jsonl", tmp_path / "chatml.jinja"
        template.write_text(find_template("chatml").text, encoding="utf-8")
        lines = [json.dumps({"messages": row["messages"][:1]}) + "\n" for row in rows]
        prompts.write_text("".join(lines), encoding="utf-8")
        given = {"teacher": teacher[1], "prompts": prompts, "chat_template": template, **options}
        given["out"] = tmp_path / name
        words = [word for key, value in given.items() for word in (f"--{key}", value)]
        printed = run_recipe("13_distillation", *words)
        (said,) = [json.loads(x) for x in printed.splitlines() if x.startswith('{"own"')]
        return tmp_path / name, read(tmp_path / name / "taught.jsonl"), said

    return run


def read(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def in_style(folder: Path, run) -> float:
    """The share of the saved student's answers that are right in the teacher's style."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    student = replace(run, model=AutoModelForCausalLM.from_pretrained(folder).eval())
    assert tokenizer.get_chat_template() == run.tokenizer.get_chat_template()
    return probe_questions(student.answer, among=TESTED, style=house_style)["right"].mean()


def test_the_student_answers_as_its_teacher_wrote(teacher, distill):
    asked, shares = country_examples(96, seed=1), {}
    for name, rows in {"many": asked, "one": asked[:1]}.items():
        how = {"max_steps": 45, "learning_rate": 1e-3, "max_new_tokens": 16}
        folder, taught, said = distill(name, rows, **how)
        assert said == {"own": 24, "taught": len(rows), "cut": 0}
        questions = [row["messages"][0]["content"] for row in taught]
        assert [row["messages"][1]["content"] for row in taught] == teacher[0].answer(questions)
        shares[name] = in_style(folder, teacher[0])
    assert shares["many"] > shares["one"] + 0.3


def test_an_answer_that_was_cut_off_teaches_nothing(distill):
    """At five tokens a sentence is cut off, while a single word may end."""
    rows = country_examples(24)
    _, kept, said = distill("short", rows, max_steps=1, max_new_tokens=5)
    assert 0 < len(kept) == len(rows) - said["cut"] < len(rows)
    assert not any(row["messages"][1]["content"].startswith("The ") for row in kept)
