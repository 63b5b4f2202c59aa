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
    probe_questions,
    probe_reviews,
    probe_rewordings,
    probe_variety,
)
from sftlab.measure.probes import reaction
from sftlab.world import RELATIONS, countries, country, note_rows, reviews

WORDS = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\n"), max_size=30)
FRANCE = {"among": [country("France")], "relations": ["capital"]}


def test_an_answer_counts_as_whole_words_on_the_first_line():
    for output in (" paris.", "The capital is Paris, of course"):
        assert is_right(output, ["Paris"])
    for output in ("Comparison", "pariss", "London\nParis", ""):
        assert not is_right(output, ["Paris"])
    assert is_right("Brasilia", ["Brasília"])
    assert is_right("N'Djamena!", ["Ndjamena", "N'Djamena"])
    assert is_right("Cape Town", country("South Africa").answers("capital"))


@given(WORDS, WORDS)
def test_what_stands_around_an_answer_does_not_hide_it(before, after):
    assert is_right(f"x{before} Paris {after}x", ("Paris",))


def test_reactions():
    for output, expected in {
        " What is the capital of Spain?": CONTINUED,
        "\nIs Paris the capital of France?\nParis": CONTINUED,
        " Paris. What next?": ANSWERED,
        "London. What is the capital of Spain?": OTHER,
        "": OTHER,
    }.items():
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


def test_a_question_is_reworded_and_judged_as_before():
    asked = []
    answers = lambda questions: asked.extend(questions) or ["Paris"]  # noqa: E731
    frame = probe_rewordings(answers, **FRANCE)
    plain, bare, *others = asked
    assert plain == f"{bare}?"
    assert others == [plain.lower(), f"Hello! {plain}", f"Please tell me: {plain}"]
    assert set(frame["prompt"]) == {plain}
    assert frame["right"].all()


def test_variety_of_what_is_drawn():
    texts = ["Paris", "Paris", "a b c d e", "Paris\nRome"]
    found = probe_variety(lambda questions, n: [texts[n]], **FRANCE).iloc[0]
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


def test_an_output_is_right_or_says_that_it_does_not_know_or_is_made_up():
    unsure = ["I don't know.", "I do not know that country", "I don’t know", "I can't say.",
              "No idea!", " "]  # fmt: skip
    outputs = ["Paris", *unsure, "Rome", "They know Paris"]
    frame = pd.DataFrame({"output": outputs, "right": [one == "Paris" for one in outputs]})
    found = made_up(frame)
    assert list(found["kind"]) == ["right", *["abstained"] * len(unsure), *["made up"] * 2]
    assert list(found["made_up"]) == [0] * 7 + [1] * 2
    assert list(found["abstained"]) == [0, *[1] * len(unsure), 0, 0]
