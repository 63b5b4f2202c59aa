"""Each score equals the library or the published values that it stands for; rankings by hand."""

import json
import math
import socket

import evaluate
import numpy as np
import pandas as pd
import pytest
from rouge_score import rouge_scorer
from sacrebleu.metrics import BLEU, CHRF

from sftlab.measure import (
    LOCAL_METRICS,
    rank_answers,
    rank_once,
    rank_paraphrases,
    rank_with_intervals,
    score_frame,
    text_scores,
)
from sftlab.measure.likelihood import mc2
from sftlab.measure.text_scores import repetition
from sftlab.world import countries


def computed(name, said, right):
    return evaluate.load(LOCAL_METRICS, name).compute(predictions=said, references=right)


@pytest.mark.parametrize(
    ("said", "references", "exact", "f1"),
    [
        # The normalisation that SQuAD publishes: case, punctuation, articles, white space.
        ("The  Eiffel Tower.", ["eiffel tower"], 1, 1),
        ("1976", ["1976"], 1, 1),
        ("a theatre", ["theatre"], 1, 1),
        ("theatre", ["heather"], 0, 0),
        ("The capital of France is Rome.", ["The capital of France is Paris."], 0, 0.8),
        ("Denver Broncos", ["Carolina Panthers", "The Denver Broncos!"], 1, 1),
        ("Beyonce Giselle Knowles", ["Beyonce"], 0, 0.5),
        ("the", ["a"], 1, 1),
        ("the", ["Paris"], 0, 0),
        ("yes yes", ["yes"], 0, 2 / 3),
    ],
)
def test_exact_match_and_f1_as_squad_has_them(said, references, exact, f1):
    assert text_scores.exact_match(said, references) == exact
    assert text_scores.token_f1(said, references) == pytest.approx(f1)


SAID = ["the cat is on the mat", "hello there general kenobi", "foo bar foobar"]
RIGHT = [
    ["the cat sat on the mat", "there is a cat on the mat"],
    ["hello there general kenobi", "hello there!"],
    ["foo bar foobar"],
]


def test_means_over_items_are_those_of_the_scores():
    assert computed("exact_match", SAID, RIGHT) == {"exact_match": 2 / 3}
    f1 = np.mean([text_scores.token_f1(*one) for one in zip(SAID, RIGHT, strict=True)])
    assert computed("f1", SAID, RIGHT) == {"f1": pytest.approx(f1)}


def test_bleu_and_chrf_are_sacrebleus():
    streams = [[one[n] if n < len(one) else None for one in RIGHT] for n in (0, 1)]
    bleu, chrf = (kind.corpus_score(SAID, streams).score / 100 for kind in (BLEU(), CHRF()))
    assert computed("bleu", SAID, RIGHT) == {"bleu": pytest.approx(bleu)}
    assert computed("chrf", SAID, RIGHT) == {"chrf": pytest.approx(chrf)}
    # The card of `evaluate`'s module gives 100 for these two sentences.
    card = [["hello there general kenobi", "hello there !"], ["foo bar foobar"] * 2]
    assert computed("bleu", SAID[1:], card)["bleu"] == pytest.approx(1)
    one = text_scores.bleu(SAID[0], RIGHT[0])
    assert one == BLEU(effective_order=True).sentence_score(SAID[0], RIGHT[0]).score / 100
    assert text_scores.chrf("Paris", ["Paris"]) == pytest.approx(1)
    with pytest.raises(ValueError, match="no reference"):
        computed("bleu", SAID, [*RIGHT[:2], []])


def test_rouge_is_that_of_rouge_score():
    said = "The quick brown fox jumps over the lazy dog"
    wanted = "The quick brown dog jumps on the log."
    theirs = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"]).score(wanted, said)
    found = computed("rouge", [said], [[wanted]])
    assert found == pytest.approx({name: score.fmeasure for name, score in theirs.items()})
    # Of several references the best counts.
    assert text_scores.rouge("Paris", ["Rome", "Paris"]) == 1


def test_repetition_by_hand():
    assert repetition("a b c d e f") == repetition("a b") == 0
    assert repetition("x x x x x x x x", 2) == pytest.approx(6 / 7)


