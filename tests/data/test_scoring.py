import math

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from sftlab.data.quality import NEUTRAL, keep_best, loss_scores
from sftlab.data.rows import RowsError
from sftlab.world import country_examples, example


@pytest.fixture(scope="module")
def toy(toy_base):
    return AutoModelForCausalLM.from_pretrained(toy_base), AutoTokenizer.from_pretrained(toy_base)


def by_hand(model, tokenizer, front, answer):
    """The mean loss of an answer's tokens from the log-probabilities of one row alone."""
    front_ids = [tokenizer.bos_token_id, *tokenizer(front, add_special_tokens=False)["input_ids"]]
    answer_ids = tokenizer(f" {answer}", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        logits = model(torch.tensor([front_ids + answer_ids])).logits[0].log_softmax(-1)
    places = range(len(front_ids), len(front_ids) + len(answer_ids))
    losses = [-logits[p - 1, i].item() for p, i in zip(places, answer_ids, strict=True)]
    return sum(losses) / len(losses)


def test_a_score_is_the_mean_loss_of_the_answers_tokens(toy):
    model, tokenizer = toy
    rows = country_examples(7)
    expected = [
        by_hand(model, tokenizer, NEUTRAL.format(prompt=q["content"]), a["content"])
        for q, a in (row["messages"] for row in rows)
    ]
    assert loss_scores(rows, model, tokenizer, batch_size=3) == pytest.approx(expected, abs=1e-4)


def test_an_empty_answer_has_no_score_and_the_model_stays_as_it_was(toy):
    model, tokenizer = toy
    model.train()
    scores = loss_scores([example("a", "b"), example("a", " ")], model, tokenizer)
    assert model.training
    assert math.isnan(scores[1])
    assert not math.isnan(scores[0])
    model.eval()


def test_a_long_row_loses_the_beginning_of_its_prompt(toy):
    model, tokenizer = toy
    long = example("word " * 600 + "end", "Paris")
    score = loss_scores([long], model, tokenizer)[0]
    ids = tokenizer(NEUTRAL.format(prompt=long["messages"][0]["content"]) + " Paris")["input_ids"]
    answer = len(tokenizer(" Paris", add_special_tokens=False)["input_ids"])
    tail = torch.tensor([ids[-512:]])
    with torch.no_grad():
        logits = model(tail).logits[0].log_softmax(-1)
    losses = [-logits[p - 1, tail[0, p]].item() for p in range(512 - answer, 512)]
    assert score == pytest.approx(sum(losses) / answer, abs=1e-4)
    longer = example("a", "Paris " * 600)
    assert not math.isnan(loss_scores([longer], model, tokenizer, max_length=16)[0])


def test_wrong_answers_surprise_the_base_model():
    from sftlab.models import load

    model, tokenizer = load("tiny")
    right = country_examples(40)
    answers = [row["messages"][1]["content"] for row in right]
    wrong = [
        example(row["messages"][0]["content"], answer)
        for row, answer in zip(right, answers[7:] + answers[:7], strict=True)
    ]
    scores = loss_scores(right + wrong, model, tokenizer)
    kept, dropped = keep_best(right + wrong, scores, share=0.5)
    assert sum(index >= 40 for index in dropped) >= 36
    assert len(kept) == 40


def test_the_best_are_kept_in_their_order():
    rows = [example(str(n), "a") for n in range(5)]
    kept, dropped = keep_best(rows, [2.0, 1.0, math.nan, 1.0, 3.0], share=0.6)
    assert kept == [rows[0], rows[1], rows[3]]
    assert dropped == [2, 4]
    assert keep_best(rows, [1.0] * 5, share=0.4)[1] == [2, 3, 4]
    assert keep_best(rows, [1.0] * 5, share=0.01)[0] == rows[:1]
    assert keep_best(rows, [1.0] * 5, share=1)[1] == []
    assert keep_best(rows[:3], [math.nan, 2.0, 1.0], share=0.67)[1] == [0]


def test_errors_say_what_and_what_to_do(toy):
    rows = [example("a", "b")]
    with pytest.raises(RowsError, match="share=0"):
        keep_best(rows, [1.0], share=0)
    with pytest.raises(RowsError, match="2 scores for 1 rows"):
        keep_best(rows, [1.0, 2.0], share=1)
    with pytest.raises(RowsError, match=r"where the prompt goes, with \{prompt\}"):
        loss_scores(rows, *toy, form="Q: A:")
