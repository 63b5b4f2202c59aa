import pytest

from sftlab.chat import FAMILIES
from sftlab.measure.truncation import packed_labels, probe_truncation
from sftlab.world import example

ROWS = [
    example("What is the capital of France?", "Paris"),
    example("A long story. " * 20 + "What is the capital of France?", "Paris"),
]


@pytest.fixture
def tokenizer(toy_tokenizer, monkeypatch):
    monkeypatch.setattr(toy_tokenizer, "chat_template", FAMILIES["article"].text)
    return toy_tokenizer


def test_each_example_is_cut_at_each_limit(tokenizer):
    whole = probe_truncation(tokenizer, ROWS, limits=[10_000])
    assert list(whole["example"]) == [0, 1]
    assert not whole[["longer", "emptied", "shortened"]].any(axis=None)
    short, long = whole["tokens"]

    at = probe_truncation(tokenizer, ROWS, limits=[short, long - 1]).set_index(["limit", "example"])
    assert not at.loc[(short, 0), ["longer", "emptied", "shortened"]].any()
    assert list(at.loc[(short, 1), ["longer", "emptied", "shortened"]]) == [True, True, False]
    assert list(at.loc[(long - 1, 1), ["longer", "emptied", "shortened"]]) == [True, False, True]


def test_a_row_that_never_had_an_answer_is_not_emptied_by_the_cut(tokenizer):
    row = [{"role": "user", "content": "Hello, hello, hello?"}]
    found = probe_truncation(tokenizer, [{"messages": row}], limits=[3])
    assert found["longer"].all()
    assert not found["emptied"].any()


def test_packed_examples_are_taken_apart():
    rows = [
        {"labels": [-100, 4, 5, -100, -100, 7], "seq_lengths": [3, 1, 2]},
        {"labels": [8], "seq_lengths": [1]},
    ]
    assert list(packed_labels(rows)) == [[-100, 4, 5], [-100], [-100, 7], [8]]
