"""Each score equals the library or the published values that it stands for; rankings by hand."""

import math
import socket

import evaluate
import numpy as np
import pandas as pd
import pytest
from rouge_score import rouge_scorer
from sacrebleu.metrics import BLEU, CHRF

from sftlab.measure import LOCAL_METRICS, mc2, score_frame, text_scores
from sftlab.measure.text_scores import repetition
from sftlab.world import countries

SAID = ["the cat is on the mat", "hello there general kenobi", "foo bar foobar"]
RIGHT = [
    ["the cat sat on the mat", "there is a cat on the mat"],
    ["hello there general kenobi", "hello there!"],
    ["foo bar foobar"],
]


@pytest.mark.parametrize(
    ("said", "references", "exact", "f1"),
    [
        # The normalisation that SQuAD publishes: case, punctuation, articles, white space.
        ("The  Eiffel Tower.", ["eiffel tower"], 1, 1),
        ("The capital of France is Rome.", ["The capital of France is Paris."], 0, 0.8),
        ("Denver Broncos", ["Carolina Panthers", "The Denver Broncos!"], 1, 1),
        ("the", ["a"], 1, 1),
    ],
)
def test_exact_match_and_f1_as_squad_has_them(said, references, exact, f1):
    assert text_scores.exact_match(said, references) == exact
    assert text_scores.token_f1(said, references) == pytest.approx(f1)


def test_metrics_are_those_of_their_libraries_and_loaded_without_a_network(monkeypatch):
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("a connection"))

    def found(name, said=SAID, right=RIGHT):
        return evaluate.load(LOCAL_METRICS, name).compute(predictions=said, references=right)

    assert found("exact_match") == {"exact_match": 2 / 3}
    f1 = np.mean([text_scores.token_f1(*one) for one in zip(SAID, RIGHT, strict=True)])
    assert found("f1") == {"f1": pytest.approx(f1)}
    streams = [[one[n] if n < len(one) else None for one in RIGHT] for n in (0, 1)]
    bleu, chrf = (kind.corpus_score(SAID, streams).score / 100 for kind in (BLEU(), CHRF()))
    assert found("bleu") == {"bleu": pytest.approx(bleu)}
    assert found("chrf") == {"chrf": pytest.approx(chrf)}
    one = text_scores.bleu(SAID[0], RIGHT[0])
    assert one == BLEU(effective_order=True).sentence_score(SAID[0], RIGHT[0]).score / 100
    assert text_scores.chrf("Paris", ["Paris"]) == pytest.approx(1)
    said, wanted = "The quick brown fox jumps over the lazy dog", "The quick brown dog jumps on it."
    theirs = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"]).score(wanted, said)
    measures = {name: score.fmeasure for name, score in theirs.items()}
    assert found("rouge", [said], [[wanted]]) == pytest.approx(measures)
    assert text_scores.rouge("Paris", ["Rome", "Paris"]) == 1, "the best reference counts"
    with pytest.raises(ValueError, match=r"no metric 'bleurt'; there are exact_match"):
        found("bleurt")


def test_repetition_by_hand():
    # Li et al. 2016: different n-grams over all of them.
    assert repetition("a b c d e f") == repetition("a b") == 0
    assert repetition("x x x x x x x x", 2) == pytest.approx(6 / 7)


def test_mc_scores_are_lm_evals():
    from lm_eval.tasks.truthfulqa.utils import process_results_mc2

    nats, right = np.random.default_rng(0).normal(-8, 3, 5).tolist(), [1, 1, 0, 0, 0]
    theirs = process_results_mc2({"mc2_targets": {"labels": right}}, [(n, False) for n in nats])
    assert mc2(nats, right) == pytest.approx(theirs["acc"])
    assert mc2([-1e4, -1e4 - math.log(3)], [True, False]) == pytest.approx(0.75)


def test_frames_get_a_column_a_score():
    frame = pd.DataFrame({"output": [" Paris", "Rome"], "answers": [["Paris"], ["Paris", "x"]]})
    found = score_frame(frame)
    for score in ("exact match", "F1", "ROUGE-L"):
        assert found[score].tolist() == [1, 0]


def test_right_answers_meet_wrong_ones_of_their_kind():
    rows = [("Paris", "Paris"), ("Rome", "Rome"), ("Oslo", "Bern"), ("Rome", "Rome")]
    frame = pd.DataFrame(
        {"seed": 0, "relation": "capital", "right": said == true, "output": said, "answers": [true]}
        for said, true in rows
    )
    found = text_scores.rank_answers(frame)
    # The last one's neighbour is right for it too.
    assert list(zip(found["output"], found["other"], strict=True)) == [("Rome", "Paris")]
    assert found["ordered"].all()


def test_paraphrases_are_true_and_false():
    found = text_scores.rank_paraphrases(countries()[:3])
    for row in found.itertuples():
        country = next(c for c in countries() if c.name == row.country)
        right = getattr(country, row.relation)
        assert right in row.true
        assert right not in row.false
    assert found["ROUGE-L"].mean() > 0.5
