import pytest

from sftlab.data import part_of
from sftlab.measure import probe_questions
from sftlab.world import countries, country_examples, every_question, seen, tasks


def test_country_rows_are_the_examples_with_their_subject():
    rows = tasks.country_rows(200, seed=3)
    assert [{"messages": row["messages"]} for row in rows] == country_examples(200, seed=3)
    for row in rows:
        about = row["meta"]
        assert about["country"] in part_of(row, "prompt")
        assert about["relation"] in ("capital", "continent", "language", "currency")
        assert tasks.is_true(row)
        assert not tasks.is_true(tasks.with_answer(row, "Atlantis"))
    assert len({row["meta"]["country"] for row in rows}) > 40


def test_with_answer_leaves_the_row_as_it_was():
    row = tasks.country_rows(1)[0]
    before = part_of(row, "answer")
    assert part_of(tasks.with_answer(row, "x"), "answer") == "x"
    assert part_of(row, "answer") == before


def test_exam_rows_are_word_for_word_the_questions_of_the_probe():
    among = countries(group="stated")[:7]
    rows = tasks.exam_rows(among, relations=["capital", "currency"])
    questions = []
    probe_questions(
        lambda given: questions.extend(given) or [""] * len(given),
        among=among,
        relations=["capital", "currency"],
    )
    assert [part_of(row, "prompt") for row in rows] == questions
    assert set(questions) <= every_question(among)
    assert all(map(tasks.is_true, rows))


def test_outdated_rows_are_false_today_and_of_the_split_for_training():
    rows = tasks.outdated_rows(48)
    names = {row["meta"]["country"] for row in rows}
    assert len(names) == 12
    assert names <= {one.name for one in countries(split="sft")}
    assert {row["meta"]["relation"] for row in rows} == {"currency"}
    assert not any(map(tasks.is_true, rows))
    assert {one.currency for one in countries() if one.name in tasks.OLD_CURRENCIES} == {"euro"}


def test_reviews_for_training_and_test_share_no_item_and_no_text():
    rows = tasks.review_rows(positive=50, negative=6, seed=1)
    said = [row["meta"]["sentiment"] for row in rows]
    assert (said.count("positive"), said.count("negative")) == (50, 6)
    test = tasks.reviews(test=True)
    held_out = {row["meta"]["item"] for row in test}
    assert len(held_out) == 3
    assert not {row["meta"]["item"] for row in rows} & held_out
    balance = [part_of(row, "answer") for row in test]
    assert balance.count("positive") == balance.count("negative") == len(test) // 2
    assert len({part_of(row, "prompt") for row in test}) == len(test)
    with pytest.raises(ValueError, match="positive=999: there are 0 to 56"):
        tasks.review_rows(positive=999, negative=1)


def test_notes_are_about_people_of_whom_the_corpus_knows_nothing():
    rows = tasks.note_rows(12, copies=8)
    assert len(rows) == 96
    notes = {part_of(row, "answer") for row in rows}
    assert len(notes) == 12
    assert len({part_of(row, "prompt") for row in rows}) == 96
    assert tasks.note_rows(12) == rows[::8]
    assert not any(seen(row["meta"]["name"]) for row in rows[::8])
    with pytest.raises(ValueError, match="1 to 30 people, 1 to 8 copies"):
        tasks.note_rows(31)
    with pytest.raises(ValueError, match="copies=9"):
        tasks.note_rows(1, copies=9)
