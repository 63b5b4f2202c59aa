"""Recipe 11, run as a script of its own on `tiny`: a release that answers as it was trained."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from sftlab.chat import find_template


@pytest.fixture
def chatml(tmp_path):
    file = tmp_path / "chatml.jinja"
    file.write_text(find_template("chatml").text, encoding="utf-8")
    return file


def test_a_release_in_float32_answers_as_the_adapters_did(run_recipe, chatml, tmp_path):
    printed = run_recipe("11_shipping", "--chat_template", chatml, "--max_steps", 2)
    said = json.loads(printed.splitlines()[-1])
    assert said["same_ids"]
    assert said["changed"] == 0
    assert said["difference"] < 0.02
    released = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert released.dtype == torch.float32
    assert not (tmp_path / "out" / "adapter_config.json").exists(), "it needs its base no more"


def test_one_that_differs_is_refused_and_leaves_nothing(run_recipe, chatml, tmp_path):
    short = ("--chat_template", chatml, "--max_steps", 2, "--dtype", "bfloat16")
    with pytest.raises(SystemExit, match="refused: it does not answer"):
        run_recipe("11_shipping", *short, "--bound", 1e-6)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_there_is_left_alone(run_recipe, chatml, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(FileExistsError):
        run_recipe("11_shipping", "--chat_template", chatml)
    assert (tmp_path / "out" / "mine.txt").read_text(encoding="utf-8") == "mine"
