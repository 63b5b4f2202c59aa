"""Masks on every template that TRL installs: exact, and beside TRL's own."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.utils.chat_template_utils import render_jinja_template

from sftlab.chat import (
    IGNORED,
    TemplateError,
    assistant_spans,
    find_template,
    installed_templates,
    labels,
)

NAMES = sorted(installed_templates())
PARTS = tuple(name for name in NAMES if name.startswith(("idefics3", "smolvlm", "llava_next")))
"""These take contents as lists of parts."""


def said(*contents):
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": c} for i, c in enumerate(contents)]


def form(name, messages):
    if name not in PARTS:
        return messages
    return [m | {"content": [{"type": "text", "text": m["content"]}]} for m in messages]


def installed(name, **options):
    options = options or {"bos_token": "<s>", "eos_token": "</s>"}
    return find_template(installed_templates()[name], **options)


def spans_of(name, messages, **options):
    return assistant_spans(installed(name), form(name, messages), **options)


ENDS = {
    "cohere": "<|END_OF_TURN_TOKEN|>", "cohere2": "<|END_RESPONSE|><|END_OF_TURN_TOKEN|>",
    "deepseek": "<｜end▁of▁sentence｜>", "diffusion_gemma": "<turn|>", "gemma": "<end_of_turn>",
    "gemma4": "<turn|>", "glm4moe": "<|user|>", "gptoss": "<|end|>",
    "idefics3": "<end_of_utterance>", "lfm2": "<|im_end|>", "llama3": "<|eot_id|>",
    "llava_next": "</s>", "muse_glimmer": "<|eot|>", "nemotron": "<|im_end|>", "phi3": "<|end|>",
    "qwen": "<|im_end|>", "smolvlm": "<end_of_utterance>",
}  # fmt: skip
LAST = {"gptoss": "<|return|>", "gptoss_training": "<|return|>", "glm4moe": ""}
"""What ends the last turn, where that is something else."""


def end_of(name):
    return ENDS[max((key for key in ENDS if name.startswith(key)), key=len)]


def left_of(name, messages, index):
    """What a template leaves of a content: its render tells whether white space counts."""
    template = installed(name)
    whole = template.render(form(name, messages))

    def counts(content):
        changed = [
            *messages[:index],
            messages[index] | {"content": content},
            *messages[index + 1 :],
        ]
        return template.render(form(name, changed)) != whole

    content = messages[index]["content"]
    kept = content if counts(content.lstrip()) else content.lstrip()
    return kept if counts(content.rstrip()) else kept.rstrip()


@pytest.mark.parametrize(
    "chat", ["single", "three", "system", "unicode", "edge", "same", "markers"]
)
@pytest.mark.parametrize("name", NAMES)
def test_answers_and_their_ends_are_supervised_and_nothing_else(name, chat, chats, search):
    messages = chats[chat]
    if name in ("gemma", "gemma_training") and chat == "system":
        with pytest.raises(TemplateError, match=r"refuses .* System role not supported"):
            spans_of(name, messages)
        return
    found = spans_of(name, messages)
    expected = search(
        found.text,
        messages,
        kept=lambda index: left_of(name, messages, index),
        ending=lambda final: LAST.get(name, end_of(name)) if final else end_of(name),
    )
    assert [(span.start, span.end, span.message) for span in found.spans] == expected
    assert found.end_of_turn == end_of(name)


@pytest.mark.parametrize("chat", ["single", "unicode", "edge", "markers"])
@pytest.mark.parametrize("name", NAMES)
def test_tokens_carry_the_spans(name, chat, chats, tokenizer, check_tokens):
    row = labels(tokenizer, form(name, chats[chat]), template=installed(name))
    check_tokens(row, [(span.start, span.end, span.message) for span in row.spans])


THINKING = ("qwen3", "glm4moe", "deepseek", "nemotron", "lfm2_2_5", "gptoss", "muse", "gemma4")


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith(THINKING)])
def test_thoughts_in_the_content_never_move_a_mask(name):
    thoughts = ("<think>\nAlfa\n</think>\n\nBravo", "<think>\nEcho\n</think>\n\nFoxtrot")
    messages = said("Q", thoughts[0], "Q", thoughts[1])
    found = spans_of(name, messages)
    first, last = (found.text[span.start : span.end] for span in found.spans)
    assert "Bravo" in first
    assert last.lstrip().startswith(("<think>", "Foxtrot"))
    assert "Foxtrot" in last
    assert "Q" not in first + last


WORD = st.lists(
    st.sampled_from([*"ab. \n<|>é你", "<|im_end|>", "[INST]", "</s>"]), min_size=1, max_size=6
).map("".join)


@pytest.mark.parametrize("name", ["gemma3", "qwen3", "llama3", "gptoss", "glm4moe", "cohere2"])
@given(one=WORD, two=WORD)
@settings(max_examples=25, deadline=None)
def test_any_content_stands_where_the_template_puts_it(name, one, two):
    """Sentinel words that nothing else writes, around any content, tell where it must be."""
    one, two = f"Bravo{one}Charlie", f"Delta{two}Foxtrot"
    found = spans_of(name, said(f"Q{one}", one, f"Q{two}", two))
    text = found.text
    starts = [m.start() for m in re.finditer(r"(?<!Q)(?:Bravo|Delta)", text)]
    stops = [m.end() for m in re.finditer("Charlie|Foxtrot", text)][1::2]
    assert [span.start for span in found.spans] == starts
    assert [
        text[: span.end].removesuffix(end) == text[:stop]
        for span, stop, end in zip(
            found.spans, stops, (end_of(name), LAST.get(name, end_of(name))), strict=True
        )
    ] == [True, True]


BREAK = ("", "\n")
TRL_MARKS_MORE = {
    # It marks the header that the generation prompt writes too.
    "deepseek_r1_distill_training": ("<｜Assistant｜>", ""),
    "deepseekv3_training": ("<｜Assistant｜>", ""),
    "gptoss_training": ("<|start|>assistant", ""),
    "muse_glimmer_training": ("<|start|>assistant", ""),
    # It marks the line break behind the end of turn, which the program writes.
    **dict.fromkeys((
        "diffusion_gemma_training", "gemma3_training", "gemma_training", "idefics3_training",
        "lfm2_2_5", "lfm2_2_5_v2", "lfm2_2_5_vl", "lfm2_training", "lfm2_v2_training",
        "qwen2_5_vl_training", "qwen3_instruct_2507_training", "qwen3_training",
        "qwen3_vl_training", "smolvlm_training",
    ), BREAK),
    # That, and the eos behind the whole conversation.
    "phi3_training": ("", "\n(?:</s>)?"),
    "phi3_5_training": ("", "\n(?:</s>)?"),
    # That, and the line break that ends the generation prompt.
    "qwen2_5_training": ("\n", "\n"),
    # That, and the beginning of the thoughts, which the generation prompt writes.
    **dict.fromkeys((
        "nemotron_3_5_lightning_training", "nemotron_3_nano_training", "nemotron_3_super_training",
        "nemotron_3_ultra_training",
    ), ("<think>", "\n")),
    **dict.fromkeys((
        "qwen3_5_think_training", "qwen3_6_training", "qwen3_8_training",
    ), ("<think>\n", "\n")),
    # That, and the whole of the empty thoughts.
    "qwen3_5_nothink_training": ("<think>\n\n</think>\n\n", "\n"),
}  # fmt: skip
"""What TRL's spans hold before ours, and a pattern of what they hold behind, where they differ."""

