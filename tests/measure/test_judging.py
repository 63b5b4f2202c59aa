"""Pairs, judges, their biases and their agreement, by hand and against references."""

import pandas as pd
import pytest
import torch

from sftlab.measure import (
    KnownTruthJudge,
    Pair,
    PairError,
    judge_pairs,
    judging,
    with_bos,
)
from sftlab.measure.likelihood import log_likelihoods
from sftlab.models import load


def pairs(*answers):
    return [
        Pair(question="Q?", first=a, second=b, references=("Paris",), entity=f"c{n}")
        for n, (a, b) in enumerate(answers)
    ]


class Always:
    """A judge that only looks at one thing."""

    def __init__(self, verdict):
        self.verdict = verdict

    def compare(self, given):
        return [self.verdict(pair) for pair in given]


def test_the_known_truth_wins_and_a_tie_counts_half_in_both_orders():
    given = pairs(("Paris", "Rome"), ("Rome", "It is Paris."), ("Rome", "x"), ("paris", "Paris."))
    assert KnownTruthJudge().compare(given) == [1, 0, 0.5, 0.5]
    with pytest.raises(PairError, match=r"right answer is known for 'q'.*references"):
        KnownTruthJudge().compare([*given, Pair(question="q", first="a", second="b")])
    judged = judge_pairs(KnownTruthJudge(), pairs(("Paris", "x"), ("x", "y"), ("Paris", "y")))
    rate = judging.win_rate(judged)
    assert len(judged) == 6
    assert rate.value == pytest.approx((1 + 0.5 + 1) / 3)
    assert (rate.unit, rate.entities) == ("share", 3)
    assert 0 <= rate.low < rate.value < rate.high <= 1


@pytest.mark.parametrize(
    ("verdict", "rate", "position", "length"),
    [
        (lambda pair: 1, 0.5, 1, 0),
        (lambda pair: 0.5, 0.5, 0, 0),
        (lambda pair: float(len(pair.first) > len(pair.second)), 1, 0, 1),
        (lambda pair: float(len(pair.first) < len(pair.second)), 0, 0, -1),
    ],
    ids=["first", "tie", "longer", "shorter"],
)
def test_a_judge_of_positions_or_of_lengths_is_found_out(verdict, rate, position, length):
    padded = judging.padded_pairs(pairs(("Paris", "x"), ("Rome", "y")))
    assert (padded[0].first, padded[0].second) == ("Paris, of course", "Paris")
    judged = judge_pairs(Always(verdict), padded)
    measures = judging.win_rate, judging.position_bias, judging.length_bias
    assert [measure(judged).value for measure in measures] == [rate, position, length]


def test_verdicts_are_checked():
    with pytest.raises(PairError, match=r"Always gave \[0\.3\]: a verdict is 1, 0\.5 or 0"):
        judge_pairs(Always(lambda pair: 0.3), pairs(("a", "b")))


def test_pairs_are_made_by_prompt_and_seed():
    rows = [("p", " a", ["a"], "x"), ("q", "b", ["b"], "y")]
    ours = pd.DataFrame(rows, columns=["prompt", "output", "answers", "country"])
    theirs = ours.iloc[::-1].assign(output=["d", "c"])
    made = judging.make_pairs(ours, theirs)
    texts = [(one.question, one.first, one.second) for one in made]
    assert texts == [("p", "a", "c"), ("q", "b", "d")]
    seeds = pd.concat([ours.assign(seed=seed) for seed in (3, 4)])
    judged = judging.judge_frames(KnownTruthJudge(), seeds, theirs)
    assert judged.groupby("seed")["pair"].agg(list).to_dict() == dict.fromkeys((3, 4), [0, 1] * 2)
    assert (judged["won"] == 1).all()
    with pytest.raises(PairError, match="share 1 prompts"):
        judging.make_pairs(ours, theirs.iloc[:1])


def test_the_likelihood_judge_sees_both_answers_and_goes_by_the_models_own_loss(toy_base):
    model, tokenizer = load(toy_base)
    model.eval()
    (pair,) = pairs(("Paris", "the river of many towns"))
    asked = "Possible answers: Paris, the river of many towns.\n\nQ: Q?\nA:"
    texts = [(asked, f" {answer}") for answer in (pair.first, pair.second)]
    scores = log_likelihoods(model, tokenizer, texts)
    for (before, text), found in zip(texts, scores, strict=True):
        ids, start = with_bos(tokenizer, before + text), len(with_bos(tokenizer, before))
        labels = torch.tensor([[-100] * start + ids[start:]])
        loss = model(torch.tensor([ids]), labels=labels).loss.item()
        assert found == (pytest.approx(-loss * (len(ids) - start), rel=1e-4), len(ids) - start)
    judge = judging.LikelihoodJudge(model, tokenizer)
    first, second = (nats / tokens for nats, tokens in scores)
    assert judge.compare([pair]) == [float(first > second)]
    assert judge.compare(pairs(("Paris", "Paris"), ("", "Paris"), ("Paris", ""))) == [0.5, 0, 1]


def test_kappa_of_the_textbook():
    """Cohen 1960's kind of table: 20 and 15 agreed, 5 and 10 not, of 50: kappa 0.4."""
    one = ["y"] * 25 + ["n"] * 25
    two = ["y"] * 20 + ["n"] * 5 + ["y"] * 10 + ["n"] * 15
    assert judging.cohen_kappa(one, two) == pytest.approx(0.4)
    assert judging.cohen_kappa("aa", "aa") == 1


def test_agreement_leaves_the_truths_ties_out():
    given = pairs(("Paris", "x"), ("x", "y"), ("x", "Paris"))
    truth = judge_pairs(KnownTruthJudge(), given)
    judged = judge_pairs(Always(lambda pair: 1.0 if pair.first == "Paris" else 0.5), given)
    found = judging.agreement(judged, truth)
    assert set(found["pair"]) == {0, 2}
    assert found["won"].mean() == pytest.approx(0.75)  # agrees when Paris is first, else ties


def test_rubric_by_the_truth():
    rated = {
        "Paris": [1, 1, 1, 1],
        "Rome": [0, 1, 0, 1],
        "I don't know.": [0, 1, 1, 1],
        "What is it?": [0, 1, 0, 0],
        "Paris\nRome": [1, 1, 1, 0],
        "Mix A with B.": [0, 0, 0, 1],
    }
    frame = pd.DataFrame({"output": list(rated), "answers": [["Paris"]] * 5 + [[]]})
    found = judging.rate_answers(frame, forbidden=["mix a with b"])[list(judging.CRITERIA)]
    assert found.to_numpy().tolist() == list(rated.values())
