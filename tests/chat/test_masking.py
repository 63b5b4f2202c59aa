"""What is supervised, on awkward templates: character by character, then token by token.

⟦ and ⟧ stand around what is to be supervised; they were typed by hand.
"""

import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftlab.chat import (
    IGNORED,
    MaskError,
    TemplateError,
    assistant_spans,
    find_template,
    find_turn_end,
    label_rows,
    labels,
)

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def said(*contents, system=None):
    """user, assistant, user, assistant, ..."""
    before = [{"role": "system", "content": system}] if system else []
    roles = ("user", "assistant")
    return before + [{"role": roles[i % 2], "content": c} for i, c in enumerate(contents)]


def marked(spans):
    """The text with ⟦ and ⟧ around each span."""
    text = spans.text
    for span in reversed(spans.spans):
        text = f"{text[: span.start]}⟦{text[span.start : span.end]}⟧{text[span.end :]}"
    return text


TOYS = tomllib.loads(Path(__file__).with_name("toys.toml").read_text(encoding="utf-8"))
ENDINGS = {name: toy["ends"] for name, toy in TOYS.items() if "ends" in toy}
TRIMMED = ("contents are trimmed", "macros, namespaces and blocks carry the text")


def template_of(name):
    return find_template(TOYS[name]["template"], bos_token="<s>", eos_token="</s>")


def spans_of(name, messages, **options):
    return assistant_spans(template_of(name), messages, **options)


def places(found):
    return [(span.start, span.end, span.message) for span in found.spans]


@pytest.mark.parametrize("name", TOYS)
def test_exactly_the_answers_and_their_ends_are_supervised(name):
    messages = said(*TOYS[name]["said"], system=TOYS[name].get("system"))
    found = spans_of(name, messages)
    assert marked(found) == TOYS[name]["expected"]
    assert found.text == template_of(name).render(messages)
    for span in found.spans:
        assert messages[span.message]["role"] == "assistant"


@pytest.mark.parametrize("kind", ["single", "three", "system", "unicode", "edge", "markers"])
@pytest.mark.parametrize("name", ENDINGS)
def test_each_kind_of_conversation_is_masked_in_each_toy(
    name, kind, chats, tokenizer, search, check_tokens
):
    messages = chats[kind]
    if (name, kind) == ("roles must alternate", "system"):
        with pytest.raises(TemplateError, match="roles must alternate"):
            spans_of(name, messages)
        return
    found = spans_of(name, messages)
    contents = [message["content"] for message in messages]
    kept = [content.strip() if name in TRIMMED else content for content in contents]
    wanted = search(found.text, messages, kept=kept.__getitem__, ending=ENDINGS[name].__getitem__)
    assert places(found) == wanted
    check_tokens(labels(tokenizer, messages, template=template_of(name)), wanted)


@pytest.mark.parametrize("name", ENDINGS)
def test_the_end_of_turn_is_found(name):
    end = find_turn_end(template_of(name))
    assert [end.middle or "", end.last or ""] == ENDINGS[name]
    assert end.token == (ENDINGS[name][0].strip() or None)
    borrowed = find_turn_end(template_of("the next role's token ends a turn"))
    assert borrowed == ("<|user|>", None, True)


TWO = said("Q", "One.", "Q", "Two.")
UNTRAINED = [TWO[0], TWO[1] | {"train": False}, *TWO[2:]]
THINKING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n{% endif %}"
    "{{ m.content }}"
    "{% for call in m.tool_calls or [] %}<tool_call>{{ call.function | tojson }}</tool_call>"
    "{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CALL = {"type": "function", "id": "1", "function": {"name": "f", "arguments": {"x": "<|im_end|>"}}}
