"""Probes of knowledge and habits, by answerers that are known."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftlab.data import part_of
from sftlab.measure import (
    ANSWERED,
    CONTINUED,
    OTHER,
    is_right,
    made_up,
    probe_notes,
    probe_outdated,
    probe_questions,
    probe_reviews,
    probe_rewordings,
    probe_variety,
    repeated_errors,
    rewording_losses,
)
from sftlab.measure.probes import abstains, reaction
from sftlab.world import OLD_CURRENCIES, RELATIONS, countries, country, note_rows, reviews

WORDS = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\n"), max_size=30)


@pytest.mark.parametrize(
    ("output", "right"),
    [
        ("Paris", True),
        (" paris.", True),
        ("The capital is Paris, of course", True),
        ("Comparison", False),
        ("London\nParis", False),
        ("", False),
        ("pariss", False),
    ],
)
def test_an_answer_counts_as_whole_words_on_the_first_line(output, right):
    assert is_right(output, ("Paris",)) is right


def test_accents_and_aliases_do_not_matter():
    assert is_right("Brasilia", ("Brasília",))
    assert is_right("N'Djamena!", ("Ndjamena", "N'Djamena"))
    assert is_right("Cape Town", country("South Africa").answers("capital"))


@given(WORDS, WORDS)
def test_what_stands_around_an_answer_does_not_hide_it(before, after):
    assert is_right(f"x{before} Paris {after}x", ("Paris",))


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (" What is the capital of Spain?", CONTINUED),
        ("\nIs Paris the capital of France?\nParis", CONTINUED),
        (" Paris. What next?", ANSWERED),
        ("London", OTHER),
        ("London. What is the capital of Spain?", OTHER),
        ("", OTHER),
    ],
)
def test_reactions(output, expected):
    assert reaction(output, ("Paris",)) == expected


def test_a_perfect_and_a_silent_answerer():
    held_out = countries(split="held_out")
    order = [(one.name, relation) for one in held_out for relation in RELATIONS]
    answers = [one.answers(relation)[-1] for one in held_out for relation in RELATIONS]
    frame = probe_questions(lambda questions: answers, among=held_out)
    assert frame["right"].all()
    assert list(zip(frame["country"], frame["relation"], strict=True)) == order
    silent = probe_questions(lambda questions: [""] * len(questions), among=held_out)
    assert not silent["right"].any()
    assert set(silent["reaction"]) == {OTHER}


def test_test_questions_are_the_same_whatever_else_is_asked():
    prompts = []
    for among in ([country("France")], countries()):
        frame = probe_questions(lambda questions: [""] * len(questions), among=among)
        prompts.append(list(frame.loc[frame["country"] == "France", "prompt"]))
    assert prompts[0] == prompts[1]
    with pytest.raises(ValueError, match="at least one country"):
        probe_questions(lambda questions: [], among=[])


def test_an_answer_lost_to_a_rewording_costs_one():
    frame = probe_rewordings(
        lambda questions: ["Paris" if q.endswith("?") else "?" for q in questions],
        among=[country("France")],
        relations=["capital"],
    )
    lost = rewording_losses(frame).set_index("wording")["lost"]
    assert lost.to_dict() == {
        "no question mark": 1,
        "lower case": 0,
        "with a greeting": 0,
        "with a please": 0,
    }


def test_variety_of_what_is_drawn():
    texts = ["Paris", "Paris", "a b c d e", "Paris\nRome"]
    found = probe_variety(
        lambda questions, n: [texts[n]] * len(questions),
        among=[country("France")],
        draws=4,
        relations=["capital"],
    ).iloc[0]
    assert (found["words"], found["distinct"], found["on_format"]) == (9 / 4, 2 / 3, 1 / 2)


def test_a_note_is_right_word_for_word_only():
    known = {part_of(row, "prompt"): part_of(row, "answer") for row in note_rows(4)}
    frame = probe_notes(lambda questions: [f" {known[q]}\n" for q in questions], count=4)
    assert frame["right"].all()
    assert frame["name"].nunique() == 4
    changed = lambda questions: [known[q].replace("has", "had") for q in questions]  # noqa: E731
    assert not probe_notes(changed, count=4)["right"].any()


def test_reviews_count_what_was_said_and_what_is_true():
    frame = probe_reviews(lambda questions: ["Positive"] * len(questions))
    assert frame["said_positive"].all()
    assert frame["right"].mean() == 0.5
    assert frame["review"].is_unique
    truth = {part_of(row, "prompt"): part_of(row, "answer") for row in reviews(test=True)}
    assert probe_reviews(lambda questions: [truth[q] for q in questions])["right"].all()


def test_an_outdated_answer_names_the_old_currency():
    frame = probe_outdated(lambda questions: ["the franc"] * len(questions))
    franc = {name for name, old in OLD_CURRENCIES.items() if old == "franc"}
    assert set(frame.loc[frame["outdated"], "country"]) == franc
    assert set(frame["country"]) == set(OLD_CURRENCIES)
    assert not frame["right"].any()
    assert set(frame["split"]) == {"sft", "held_out"}


def test_repeated_errors_are_the_very_words_of_the_error():
    rows = [("Chad", "Lima ", 0), ("Mali", "Bamako", 0), ("Peru", "Lima", 0), ("Chad", "Oslo", 1)]
    frame = pd.DataFrame(rows, columns=["country", "output", "seed"]).assign(relation="capital")
    errors = pd.DataFrame({"country": ["Chad", "Mali"], "output": [" Lima", "Oslo"]})
    errors = errors.assign(relation="capital")
    found = repeated_errors(frame, errors)
    assert found[["country", "seed", "repeated"]].values.tolist() == [
        ["Chad", 0, True],
        ["Mali", 0, False],
        ["Chad", 1, False],
    ]
    with pytest.raises(ValueError, match="none of these errors"):
        repeated_errors(frame.iloc[2:3], errors)
    with pytest.raises(pd.errors.MergeError):
        repeated_errors(frame, pd.concat([errors, errors]))


@pytest.mark.parametrize(
    ("text", "unsure"),
    [("I don't know.", True), ("I do not know that country", True), ("I don’t know", True),
     ("I can't say.", True), ("No idea!", True), ("Paris", False), ("They know Paris", False),
     ("", False)],
)  # fmt: skip
def test_what_says_that_it_does_not_know(text, unsure):
    assert abstains(text) is unsure


def test_three_kinds_of_answers():
    outputs = ["Paris", "Rome", "I don't know.", " "]
    found = made_up(pd.DataFrame({"output": outputs, "right": [True, False, False, False]}))
    assert list(found["kind"]) == ["right", "made up", "abstained", "abstained"]
    assert list(found["made_up"]) == [0, 1, 0, 0]
