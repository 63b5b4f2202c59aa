"""Probes of knowledge and habits, by answerers that are known."""

from sftlab.measure import is_right, probe_questions, probes
from sftlab.world import RELATIONS, countries, country

FRANCE = {"among": [country("France")], "relations": ["capital"]}


def test_an_answer_counts_as_whole_words_on_the_first_line():
    for output in (" paris.", "The capital is Paris, of course"):
        assert is_right(output, ["Paris"])
    for output in ("Comparison", "pariss", "London\nParis", ""):
        assert not is_right(output, ["Paris"])
    assert is_right("Brasilia", ["Brasília"])
    assert is_right("N'Djamena!", ["Ndjamena", "N'Djamena"])


def test_reactions():
    for output, expected in {
        " What is the capital of Spain?": probes.CONTINUED,
        "\nIs Paris the capital of France?\nParis": probes.CONTINUED,
        " Paris. What next?": probes.ANSWERED,
        "London. What is the capital of Spain?": probes.OTHER,
        "": probes.OTHER,
    }.items():
        assert probes.reaction(output, ("Paris",)) == expected


def test_a_perfect_and_a_silent_answerer():
    held_out = countries(split="held_out")
    order = [(one.name, relation) for one in held_out for relation in RELATIONS]
    answers = [one.answers(relation)[-1] for one in held_out for relation in RELATIONS]
    frame = probe_questions(lambda questions: answers, among=held_out)
    assert frame["right"].all()
    assert list(zip(frame["country"], frame["relation"], strict=True)) == order
    silent = probe_questions(lambda questions: [""] * len(questions), among=held_out)
    assert not silent["right"].any()
    assert set(silent["reaction"]) == {probes.OTHER}
    # The questions are the same whatever else is asked.
    alone = probe_questions(lambda questions: [""] * len(questions), among=held_out[-1:])
    assert list(alone["prompt"]) == list(frame["prompt"])[-len(alone) :]


def test_variety_of_what_is_drawn():
    texts = ["Paris", "Paris", "a b c d e", "Paris\nRome"]
    found = probes.probe_variety(lambda questions, n: [texts[n]], **FRANCE).iloc[0]
    assert (found["words"], found["distinct"], found["on_format"]) == (9 / 4, 2 / 3, 1 / 2)