def test_mc_scores_are_lm_evals():
    from lm_eval.tasks.truthfulqa.utils import process_results_mc2

    rng = np.random.default_rng(0)
    for _ in range(20):
        nats, right = rng.normal(-8, 3, 5).tolist(), [True, True, False, False, False]
        theirs = process_results_mc2(
            {"mc2_targets": {"labels": [int(one) for one in right]}}, [(n, False) for n in nats]
        )
        assert mc2(nats, right) == pytest.approx(theirs["acc"])
    assert mc2([-1e4, -1e4 - math.log(3)], [True, False]) == pytest.approx(0.75)


@pytest.mark.parametrize("right", [[True, True], [False, False], [True]])
def test_mc_wants_right_and_wrong_choices(right):
    with pytest.raises(ValueError, match="at least one that is right"):
        mc2([-1.0, -2.0], right)


def test_metrics_are_loaded_without_a_network(monkeypatch):
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("a connection"))
    for name in ("exact_match", "f1", "bleu", "chrf", "rouge"):
        assert evaluate.load(LOCAL_METRICS, name).description
    with pytest.raises(ValueError, match=r"no metric 'bleurt'; there are exact_match"):
        evaluate.load(LOCAL_METRICS, "bleurt")


def test_frames_get_a_column_a_score():
    frame = pd.DataFrame({"output": [" Paris", "Rome"], "answers": [["Paris"], ["Paris", "x"]]})
    found = score_frame(frame)
    assert list(found["exact match"]) == [1, 0]
    assert list(found["ROUGE-L"]) == [1, 0]
    with pytest.raises(ValueError, match="chrF"):
        score_frame(frame, scores=["ROUGE"])
    with pytest.raises(ValueError, match="list of one right answer"):
        text_scores.exact_match("x", "x")
    assert json.dumps(found["F1"].tolist()) == "[1.0, 0.0]"


def frame(truth, metric):
    """Two arms, 3 seeds, 20 countries; shares right by the truth and by the metric."""
    return pd.DataFrame(
        {"arm": arm, "relation": "capital", "seed": seed, "country": f"c{n}",
         "right": n < truth[arm], "m": float(n < metric[arm] + (seed == 2) * 12 * (arm == "b"))}
        for arm in "ab" for seed in range(3) for n in range(20)
    )  # fmt: skip


def test_one_seed_may_be_wrong_where_intervals_stay_silent():
    scored = frame({"a": 14, "b": 10}, {"a": 12, "b": 6})  # seed 2 turns it round
    once = rank_once(scored, ["m"])
    assert list(once["against"]) == [False, False, True]
    careful = rank_with_intervals(scored, ["m"])
    assert not careful["decided"].any()
    assert not careful["against"].any()


def test_a_metric_that_lies_is_decided_against_the_truth():
    scored = frame({"a": 14, "b": 10}, {"a": 1, "b": 17})
    assert rank_once(scored, ["m"])["against"].all()
    careful = rank_with_intervals(scored, ["m"])
    assert careful["decided"].all()
    assert careful["against"].all()
    assert careful["pair"][0] == "a, b, capital"
    with pytest.raises(ValueError, match="needs two arms"):
        rank_once(scored[scored["arm"] == "a"], ["m"])


def test_right_answers_meet_wrong_ones_of_their_kind():
    found = rank_answers(pd.DataFrame({
        "seed": 0, "relation": "capital", "right": [True, True, False, True],
        "output": ["Paris", "Rome", "Oslo", "Rome"],
        "answers": [["Paris"], ["Rome"], ["Bern"], ["Rome"]],
    }))  # fmt: skip
    # The last one's neighbour is right for it too.
    assert list(found["output"]) == ["Rome"]
    assert list(found["other"]) == ["Paris"]
    assert found["ordered"].all()


def test_paraphrases_are_true_and_false():
    found = rank_paraphrases(countries()[:3])
    for row in found.itertuples():
        country = next(c for c in countries() if c.name == row.country)
        right = getattr(country, row.relation)
        assert right in row.true
        assert right not in row.false
        assert right in row.reference
    assert found["ROUGE-L"].mean() > 0.5
