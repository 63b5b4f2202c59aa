"""Each score equals the library or the published values that it stands for."""

import socket

import evaluate
import numpy as np
import pytest
from rouge_score import rouge_scorer
from sacrebleu.metrics import BLEU

from sftlab.measure import LOCAL_METRICS, metrics, probe_choices
from sftlab.models import load
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
    assert metrics.exact_match(said, references) == {"exact_match": exact}
    assert metrics.token_f1(said, references) == {"f1": pytest.approx(f1)}


def test_metrics_are_those_of_their_libraries_and_loaded_without_a_network(monkeypatch):
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("a connection"))

    def found(name, said=SAID, right=RIGHT, **how):
        metric = evaluate.load(LOCAL_METRICS, name)
        return metric.compute(predictions=said, references=right, **how)

    assert found("exact_match") == {"exact_match": 2 / 3}
    assert found("exact_match", use_aggregator=False) == {"exact_match": [0, 1, 1]}
    assert found("exact_match", ["Paris"], ["paris."]) == {"exact_match": 1}
    each = [metrics.token_f1(*one)["f1"] for one in zip(SAID, RIGHT, strict=True)]
    assert found("f1") == {"f1": pytest.approx(np.mean(each))}
    theirs = BLEU(effective_order=True).sentence_score(SAID[0], RIGHT[0]).score / 100
    assert found("bleu", SAID[:1], RIGHT[:1]) == {"bleu": pytest.approx(theirs)}
    said, wanted = "The quick brown fox jumps over the lazy dog", "The quick brown dog jumps on it."
    theirs = rouge_scorer.RougeScorer(["rouge1", "rougeL"]).score(wanted, said)
    measures = {name: score.fmeasure for name, score in theirs.items()}
    assert found("rouge", [said], [[wanted]]) == pytest.approx(measures)
    best = metrics.rouge("Paris", ["Rome", "Paris"])
    assert best["rougeL"] == 1, "the best reference counts"
    with pytest.raises(ValueError, match=r"no metric 'bleurt'; there are exact_match"):
        found("bleurt")


def test_a_text_contains_whole_words_in_their_order():
    texts = {"It is New York.": 1, "New and York": 0, "Renew York": 0, "the NEW york!": 1}
    for text, right in texts.items():
        assert metrics.contains(text, ["New York", "Boston"])["contains"] == right


def test_mc_scores_are_lm_evals():
    model, tokenizer = load("tiny")
    row = probe_choices(model, tokenizer, among=countries()[:1], relations=["capital"]).iloc[0]
    from lm_eval.tasks.truthfulqa.utils import process_results_mc2

    nats, right = row["likelihoods"], [1, 0, 0, 0, 0]
    theirs = process_results_mc2({"mc2_targets": {"labels": right}}, [(n, False) for n in nats])
    assert row["mc2"] == pytest.approx(theirs["acc"])
    assert row["mc1"] == (max(nats) == nats[0])
