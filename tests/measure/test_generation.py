"""Generating in stretches gives what generating at once gives."""

import pytest
import torch

from sftlab.measure.generation import SHARED, SPARED, STRETCH, generate
from sftlab.models import load


@pytest.fixture(scope="module")
def base():
    model, tokenizer = load("tiny")
    return model.eval(), tokenizer


def at_once(model, ids, most, stop):
    """One prompt alone, without stretches, without padding; cut before `stop`."""
    out = model.generate(
        torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        max_new_tokens=most,
        do_sample=False,
        pad_token_id=1,
        eos_token_id=stop,
    )
    new = out[0, len(ids) :].tolist()
    return new[: new.index(stop)] if stop in new else new


def prompts(tokenizer, start=""):
    texts = [
        "Q: What is the capital of France?\nA:",
        "The",
        "Counting: one, two, three,",
        "What is the currency of Japan? What is the capital of",
        "Q: What do people speak in Brazil?\nA:",
    ]
    return [tokenizer(start + text)["input_ids"] for text in texts]


@pytest.mark.parametrize("start", ["", "Q: What is the capital of Spain?\nA: Madrid\n\n" * 3])
@pytest.mark.parametrize("batch_size", [2, 128])
def test_in_batches_and_stretches_as_alone_and_at_once(base, start, batch_size):
    model, tokenizer = base
    given = prompts(tokenizer, start)
    # A line's end stops it here, so that rows leave their batch in different stretches.
    stop = tokenizer("\n")["input_ids"][0]
    before = model.generation_config.eos_token_id
    model.generation_config.eos_token_id = stop
    try:
        expected = [at_once(model, ids, 3 * STRETCH + 1, stop) for ids in given]
        found = generate(model, given, pad=1, max_new_tokens=3 * STRETCH + 1, batch_size=batch_size)
    finally:
        model.generation_config.eos_token_id = before
    assert found == expected
    assert len({len(row) for row in found}) > 1, "all rows end together: nothing was tested"
    if start:
        shortest = min(map(len, given))
        assert all(ids[:SHARED] == given[0][:SHARED] for ids in given)
        assert shortest > SHARED
        assert SHARED * (len(given) - 1) < SPARED < 30 * (len(given) - 1) < shortest * len(given)


def test_a_row_that_has_ended_gets_no_further_stretch(base):
    model, tokenizer = base
    given = prompts(tokenizer)
    found = generate(model, given, pad=1, max_new_tokens=20, ended=lambda new: len(new) >= 5)
    assert {len(row) for row in found} <= {2 * STRETCH}


def test_drawing_is_the_seeds_alone(base):
    model, tokenizer = base
    given = prompts(tokenizer)
    how = {"pad": 1, "max_new_tokens": 9, "sample": True}
    torch.manual_seed(1)
    first = generate(model, given, seed=3, **how)
    after = torch.rand(1)
    torch.manual_seed(1)
    assert torch.rand(1) == after, "the caller's random state has moved"
    assert generate(model, given, seed=3, **how) == first
    assert generate(model, given, seed=4, **how) != first


def test_positions_are_not_left(base):
    model, _ = base
    limit = model.config.max_position_embeddings
    found = generate(model, [[5] * (limit - 3)], pad=1, max_new_tokens=50)
    assert len(found[0]) <= 3
