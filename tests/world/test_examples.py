import pytest

from sftlab.world import country_examples, country_shots, every_question, facts, grammar


def questions(examples):
    return [example["messages"][0]["content"] for example in examples]


def test_examples_are_on_the_countries_of_the_split_and_nothing_held_out():
    asked = set(questions(country_examples(1000)))
    assert asked <= every_question(facts.countries(split="sft"))
    assert not asked & every_question(facts.countries(split="held_out"))
    test_wordings = {
        grammar.question(country, relation, wording="test", form=form)
        for country in facts.countries()
        for relation in facts.RELATIONS
        for form in range(2)
    }
    assert not asked & test_wordings


def test_every_pair_comes_once_before_any_comes_twice():
    among = facts.countries(split="sft")[:5]
    examples = country_examples(20, among=among)
    answers = sorted(example["messages"][1]["content"] for example in examples)
    assert answers == sorted(getattr(c, r) for c in among for r in facts.RELATIONS)


def test_a_seed_gives_the_same_examples_and_another_seed_others():
    assert country_examples(50, seed=3) == country_examples(50, seed=3)
    assert country_examples(50, seed=3) != country_examples(50, seed=4)
    assert len(set(questions(country_examples(500)))) == 500


def test_too_many_or_none_is_an_error_with_the_limit():
    one = facts.countries(split="sft")[:1]
    most = sum(len(grammar.QUESTIONS[r]["sft"]) for r in facts.RELATIONS)
    assert len(country_examples(most, among=one)) == most
    for count in (0, most + 1):
        with pytest.raises(ValueError, match=f"1 to {most}"):
            country_examples(count, among=one)


def test_shots_take_turns_over_the_relations():
    shots = country_shots(4)
    for (question, _), relation in zip(shots, facts.RELATIONS, strict=True):
        assert relation in question
    assert len({question for question, _ in country_shots(8)}) == 8
