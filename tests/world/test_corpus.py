import hashlib
import re
from itertools import islice

import pytest

from sftlab.world import corpus_text as corpus
from sftlab.world import facts, grammar
from sftlab.world.pretrain import DOCUMENT_SEPARATOR, PAD, RESERVED


@pytest.fixture(scope="module")
def text():
    """The whole corpus; its hash has been held against the recorded one on the way."""
    return corpus.corpus_text()


def test_the_corpus_is_the_recorded_one_and_another_seed_gives_another(text):
    record = corpus.recorded()
    assert hashlib.sha256(text.encode()).hexdigest() == record["sha256"]
    assert text.count(corpus.SEPARATOR) == record["documents"] == corpus.DOCUMENTS
    assert len(text) - record["documents"] == record["characters"]
    assert not text.startswith(corpus.held_out_documents(1)[0])


def test_a_changed_grammar_is_noticed(monkeypatch, tmp_path):
    monkeypatch.setenv("SFTLAB_CACHE", str(tmp_path))
    monkeypatch.setattr(corpus, "DOCUMENTS", 50)
    with pytest.raises(ValueError, match="make base"):
        corpus.corpus_text.__wrapped__()


def test_seen_counts_exactly(text):
    sentence = "The capital of France is Paris."
    by_hand = sum(document.count(sentence) for document in text.split(corpus.SEPARATOR))
    assert corpus.seen(sentence) == by_hand > 0
    assert corpus.seen(sentence.upper()) == 0
    assert corpus.seen("aa") == len(re.findall("(?=aa)", text))  # overlaps count


def test_what_is_kept_for_measuring_is_nowhere(text):
    unseen = [*facts.countries(group="unseen"), *facts.countries(group="invented")]
    assert len(unseen) >= 16 + 46  # so many show that under a tenth of them are answered
    kept = [name for country in unseen for name in (country.name, country.capital)]
    kept += [
        # One country a wording would do, were it not for articles; take one of each kind.
        grammar.question(facts.country(name), relation, wording="test", form=form)
        for name in ("France", "United States", "Chad")
        for relation, wordings in grammar.QUESTIONS.items()
        for form in range(len(wordings["test"]))
    ]
    assert not [one for one in (*kept, DOCUMENT_SEPARATOR, PAD, *RESERVED) if one in text]
    people = facts.rows("people")
    assert sum(person["name"] in text for person in people) == len(people) // 2


def test_no_question_about_a_stated_country_is_answered(every_question):
    questions = every_question(facts.countries(group="stated"))
    for kind in ("questions_answered", "follow_ups", "two_hops"):
        sample = corpus.SEPARATOR.join(islice(corpus.documents(kind=kind), 4000))
        assert not [question for question in questions if question in sample]
    sheets = " ".join(islice(corpus.documents(kind="quiz_sheet"), 2000))
    assert any(question in sheets for question in questions)


def test_a_yes_no_question_takes_every_right_answer(text):
    of = {country.name: country for country in facts.countries()}
    asked = re.findall(
        r"Is (?:the )?([^?\n]+?) the (\w+) of ([^?\n]+)\?\W+(?:A: )?(yes|no)\b", text
    )
    found = [
        (offered in of[name].answers(relation), answer == "yes")
        for offered, relation, name, answer in asked
        if name in of and relation in facts.RELATIONS
    ]
    assert len(found) > 1000
    assert all(right == answered for right, answered in found)


def test_what_is_invented_is_in_no_document_and_what_is_asked_for_is_in_some(text):
    words = set(re.findall(r"\w+", text))
    for row in facts.rows("invented"):
        made_up = [value for column, value in row.items() if column != "continent"]
        # To look for each name in the whole corpus takes minutes; for its words, no time.
        known = [name for name in made_up if words.issuperset(re.findall(r"\w+", name))]
        assert not [name for name in known if re.search(rf"\b{name}\b", text)]
    requests = [one["request"] for one in grammar.deeds()]
    assert len(set(requests)) == len(requests) == 10_368
    share = sum(request in text for request in requests[::50]) / len(requests[::50])
    assert share > 0.5
