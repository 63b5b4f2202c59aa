import pytest

from sftlab.world import countries, country_examples, passage_examples


def parts(row):
    asked, answered = row["messages"]
    assert (asked["role"], answered["role"]) == ("user", "assistant")
    return asked["content"], answered["content"]


def test_a_passage_stands_before_each_question_of_the_plain_examples():
    lengths = set()
    for row, plain in zip(passage_examples(80), country_examples(80), strict=True):
        (prompt, answer), (question, expected) = parts(row), parts(plain)
        assert prompt.endswith(question)
        assert answer == expected
        lengths.add(len(prompt) - len(question))
    assert 0 in lengths
    assert len(lengths) > 20


def test_passages_name_no_country_that_is_held_out():
    names = [f" {country.name}" for country in countries(split="held_out")]
    trained = [country.name for country in countries(split="sft")]
    for row in passage_examples(80, seed=3):
        prompt = " " + parts(row)[0]
        for name in names:  # Guinea is a part of Guinea-Bissau
            assert name not in prompt or any(name.strip() in other for other in trained)


def test_the_seed_decides():
    assert passage_examples(20, seed=1) == passage_examples(20, seed=1)
    assert passage_examples(20, seed=1) != passage_examples(20, seed=2)


def test_no_sentences_are_no_passage():
    assert passage_examples(20, sentences=0) == country_examples(20)


def test_a_negative_number_of_sentences_is_refused():
    with pytest.raises(ValueError, match="sentences=-1; give 0 or more"):
        passage_examples(20, sentences=-1)
