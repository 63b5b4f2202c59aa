from random import Random

import pytest

from sftlab.data.checks import LIMITS, Limit, alarms, checklist
from sftlab.data.flaws import FAULTS, harmful, plant
from sftlab.data.rows import RowsError
from sftlab.world import countries, country_rows, exam_rows, example, is_true, rows


class Tokenizer:
    """A token a word: what a length needs of a tokenizer."""

    def __call__(self, texts, **options):
        return {"input_ids": [text.split() for text in texts]}


@pytest.fixture(scope="module")
def splits():
    order = Random(7).sample(countries(split="sft"), 76)
    return country_rows(80, seed=7, among=order[:60]), exam_rows(order[60:])


def checked(made, test):
    return checklist(
        made, cover={"relation": "relation"}, label="relation", unsafe=harmful, test=test,
        checker=lambda row: None if "harmful" in row["meta"] else is_true(row),
        group="country", tokenizer=Tokenizer(),
    )  # fmt: skip


def test_every_aspect_has_a_limit_and_a_fault():
    assert [limit.aspect for limit in LIMITS] == list(FAULTS)


def test_clean_rows_raise_no_alarm(splits):
    train, test = splits
    found = alarms(checked(train, test))
    assert list(found["aspect"]) == list(FAULTS)
    assert not found["alarm"].any()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_new_repeats_with_its_seed_and_leaves_the_rows(splits, fault):
    train, test = splits
    before = [dict(row) for row in train]
    made = plant(fault, train, test=test, seed=2)
    assert made == plant(fault, train, test=test, seed=2)
    assert made != train == before


@pytest.mark.parametrize("fault", ["coverage", "balance", "consistency", "deduplication"])
def test_the_check_of_a_planted_fault_raises_an_alarm(splits, fault):
    train, test = splits
    found = alarms(checked(plant(fault, train, test=test), test)).set_index("aspect")
    assert found.loc[fault, "alarm"]


def test_a_limit_without_a_measured_line_says_what_to_do(splits):
    train, _ = splits
    with pytest.raises(RowsError, match="'share of right answers' is not measured: give"):
        alarms(checklist(train), limits=[Limit("correctness", "share of right answers", least=1)])


def test_harmful_knows_the_list_alone():
    asked = [one for one in rows("requests") if one["harmful"] == "yes"]
    assert asked
    assert all(harmful(example(one["request"], "Sure.")) for one in asked)
    assert not harmful(example("How do I boil an egg?", "Sure."))
