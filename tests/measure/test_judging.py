"""Judges: replies are parsed, biases of position and length found out, likelihoods by hand."""

import pandas as pd
import pytest
import torch

from sftlab.measure import JudgeError, LikelihoodJudge, PromptJudge, judge_pairs, with_bos
from sftlab.measure.likelihood import log_likelihoods
from sftlab.models import load


def pairs(*answers):
    rows = [("Q?", a, b, f"c{n}") for n, (a, b) in enumerate(answers)]
    return pd.DataFrame(rows, columns=["question", "first", "second", "country"])


class Always:
    """A judge that only looks at one thing."""

    def __init__(self, verdict):
        self.verdict = verdict

    def compare(self, given):
        return [self.verdict(*row) for row in given[["first", "second"]].itertuples(index=False)]


@pytest.mark.parametrize(
    ("verdict", "won", "shown_first"),
    [
        (lambda first, second: 1, 0.5, 1),
        (lambda first, second: 0.5, 0.5, 0.5),
        (lambda first, second: float(len(first) > len(second)), 1, 0.5),
        (lambda first, second: float(len(first) < len(second)), 0, 0.5),
    ],
    ids=["first", "tie", "longer", "shorter"],
)
def test_a_judge_of_positions_or_of_lengths_is_found_out(verdict, won, shown_first):
    judged = judge_pairs(Always(verdict), pairs(("Paris, of course", "Paris"), ("Rome!", "Rome")))
    assert len(judged) == 4
    assert set(judged["country"]) == {"c0", "c1"}
    assert list(judged["first"]) == ["Paris, of course", "Rome!"] * 2, "pairs stay as given"
    assert (judged["won"].mean(), judged["shown_first"].mean()) == (won, shown_first)


def test_verdicts_are_checked():
    with pytest.raises(JudgeError, match=r"Always gave 1 verdicts for 1 pairs, \[0\.3\]"):
        judge_pairs(Always(lambda first, second: 0.3), pairs(("a", "b")))


def test_a_model_is_asked_in_words_and_its_reply_is_parsed():
    asked = []

    def ask(prompts):
        asked.extend(prompts)
        return ["A is true, [[B]] would be if not. [[A]]", "Both are wrong. [[C]]"]

    assert PromptJudge(ask).compare(pairs(("Paris", "{Rome}"), ("x", "y"))) == [1, 0.5]
    assert "Question: Q?\nAnswer A: Paris\nAnswer B: {Rome}\n" in asked[0]
    with pytest.raises(JudgeError, match=r"'A is better\.' holds none"):
        PromptJudge.verdict("A is better.")
    grades = {"helpful": 5, "faithful": 1, "concise": 4}
    assert (
        PromptJudge.grades("Helpful: 5/5\n- **faithful**: 1.\nconcise - no\nconcise: 4") == grades
    )
    for bad in ("helpful: 5\nfaithful: 1", "helpful: 5\nfaithful: 1\nconcise: 4.5"):
        with pytest.raises(JudgeError, match="no grade 1 to 5 for 'concise'"):
            PromptJudge.grades(bad)


def test_the_likelihood_judge_sees_both_answers_and_goes_by_the_models_own_loss(toy_base):
    model, tokenizer = load(toy_base)
    model.eval()
    pair = pairs(("Paris", "the river of many towns"))
    asked = "Possible answers: Paris, the river of many towns.\n\nQ: Q?\nA:"
    texts = [(asked, f" {answer}") for answer in ("Paris", "the river of many towns")]
    scores = log_likelihoods(model, tokenizer, texts)
    for (before, text), found in zip(texts, scores, strict=True):
        ids, start = with_bos(tokenizer, before + text), len(with_bos(tokenizer, before))
        labels = torch.tensor([[-100] * start + ids[start:]])
        loss = model(torch.tensor([ids]), labels=labels).loss.item()
        assert found == (pytest.approx(-loss * (len(ids) - start), rel=1e-4), len(ids) - start)
    judge = LikelihoodJudge(model, tokenizer)
    first, second = (nats / tokens for nats, tokens in scores)
    assert judge.compare(pair) == [float(first > second)]
    assert judge.compare(pairs(("Paris", "Paris"), ("", "Paris"), ("Paris", ""))) == [0.5, 0, 1]
