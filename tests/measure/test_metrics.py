"""Each metric equals the library or the published values that it stands for."""

import json
import math

import evaluate
import numpy as np
import pandas as pd
import pytest
from rouge_score import rouge_scorer
from sacrebleu.metrics import BLEU, CHRF

from sftlab.measure import LOCAL_METRICS, text_scores
from sftlab.measure.likelihood import mc2
from sftlab.measure.text_scores import distinct, repetition, score_frame


def metric(name):
    return evaluate.load(LOCAL_METRICS, name)


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
    given = {"predictions": [said], "references": [references]}
    assert metric("exact_match").compute(**given) == {"exact_match": exact}
    assert metric("f1").compute(**given)["f1"] == pytest.approx(f1)


SAID = ["the cat is on the mat", "hello there general kenobi", "foo bar foobar"]
RIGHT = [
    ["the cat sat on the mat", "there is a cat on the mat"],
    ["hello there general kenobi", "hello there!"],
    ["foo bar foobar"],
]


def test_bleu_is_sacrebleus():
    found = metric("bleu").compute(predictions=SAID, references=RIGHT)["bleu"]
    streams = [[one[n] if n < len(one) else None for one in RIGHT] for n in (0, 1)]
    assert found == pytest.approx(BLEU().corpus_score(SAID, streams).score / 100)
    # The card of `evaluate`'s module gives 100 for these two sentences.
    card = metric("bleu").compute(
        predictions=["hello there general kenobi", "foo bar foobar"],
        references=[
            ["hello there general kenobi", "hello there !"],
            ["foo bar foobar", "foo bar foobar"],
        ],
    )
    assert card["bleu"] == pytest.approx(1)
    one = text_scores.bleu(SAID[0], RIGHT[0])
    assert one == BLEU(effective_order=True).sentence_score(SAID[0], RIGHT[0]).score / 100


def test_chrf_is_sacrebleus():
    found = metric("chrf").compute(predictions=SAID, references=RIGHT)["chrf"]
    streams = [[one[n] if n < len(one) else None for one in RIGHT] for n in (0, 1)]
    assert found == pytest.approx(CHRF().corpus_score(SAID, streams).score / 100)
    assert text_scores.chrf("Paris", ["Paris"]) == pytest.approx(1)


def test_rouge_is_that_of_rouge_score():
    said, wanted = (
        "The quick brown fox jumps over the lazy dog",
        ("The quick brown dog jumps on the log."),
    )
    found = metric("rouge").compute(predictions=[said], references=[[wanted]])
    theirs = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"]).score(wanted, said)
    assert found == pytest.approx({name: score.fmeasure for name, score in theirs.items()})
    # Of several references the best counts.
    assert text_scores.rouge("Paris", ["Rome", "Paris"]) == 1


def test_json_module_counts_each_step():
    schema = {"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}}
    texts = ['{"a": 1}', '{"a": "x"}', '{"b": 1}', "{'a': 1}", "NaN", '{"a": 1, "a": 2}']
    found = metric("json").compute(predictions=texts, schema=schema)
    assert found == pytest.approx({"parsed": 3 / 6, "fields": 2 / 6, "valid": 1 / 6})


def test_distinct_and_repetition_by_hand():
    # Li et al. 2016: different n-grams over all of them.
    assert distinct(["a b a b", "a b"], 1) == pytest.approx(2 / 6)
    assert distinct(["a b a b", "a b"], 2) == pytest.approx(2 / 4)
    assert distinct([""]) == 0
    assert repetition("a b c d e f") == 0
    assert repetition("x x x x x x x x", 2) == pytest.approx(6 / 7)
    with pytest.raises(ValueError, match="one word or more"):
        repetition("a b", 0)
    found = metric("distinct").compute(predictions=["a b a b", "a b"])
    assert found["distinct_1"] == pytest.approx(2 / 6)


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
    import socket

    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("a connection"))
    for name in ("exact_match", "f1", "bleu", "chrf", "rouge", "json", "distinct"):
        assert metric(name).description
    with pytest.raises(ValueError, match=r"no metric 'bleurt'; there are exact_match"):
        metric("bleurt")


def test_frames_get_a_column_a_score():
    frame = pd.DataFrame({"output": [" Paris", "Rome"], "answers": [["Paris"], ["Paris", "x"]]})
    found = score_frame(frame)
    assert list(found["exact match"]) == [1, 0]
    assert list(found["ROUGE-L"]) == [1, 0]
    with pytest.raises(ValueError, match="chrF"):
        score_frame(frame, scores=["ROUGE"])
    with pytest.raises(ValueError, match="no column 'answers'"):
        score_frame(frame.drop(columns="answers"))
    with pytest.raises(ValueError, match="list of one right answer"):
        text_scores.exact_match("x", "x")
    assert json.dumps(found["F1"].tolist()) == "[1.0, 0.0]"