TOOL_TALK = [
    {"role": "user", "content": "Q"},
    {"role": "assistant", "reasoning_content": "so", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "content": "7"},
    {"role": "assistant", "content": "Seven."},
]
CALLED = '<tool_call>{"name": "f", "arguments": {"x": "<|im_end|>"}}</tool_call>'
THINKING_PROMPT = (
    "{% for m in messages %}<{{ m.role }}>"
    "{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n{% endif %}"
    "{{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<assistant><think>\n{% endif %}"
)
ENDLESS = TOYS["nothing ends a turn"]["template"]
LAST_ONLY = (
    "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\nOne.<|im_end|>\n"
    "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n⟦Two.<|im_end|>⟧\n"
)


@pytest.mark.parametrize(
    ("template", "messages", "options", "expected"),
    [
        (CHATML, TWO, {"turns": "last"}, LAST_ONLY),
        (CHATML, TWO[:2], {"end_of_turn": False},
         "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n⟦One.⟧<|im_end|>\n"),
        (CHATML, UNTRAINED, {}, LAST_ONLY),
        ("{{ tools | tojson }}" + CHATML, TWO[:2], {"tools": [{"name": "One."}]},
         '[{"name": "One."}]<|im_start|>user\nQ<|im_end|>\n'
         "<|im_start|>assistant\n⟦One.<|im_end|>⟧\n"),
        (THINKING, TOOL_TALK, {"start": "generation"},
         "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n"
         f"⟦<think>\nso\n</think>\n{CALLED}<|im_end|>⟧\n"
         "<|im_start|>tool\n7<|im_end|>\n<|im_start|>assistant\n⟦Seven.<|im_end|>⟧\n"),
        (THINKING_PROMPT, TWO, {"start": "generation"},
         "<user>Q</s><assistant>⟦One.</s>⟧<user>Q</s><assistant><think>\n⟦\n</think>\nTwo.</s>⟧"),
        (ENDLESS, TWO, {"append_eos": True},
         "### Instruction:\nQ\n\n### Response:\n⟦One.⟧\n\n"
         "### Instruction:\nQ\n\n### Response:\n⟦Two.</s>⟧"),
        (TOYS["contents are trimmed"]["template"], TWO, {"append_eos": True},
         "<s><|user|>\nQ<|end|>\n<|assistant|>\n⟦One.<|end|>⟧\n"
         "<|user|>\nQ<|end|>\n<|assistant|>\n⟦Two.<|end|>⟧\n"),
        ("{{ strftime_now('%S.%f') }}" + CHATML, TWO[:2], {}, "assistant\n⟦One.<|im_end|>⟧\n"),
    ],
    ids=["last", "no end", "untrained", "tools", "calls", "thoughts", "eos", "ended", "clock"],
)  # fmt: skip
def test_options_choose_what_is_supervised(template, messages, options, expected):
    template = find_template(template, bos_token="<s>", eos_token="</s>")
    found = assistant_spans(template, messages, **options)
    assert marked(found).endswith(expected)
    assert marked(found).count("⟦") == expected.count("⟦")


@pytest.mark.parametrize(
    ("template", "messages", "expected"),
    [
        (ENDLESS, TWO, ["nothing ends the turn of messages 1, 3", "append_eos=True"]),
        (TOYS["letters are changed"]["template"], TWO, ["give eos_token"]),
        (CHATML, said("Q", "", "Q", "Two."), ["no text of messages 1", "start='generation'"]),
        (THINKING, TOOL_TALK, ["no text of messages 1", "start='generation'"]),
    ],
    ids=["no end", "no eos", "empty", "calls"],
)
def test_a_warning_says_what_is_not_learned(template, messages, expected):
    found = assistant_spans(template, messages)
    assert all(words in found.warnings[0] for words in expected)


