"""The mask explorer, driven without a browser: each control changes the labels as it must."""

import pytest

from sftlab.chat import FAMILIES
from sftlab.show.explorer import BREAKS, MESSAGES, PADS, STRATEGIES, mask_explorer

TURNS = len(MESSAGES)
ANSWERS = TURNS // 2


@pytest.fixture
def explorer(toy_tokenizer):
    return mask_explorer(toy_tokenizer)


def choose(explorer, **values):
    for name, value in values.items():
        explorer.controls[name].value = value
    return explorer.xray


def ends(xray, text):
    return [token.supervised for token in xray.tokens if token.text == text]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_and_toggle_is_shown(explorer, family):
    sound = choose(explorer, family=family)
    assert sound.template == family
    assert "It learns to stop" in explorer.verdict.value
    for name in BREAKS:
        shown = choose(explorer, **{name: True})
        assert explorer.picture.value == shown.html
        change = shown.supervised - sound.supervised, shown.total - sound.total
        doubled = int(FAMILIES[family].writes_bos)
        assert (
            change
            == {
                "drop_end": (-ANSWERS, 0),
                "pad_is_eos": (-ANSWERS, PADS),
                "double_bos": (0, doubled),
                "mask_nothing": (sound.total + PADS - sound.supervised, PADS),
            }[name]
        )
        assert ("to stop as well" in explorer.verdict.value) == (name == "double_bos")
        assert choose(explorer, **{name: False}) == sound


def test_dropping_the_end_takes_the_ends_only(explorer):
    assert ends(explorer.xray, "<|im_end|>") == [False, True] * ANSWERS
    kept = [t.supervised for t in explorer.xray.tokens if t.text != "<|im_end|>"]
    shown = choose(explorer, drop_end=True)
    assert ends(shown, "<|im_end|>") == [False] * TURNS
    assert [t.supervised for t in shown.tokens if t.text != "<|im_end|>"] == kept
    assert "stop" in explorer.verdict.value


def test_padding_that_is_the_end_takes_every_end(explorer):
    shown = choose(explorer, pad_is_eos=True)
    assert [token.text for token in shown.tokens[-PADS:]] == ["<|im_end|>"] * PADS
    assert ends(shown, "<|im_end|>") == [False] * (TURNS + PADS)
    assert f"{ANSWERS} ends of turn" in explorer.verdict.value
    choose(explorer, drop_end=True)
    assert "not supervised anyway" in explorer.verdict.value


def test_nothing_masked_supervises_padding_too(explorer, toy_tokenizer):
    shown = choose(explorer, mask_nothing=True)
    assert shown.supervised == shown.total
    assert [token.id for token in shown.tokens[-PADS:]] == [toy_tokenizer.pad_token_id] * PADS
    both = choose(explorer, pad_is_eos=True)
    assert both.total - both.supervised == TURNS + PADS


def test_two_bos_where_the_template_writes_one(explorer, toy_tokenizer):
    shown = choose(explorer, family="llama-3", double_bos=True)
    assert [token.id for token in shown.tokens[:2]] == [toy_tokenizer.bos_token_id] * 2
    assert not shown.tokens[0].supervised
    choose(explorer, family="chatml")
    assert "llama-3" in explorer.verdict.value


def test_strategies(explorer):
    counts = {name: choose(explorer, strategy=name).supervised for name in STRATEGIES}
    assert 0 < counts["last"] < counts["all"] < counts["everything"] == explorer.xray.total
    assert explorer.controls["start"].disabled
    choose(explorer, strategy="last")
    assert not explorer.controls["start"].disabled
    last = [token.text for token in explorer.xray.tokens if token.supervised]
    assert "".join(last) == "Rome.<|im_end|>"


def test_start_at_the_generation_prompt(explorer):
    content = choose(explorer, family="vicuna")
    generation = choose(explorer, start="generation")
    # The space between `ASSISTANT:` and the answer is written by the model; in a byte-level
    # vocabulary it is a part of the answer's first token.
    assert generation.spans[0].start == content.spans[0].start - 1
    assert generation.text[generation.spans[0].start] == " "


def test_a_refusal_is_told_and_left_again(toy_tokenizer):
    explorer = mask_explorer(
        toy_tokenizer, messages=[{"role": "system", "content": "<i>"}, *MESSAGES]
    )
    assert choose(explorer, family="gemma") is None
    assert explorer.picture.value == ""
    assert "Refused" in explorer.verdict.value
    assert "row 0" not in explorer.verdict.value
    assert "<script" not in explorer.verdict.value
    assert choose(explorer, family="chatml").supervised > 0
