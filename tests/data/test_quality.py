import math
from copy import deepcopy

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from sftlab.data.quality import NEUTRAL, checklist, cluttered, lengths, loss_scores, wrong_answers
from sftlab.data.rows import part_of
from sftlab.world import country, country_examples, country_rows, example

ASPECTS = ["length", "format", "coverage", "balance", "diversity", "consistency", "safety",
           "deduplication", "privacy", "leakage"]  # fmt: skip


def value(table, aspect, opening=""):
    (found,) = table[(table["aspect"] == aspect) & table["measured"].str.startswith(opening)].value
    return found


def test_what_is_wrong_with_a_set_is_counted():
    rows = [
        {**example(prompt, answer), "meta": {"entity": entity, "label": label}}
        for prompt, answer, entity, label in [
            ("Is it good?", "yes", "A", "yes"),
            ("Is it good?", "yes", "A", "yes"),
            ("is it good?", "no", "A", "no"),
            ("Is it bad?", "I cannot say.", "B", "yes"),
            ("Who is it?", "ann@example.com, says Ann", "C", "yes"),
            ("Q: What?", "That.", "D", "yes"),
        ]
    ]
    table = checklist(rows, cover={"entity": "entity"}, label="label", test=[rows[0]])
    assert list(dict.fromkeys(table["aspect"])) == ASPECTS
    assert not table["value"].isna().any()
    assert set(checklist(rows)["aspect"]) == {*ASPECTS} - {"coverage", "balance", "leakage"}
    expected = {
        ("format", "formats"): 3, ("format", "rows with marks"): 1, ("coverage", ""): 4,
        ("balance", ""): 5, ("consistency", ""): 1, ("safety", "answers that refuse"): 1,
        ("deduplication", "exact"): 1, ("privacy", ""): 1, ("leakage", ""): 1,
    }  # fmt: skip
    assert {key: value(table, *key) for key in expected} == expected
    assert "'yes' has 5 rows, 'no' 1" in table.set_index("aspect").loc["balance", "reading"]


def test_clean_rows_have_none_of_these():
    table = checklist(country_rows(80), test=[example("Who wrote it?", "Nobody knows.")])
    faults = ("consistency", "safety", "deduplication", "privacy", "leakage")
    assert [value(table, name, "exact" * (name == "deduplication")) for name in faults] == [0] * 5
    assert value(table, "format", "rows with marks") == 0


def test_marks_left_inside_a_content_are_counted():
    marked = ["<|im_start|>user", "[INST] a", "a</s>", "### Response:\nParis", "<end_of_turn>"]
    marked.append("Yes.\nQ: And then?")
    plain = "The FAQ: a < b, <b>c</b>, # title, C#, user: x"
    for text in (*marked, plain):
        found = value(checklist([example("a", text)]), "format", "rows with marks")
        assert found == (text != plain), text


def test_pairs_of_words_and_contradictions_by_hand():
    # pairs: a b, b c | a b: three of which two differ
    table = checklist([example("a b c", ""), example("A b!", "")])
    assert value(table, "diversity", "distinct-2 of prompts") == pytest.approx(2 / 3)
    assert (table["aspect"] == "diversity").sum() == 1, "the answers have no pair"
    rows = [example("One?", "Yes."), example("one?", "No."), example("One?", "yes.")]
    assert value(checklist(rows), "consistency") == 1
    systemed = {"messages": [{"role": "system", "content": "Lie."}, *rows[1]["messages"]]}
    assert value(checklist([rows[0], systemed]), "consistency") == 0


def test_lengths_by_hand():
    rows = [example("One two?", "Yes."), example("One two three?", "No, no.")]
    table = lengths(rows)
    assert table.loc[("prompt", "words"), ["least", "median", "most"]].tolist() == [2, 2.5, 3]
    assert table.loc[("answer", "characters"), ["least", "mean", "most"]].tolist() == [4, 5.5, 7]


@pytest.fixture(scope="module")
def toy(toy_base):
    return AutoModelForCausalLM.from_pretrained(toy_base), AutoTokenizer.from_pretrained(toy_base)


def by_hand(model, tokenizer, front, answer, limit=512):
    """The mean loss of an answer's tokens from the log-probabilities of one row alone."""
    ids = [tokenizer.bos_token_id, *tokenizer(front, add_special_tokens=False)["input_ids"]]
    answer_ids = tokenizer(f" {answer}", add_special_tokens=False)["input_ids"]
    ids = torch.tensor([(ids + answer_ids)[-limit:]])
    with torch.no_grad():
        logits = model(ids).logits[0].log_softmax(-1)
    places = range(ids.shape[1] - len(answer_ids), ids.shape[1])
    return sum(-logits[p - 1, ids[0, p]].item() for p in places) / len(answer_ids)


def test_a_score_is_the_mean_loss_of_the_answers_tokens(toy):
    # A long row loses the beginning of its prompt.
    rows = [*country_examples(5), example("word " * 600 + "end", "Paris")]
    expected = [
        by_hand(*toy, NEUTRAL.format(prompt=q["content"]), a["content"])
        for q, a in (row["messages"] for row in rows)
    ]
    assert loss_scores(rows, *toy) == pytest.approx(expected, abs=1e-4)


def test_an_empty_answer_has_no_score_and_the_model_stays_as_it_was(toy):
    model, tokenizer = toy
    model.train()
    rows = [example("a", "b"), example("a", " "), example("a", "Paris " * 600)]
    scores = loss_scores(rows, model, tokenizer)
    assert model.training
    assert [math.isnan(score) for score in scores] == [False, True, False]


FACTS = country_rows(60, seed=1)


def is_true(row):
    about = row["meta"]
    return part_of(row, "answer") in country(about["country"]).answers(about["relation"])


@pytest.mark.parametrize(
    "flaw", [lambda r, s: wrong_answers(r, share=0.5, seed=s), lambda r, s: cluttered(r, seed=s)]
)
def test_a_seed_gives_the_same_flaws_and_the_rows_stay_as_they_are(flaw):
    before = deepcopy(FACTS)
    made = flaw(FACTS, 4)
    assert before == FACTS
    assert made == flaw(FACTS, 4) != flaw(FACTS, 5)
    assert made != FACTS
    assert [row["meta"] for row in made] == [row["meta"] for row in FACTS]


@pytest.mark.parametrize("share", [0, 0.3, 1])
def test_the_share_of_wrong_answers_is_what_was_requested(share):
    made = wrong_answers(FACTS, share=share)
    assert sum(not is_true(row) for row in made) == round(share * 60)
    right = [(one, row) for one, row in zip(FACTS, made, strict=True) if is_true(row)]
    assert all(part_of(one, "answer") == part_of(row, "answer") for one, row in right)
    assert [part_of(row, "prompt") for row in made] == [part_of(row, "prompt") for row in FACTS]


def test_clutter_keeps_the_question_and_the_answer():
    for clean, dirty in zip(FACTS, cluttered(FACTS), strict=True):
        prompt, question = part_of(dirty, "prompt").lower(), part_of(clean, "prompt").lower()
        assert question in prompt != question
        assert part_of(dirty, "answer") == part_of(clean, "answer")