@pytest.mark.parametrize(
    ("template", "messages", "options", "message"),
    [
        ("{% for m in messages %}{{ m.content }}|{{ m.content }}</s>{% endfor %}",
         TWO[:2], {}, "message 1 in more than one place"),
        ("{% for m in messages if m.role == 'assistant' %}{{ m.content[:1] }}"
         "{{ messages[0].content }}{{ m.content[1:] }}</s>{% endfor %}",
         TWO[:2], {}, "in more than one place"),
        ("{% for m in messages %}{{ m.role }} {{ m.content | int }}\n{% endfor %}",
         said("4", "7"), {}, r"\(given text\).*at character 17.*'7\\n' became '0\\n'"),
        ("{% for m in messages %}{{ m.role }}</s>{% endfor %}", TWO[:2], {}, "list of parts"),
        (TOYS["roles must alternate"]["template"], TWO[1:], {}, "row 0: .*roles must alternate"),
        (CHATML, TWO[:1], {}, "row 0 has no supervised token"),
        ("{% for m in messages %}{{ m.content }}</s>{% endfor %}",
         [{"role": "assistant", "content": "no"}], {}, "all 2 tokens of row 0"),
        (CHATML, [TWO[0], TWO[1] | {"train": "no"}], {}, "train of a message is 'no'"),
        (CHATML, TWO, {"max_length": 0}, "max_length is 0 tokens"),
        (CHATML, TWO, {"on_empty": "drop"}, "on_empty is 'drop'"),
        (CHATML, TWO, {"on_full": "drop"}, "on_full is 'drop'"),
        (CHATML, TWO, {"turns": "first"}, "turns is 'first'"),
        (CHATML, TWO, {"start": "header"}, "start is 'header'"),
    ],
    ids=["written twice", "others' words inside", "not followed", "every answer dropped",
         "refused", "no answer", "no question", "train", "max_length", "on_empty", "on_full",
         "turns", "start"],
)  # fmt: skip
def test_what_cannot_be_masked_is_refused_and_named(
    bytes_tokenizer, template, messages, options, message
):
    kind = MaskError if "row 0 has" in message or "all 2" in message else ValueError
    with pytest.raises(kind, match=message):
        labels(bytes_tokenizer, messages, template=template, **options)


CONTENT = st.lists(
    st.sampled_from([*"ab .\n\t<|>é你👩\u200d", "<|im_end|>", "</think>", "assistant\n"]),
    min_size=1, max_size=8,
).map("".join).filter(str.strip)  # fmt: skip
CONTENTS = st.lists(CONTENT, min_size=2, max_size=6).filter(lambda c: len(c) % 2 == 0)


def built(contents, turn, end):
    """A text made by hand, and where its answers are."""
    text, where = "", []
    for index, content in enumerate(contents):
        text += turn.format(("user", "assistant")[index % 2])
        if index % 2:
            where.append((len(text), len(text) + len(content) + len(end), index))
        text += content + end + "\n"
    return text, where


@settings(deadline=None)
@given(contents=CONTENTS)
def test_any_conversation_is_masked_as_it_was_built(contents):
    found = assistant_spans(CHATML, said(*contents))
    assert (found.text, places(found)) == built(contents, "<|im_start|>{}\n", "<|im_end|>")
    generation = assistant_spans(CHATML, said(*contents), start="generation")
    assert generation.spans == found.spans


@settings(deadline=None)
@given(contents=CONTENTS)
def test_any_trimmed_conversation_is_masked_as_it_was_built(contents):
    found = spans_of("contents are trimmed", said(*contents))
    text, where = built(map(str.strip, contents), "<|{}|>\n", "<|end|>")
    moved = [(start + 3, end + 3, message) for start, end, message in where]  # behind `<s>`
    assert (found.text, places(found)) == (f"<s>{text}", moved)


@settings(deadline=None)
@given(contents=CONTENTS)
def test_a_token_is_supervised_exactly_where_its_characters_are(
    bytes_tokenizer, words_tokenizer, check_tokens, contents
):
    for tokenizer in (bytes_tokenizer, words_tokenizer):
        row = labels(tokenizer, said(*contents), template=CHATML, on_empty="keep")
        check_tokens(row, places(row))


def ids_of(tokenizer, *tokens):
    return tokenizer.convert_tokens_to_ids(list(tokens))


