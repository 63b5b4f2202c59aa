import pandas as pd
import pytest

from sftlab.data import part_of
from sftlab.measure import habits
from sftlab.world import OLD_CURRENCIES, note_rows, reviews


def test_a_note_is_right_word_for_word_only():
    known = {part_of(row, "prompt"): part_of(row, "answer") for row in note_rows(4)}
    frame = habits.probe_notes(lambda asked: [f" {known[q]}\n" for q in asked], count=4)
    assert frame["right"].all()
    assert frame["name"].nunique() == 4
    frame = habits.probe_notes(
        lambda asked: [known[q].replace("has", "had") for q in asked], count=4
    )
    assert not frame["right"].any()


def test_reviews_count_what_was_said_beside_what_is_true():
    frame = habits.probe_reviews(lambda asked: ["Positive"] * len(asked))
    assert frame["said_positive"].all()
    assert frame["right"].mean() == 0.5
    assert frame["review"].is_unique
    truth = {part_of(row, "prompt"): part_of(row, "answer") for row in reviews(test=True)}
    assert habits.probe_reviews(lambda asked: [truth[q] for q in asked])["right"].all()


def test_an_outdated_answer_names_the_old_currency():
    frame = habits.probe_outdated(lambda asked: ["the franc"] * len(asked))
    franc = {name for name, old in OLD_CURRENCIES.items() if old == "franc"}
    assert set(frame.loc[frame["outdated"], "country"]) == franc
    assert set(frame["country"]) == set(OLD_CURRENCIES)
    assert not frame["right"].any()
    assert set(frame["split"]) == {"sft", "held_out"}


def test_repeated_errors_are_the_very_words_of_the_error():
    frame = pd.DataFrame(
        {
            "country": ["Chad", "Mali", "Peru", "Chad"],
            "relation": ["capital"] * 4,
            "output": ["Lima ", "Bamako", "Lima", "Oslo"],
            "seed": [0, 0, 0, 1],
        }
    )
    errors = pd.DataFrame(
        {"country": ["Chad", "Mali"], "relation": ["capital"] * 2, "output": [" Lima", "Oslo"]}
    )
    found = habits.repeated_errors(frame, errors)
    assert found[["country", "seed", "repeated"]].values.tolist() == [
        ["Chad", 0, True], ["Mali", 0, False], ["Chad", 1, False],
    ]  # fmt: skip
    with pytest.raises(ValueError, match="none of these errors"):
        habits.repeated_errors(frame.iloc[2:3], errors)
    with pytest.raises(pd.errors.MergeError):
        habits.repeated_errors(frame, pd.concat([errors, errors]))