MARKED = [n for n in NAMES if re.search(r"\{%-?\s*generation", installed(n).text)]


@pytest.mark.parametrize("chat", ["single", "three", "unicode"])
@pytest.mark.parametrize("name", MARKED)
def test_from_the_generation_prompt_on_the_mask_is_that_of_trl(name, chat, chats):
    messages = form(name, chats[chat])
    text, indices = render_jinja_template(
        [messages],
        chat_template=installed(name).text,
        return_assistant_tokens_mask=True,
        bos_token="<s>",
        eos_token="</s>",
    )
    theirs: list[tuple[int, int]] = []
    for start, end in indices[0]:
        touches = theirs and theirs[-1][1] == start
        theirs[-1:] = [(theirs[-1][0], end)] if touches else [*theirs[-1:], (start, end)]
    found = spans_of(name, chats[chat], start="generation")
    assert found.text == text[0]
    before, behind = TRL_MARKS_MORE.get(name, ("", ""))
    assert len(theirs) == len(found.spans)
    for (start, end), span in zip(theirs, found.spans, strict=True):
        assert start <= span.start < span.end <= end
        assert found.text[start : span.start] == before
        assert re.fullmatch(behind, found.text[span.end : end])


@pytest.mark.parametrize("name", [name for name in MARKED if name not in TRL_MARKS_MORE])
def test_the_labels_are_those_of_trl_token_by_token(name, chats, bytes_tokenizer):
    messages = form(name, chats["three"])
    template = installed(name, tokenizer=bytes_tokenizer)
    row = labels(bytes_tokenizer, messages, template=template, start="generation")
    theirs = bytes_tokenizer.apply_chat_template(
        messages, chat_template=template.text, return_dict=True, return_assistant_tokens_mask=True
    )
    assert row.ids == theirs["input_ids"]
    assert [int(label != IGNORED) for label in row.labels] == theirs["assistant_masks"]