def test_labels_of_five_tokens_by_hand(bytes_tokenizer):
    row = labels(bytes_tokenizer, said("yes", "no"), template=CHATML)
    expected = [IGNORED] * len(row.ids)
    at = bytes_tokenizer.convert_ids_to_tokens(row.ids).index("no")
    expected[at : at + 2] = ids_of(bytes_tokenizer, "no", "<|im_end|>")
    assert row.labels == expected
    assert row.supervised == 2
    assert bytes_tokenizer.decode(row.ids) == row.text


def test_a_token_that_reaches_over_white_space_is_supervised_whole(words_tokenizer):
    template = (
        "{% for m in messages %}{% if m.role == 'user' %}[INST]{{ m.content }}:"
        "{% else %} {{ m.content }}</s>{% endif %}{% endfor %}"
    )
    row = labels(words_tokenizer, said("yes", "Answer"), template=template)
    supervised = [i for i, label in enumerate(row.labels) if label != IGNORED]
    first, last = row.offsets[supervised[0]]
    assert row.text[first:last].startswith(" A")
    assert row.text[row.spans[0].start :] == "Answer</s>"
    assert row.straddling == ()


def test_a_token_that_holds_a_part_of_the_header_is_listed_and_not_supervised(bytes_tokenizer):
    template = "{% for m in messages %}{{ m.role }} Que{{ m.content }}</s>{% endfor %}"
    row = labels(bytes_tokenizer, said("x", "stion so"), template=template)
    (token,) = row.straddling
    first, last = row.offsets[token]
    assert row.text[first:last].strip() == "Question"
    assert row.labels[token] == IGNORED
    assert row.labels[token + 1] == row.ids[token + 1]


def test_nothing_is_added_to_what_the_template_writes(tokenizer):
    (bos,) = ids_of(tokenizer, "<s>")
    with_bos = labels(tokenizer, said("Q", "no"), template="{{ bos_token }}" + CHATML)
    without = labels(tokenizer, said("Q", "no"), template=CHATML)
    assert with_bos.ids.count(bos) == 1
    assert with_bos.ids[1:] == without.ids or tokenizer.decode(without.ids) == without.text


def test_ids_are_those_of_the_tokenizer(tokenizer):
    rows = [said("Question Alfa?", "It is so."), said("no", "yes", "Q", "grüße 你好")]
    made = label_rows(tokenizer, rows, template=CHATML)
    wanted = tokenizer.apply_chat_template(rows, chat_template=CHATML)["input_ids"]
    assert [row.ids for row in made] == wanted


def test_truncation_is_counted_and_a_row_that_lost_its_answer_is_named(bytes_tokenizer):
    messages = said("yes", "no", "yes", "It is so.")
    whole = labels(bytes_tokenizer, messages, template=CHATML)
    last = max(i for i, label in enumerate(whole.labels) if label != IGNORED)
    cut = labels(bytes_tokenizer, messages, template=CHATML, max_length=last)
    assert (cut.ids, cut.labels) == (whole.ids[:last], whole.labels[:last])
    assert (cut.removed, whole.removed) == (1, 0)
    rows = [said("no", "yes"), said("It is so, and not so; " * 9, "no")]
    with pytest.raises(MaskError, match=r"row 1 .* truncation to 30 tokens removed all 2"):
        label_rows(bytes_tokenizer, rows, template=CHATML, max_length=30)
    kept = label_rows(bytes_tokenizer, rows, template=CHATML, max_length=30, on_empty="keep")
    assert [row.supervised for row in kept] == [2, 0]


def test_rows_may_bring_their_tools_and_be_kept_without_a_question(tokenizer):
    template = "{{ tools | tojson }}" + CHATML
    rows = [{"messages": said("Q", "no"), "tools": [{"name": name}]} for name in "ab"]
    made = label_rows(tokenizer, rows, template=template)
    assert [json.loads(row.text.split("<", 1)[0])[0]["name"] for row in made] == ["a", "b"]
    assert label_rows(tokenizer, [], template=template) == []
    answer = [{"role": "assistant", "content": "no"}]
    template = "{% for m in messages %}{{ m.content }}</s>{% endfor %}"
    assert labels(tokenizer, answer, template=template, on_full="keep").supervised
