"""Generating in batches and stretches gives what generating one prompt at once gives."""

import pytest
import torch

from sftlab.measure import behind_prompt, complete, few_shot, generate, with_bos
from sftlab.models import load


@pytest.fixture(scope="module")
def base():
    return load("tiny")


@pytest.fixture(scope="module")
def toy(toy_base):
    return load(toy_base)


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
    texts = ["Q: What is the capital of France?\nA:", "The", "Counting: one, two, three,"]
    texts += ["What is the currency of Japan? What is the capital of", "Q: Who?\nA:"]
    return [tokenizer(start + text)["input_ids"] for text in texts]


# Behind the long start the prompts share enough tokens for a cache of the prefix.
@pytest.mark.parametrize("start", ["", "Q: What is the capital of Spain?\nA: Madrid\n\n" * 3])
@pytest.mark.parametrize("batch_size", [2, 128])
def test_in_batches_and_stretches_as_alone_and_at_once(base, start, batch_size, monkeypatch):
    model, tokenizer = base
    given = prompts(tokenizer, start)
    # A line's end stops it here, so that rows leave their batch in different stretches.
    stop = tokenizer("\n")["input_ids"][0]
    monkeypatch.setattr(model.generation_config, "eos_token_id", stop)
    expected = [at_once(model, ids, 13, stop) for ids in given]
    found = generate(model, given, pad=1, max_new_tokens=13, batch_size=batch_size)
    assert found == expected
    assert len({len(row) for row in found}) > 1, "all rows end together: nothing was tested"


def test_generation_ends_where_a_row_says_so_or_the_positions_end(base):
    model, tokenizer = base
    how = {"pad": 1, "max_new_tokens": 20}
    found = generate(model, prompts(tokenizer), ended=lambda new: len(new) >= 5, **how)
    assert max(map(len, found)) == 8, "two stretches of four, and not the other twelve"
    limit = model.config.max_position_embeddings
    assert len(generate(model, [[5] * (limit - 3)], **how)[0]) <= 3


def test_sampling_follows_its_seed_and_leaves_the_callers_alone(toy):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = complete(*toy, ["The"] * 4, sample=True, seed=1)
    assert torch.equal(torch.rand(1), expected)
    assert first == complete(*toy, ["The"] * 4, sample=True, seed=1)
    assert first != complete(*toy, ["The"] * 4, sample=True, seed=2)
    assert len(set(first)) > 1


def test_stop_cuts_the_text_and_a_prompt_its_line(toy):
    whole = complete(*toy, ["The"], max_new_tokens=8)[0]
    middle = whole[len(whole) // 2]
    assert complete(*toy, ["The"], max_new_tokens=8, stop=[middle]) == [whole.split(middle)[0]]
    answers = behind_prompt(*toy, [("1+1?", "2")])(["2+2?", "3+3?"])
    assert len(answers) == 2
    assert not any("\n" in answer for answer in answers)


def test_bos_stands_in_front_once(toy):
    bos, first = toy[1].bos_token, with_bos(toy[1], "Hello")
    assert first[0] == toy[1].bos_token_id
    assert with_bos(toy[1], bos + "Hello") == first


def test_few_shot_text():
    assert few_shot([("1+1?", "2")], "2+2?") == "Q: 1+1?\nA: 2\n\nQ: 2+2?\nA:"
    assert few_shot([], "2+2?", form="{q} = {a}") == "2+2? ="
    for form in ("{a} {q} .", "{q}"):
        with pytest.raises(ValueError, match="end with"):
            few_shot([], "2+2?", form=form)
