"""Masks on every template that TRL installs: exact, and beside TRL's own."""

import re
import tomllib
from pathlib import Path

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


TRL = tomllib.loads(Path(__file__).with_name("trl.toml").read_text(encoding="utf-8"))
LAST = TRL["last"]


def end_of(name):
    return TRL["ends"][max((key for key in TRL["ends"] if name.startswith(key)), key=len)]


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


MARKS_MORE = {
    name: (group["before"], group["behind"])
    for group in TRL["marks_more"]
    for name in group["templates"]
}
MARKED = [n for n in NAMES if re.search(r"\{%-?\s*generation", installed(n).text)]


@pytest.mark.parametrize("chat", ["single", "three", "unicode"])
@pytest.mark.parametrize("name", MARKED)
def test_from_the_generation_prompt_on_the_mask_is_that_of_trl(name, chat, chats, bytes_tokenizer):
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
    before, behind = MARKS_MORE.get(name, ("", ""))
    assert len(theirs) == len(found.spans)
    for (start, end), span in zip(theirs, found.spans, strict=True):
        assert start <= span.start < span.end <= end
        assert found.text[start : span.start] == before
        assert re.fullmatch(behind, found.text[span.end : end])
    if name not in MARKS_MORE:  # then the labels are the same, token by token
        template = installed(name, tokenizer=bytes_tokenizer)
        row = labels(bytes_tokenizer, messages, template=template, start="generation")
        asked = {"return_dict": True, "return_assistant_tokens_mask": True}
        trl = bytes_tokenizer.apply_chat_template(messages, chat_template=template.text, **asked)
        assert row.ids == trl["input_ids"]
        assert [int(label != IGNORED) for label in row.labels] == trl["assistant_masks"]
