"""The first line of a lesson: what it says of the time that it takes, and what it returns."""

import json
from types import SimpleNamespace

import pytest

from sftlab import start_lesson
from sftlab.course import lessons, record_minutes, recorded_minutes


@pytest.fixture
def minutes(monkeypatch, tmp_path):
    monkeypatch.setattr(lessons, "MINUTES", tmp_path / "minutes.json")

    def write(**recorded):
        lessons.MINUTES.write_text(json.dumps({"machine": "2 cores"} | recorded))

    write()
    return write


@pytest.mark.parametrize(
    ("recorded", "speed", "said"),
    [
        ({}, 500, "How long it runs has not been recorded."),
        ({"06_x": 4.2}, 500, "About **4.2 minutes** to run all of it on 2 cores."),
        ({"06_x": 4.2, "tokens_per_second": 1000}, None, "on 2 cores."),
        ({"06_x": 4.2, "tokens_per_second": 1000}, 500, "About **8 minutes** to run all of it on"),
        ({"06_x": 4.2, "tokens_per_second": 1000}, 9000, "About **1 minute** to run"),
    ],
)
def test_running_minutes_are_scaled_by_the_speed_of_this_machine(
    minutes, tmp_path, recorded, speed, said
):
    minutes(**recorded)
    assert said in lessons.time_line("06_x", speed, folder=tmp_path)  # no notebook, as on Colab


def test_study_minutes_are_those_of_the_first_cell(minutes, tmp_path):
    cell = {"cell_type": "markdown", "metadata": {}}
    cell["source"] = ["# X\n", "It does.\n", "**Study time:** about 45 minutes\n"]
    (tmp_path / "06_x.ipynb").write_text(json.dumps({"cells": [cell]}))
    minutes(**{"06_x": 4.2})
    said = lessons.time_line("06_x", 500, folder=tmp_path)
    assert said.startswith("**45 minutes** to study the core path; about **4.2 minutes**")


def test_a_lesson_starts_with_its_model_and_chat_template(minutes):
    lesson = SimpleNamespace(name="06_x", minutes=1.5)
    minutes(**{"06_x": 1, "07_y": 2})
    record_minutes([lesson])
    assert (recorded_minutes("06_x"), recorded_minutes("07_y")) == (1.5, 2)
    assert json.loads(lessons.MINUTES.read_text())["tokens_per_second"] > 0
    model, tokenizer = start_lesson("00_start_here", "tiny")
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.eos_token_id in model.generation_config.eos_token_id
    _, plain = start_lesson("00_start_here", "tiny", template=None)
    assert plain.eos_token != "<|im_end|>"
