"""A run in all its forms: what must be equal is, what is rounded more differs more."""

import pytest

from sftlab import countries, probe_questions
from sftlab.ship import compare_forms


@pytest.fixture(scope="module")
def rows(run):
    among = [one for one in countries(split="held_out") if one.group == "asked"][:12]
    questions = probe_questions(run.answer, among=among, relations=["capital"])
    found = compare_forms(run, questions, precisions=["f32", "bf16", "nf4"], types=["f16", "q4_0"])
    return found.assign(before=found["country"].map(questions.set_index("country")["right"]))


def test_every_form_is_asked_and_a_file_every_third_question(rows):
    sizes = rows.groupby("form", sort=False).size().to_dict()
    assert sizes == {"f32": 12, "bf16": 12, "nf4": 12, "GGUF f16": 4, "GGUF q4_0": 4}


def test_the_same_weights_give_the_same_answers(rows):
    same = rows[rows["form"] == "f32"]
    assert not same["changed"].any()
    assert same["difference"].max() < 1e-3
    assert (same["right"] == same["before"]).all()


def test_fewer_bits_differ_more_and_take_less(rows):
    by_form = rows.groupby("form")[["difference", "megabytes"]].max()
    for finer, coarser in (("f32", "bf16"), ("bf16", "nf4"), ("GGUF f16", "GGUF q4_0")):
        assert by_form["difference"][finer] < by_form["difference"][coarser]
        assert by_form["megabytes"][finer] > by_form["megabytes"][coarser]


def test_a_changed_answer_is_one_whose_tokens_part(rows):
    assert (rows["changed"] == (rows["token"] != rows["other"])).all()
    unchanged = rows[~rows["changed"]]
    assert set(unchanged["token"]) == {"<|im_end|>"}, "compared up to the end of the answer"
