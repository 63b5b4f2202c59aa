import pytest

from sftlab.world import facts, grammar


def test_a_cloze_is_a_statement_cut_before_its_answer():
    for country in facts.countries():
        for relation in facts.RELATIONS:
            for form in range(grammar.CLOZE_FORMS):
                cut = grammar.cloze(country, relation, form=form)
                whole = grammar.statement(country, relation, form=form)
                assert whole == f"{cut} {getattr(country, relation)}."


def test_test_wordings_are_kept_from_examples():
    for relation, wordings in grammar.QUESTIONS.items():
        assert not set(wordings["sft"]) & set(wordings["test"]), relation
        assert all("{x}" in form for forms in wordings.values() for form in forms)


def test_names_take_their_article():
    states = facts.country("United States")
    assert grammar.question(states, "capital") == "What is the capital of the United States?"
    assert grammar.statement(states, "continent").startswith("The United States is")
    assert "the France" not in grammar.question(facts.country("France"), "capital")
    assert grammar.with_article("owl") == "an owl"


def test_a_wrong_relation_or_wording_is_named():
    france = facts.country("France")
    with pytest.raises(ValueError, match="anthem"):
        grammar.question(france, "anthem")
    with pytest.raises(ValueError, match="'sft' or 'test'"):
        grammar.question(france, "capital", wording="dev")
    with pytest.raises(ValueError, match="form 9"):
        grammar.cloze(france, "capital", form=9)
