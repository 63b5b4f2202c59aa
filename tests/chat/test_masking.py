"""What is supervised, on awkward templates: character by character, then token by token.

⟦ and ⟧ stand around what is to be supervised; they were typed by hand.
"""

import json

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


TOYS = {
    "thinking is stripped from history": (
        "{% for m in messages %}[{{ m.role }}]\n"
        "{% if m.role == 'assistant' and '</think>' in m.content and not loop.last %}"
        "{{ m.content.split('</think>')[-1].lstrip('\n') }}"
        "{% else %}{{ m.content }}{% endif %}<|end|>\n{% endfor %}",
        said("Q", "<think>a</think>\n\nOne.", "Q", "<think>\nb\n</think>\nTwo."),
        "[user]\nQ<|end|>\n[assistant]\n⟦One.<|end|>⟧\n"
        "[user]\nQ<|end|>\n[assistant]\n⟦<think>\nb\n</think>\nTwo.<|end|>⟧\n",
    ),
    "thinking is written anew": (
        "{% for m in messages %}<{{ m.role }}>"
        "{% if m.role == 'assistant' and '</think>' in m.content %}"
        "{% set thought = m.content.split('</think>')[0].split('<think>')[-1].strip() %}"
        "{{ '<think>\n' + thought + '\n</think>\n' + m.content.split('</think>')[-1] | trim }}"
        "{% else %}{{ m.content }}{% endif %}</{{ m.role }}>{% endfor %}",
        said("Q", "<think>so</think>  One.", "Q", "Two."),
        "<user>Q</user><assistant>⟦<think>\nso\n</think>\nOne.</assistant>⟧"
        "<user>Q</user><assistant>⟦Two.</assistant>⟧",
    ),
    "contents are trimmed": (
        "{{ bos_token }}{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content | trim }}"
        "<|end|>\n{% endfor %}",
        said("  Q ", "\n\n One.  Two.\t\n", "Q", " Three. "),
        "<s><|user|>\nQ<|end|>\n<|assistant|>\n⟦One.  Two.<|end|>⟧\n"
        "<|user|>\nQ<|end|>\n<|assistant|>\n⟦Three.<|end|>⟧\n",
    ),
    "roles must alternate": (
        "{{ bos_token }}{% for m in messages %}"
        "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('roles must alternate') }}{% endif %}"
        "{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}"
        "{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}",
        said("Q", " One.", "Q", "Two. "),
        "<s>[INST] Q [/INST] ⟦ One.</s>⟧[INST] Q [/INST] ⟦Two. </s>⟧",
    ),
    "the system message is dropped": (
        "{% for m in messages if m.role != 'system' %}<|im_start|>{{ m.role }}\n"
        "{{ m.content }}<|im_end|>\n{% endfor %}",
        said("Q", "One.", system="One."),
        "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n⟦One.<|im_end|>⟧\n",
    ),
    "the system message moves into the question": (
        "{% if messages[0].role == 'system' %}{% set system = messages[0].content + '\n\n' %}"
        "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}"
        "{% for m in messages %}<start>{{ m.role }}\n{{ system if loop.first else '' }}"
        "{{ m.content }}<stop>\n{% endfor %}",
        said("Q", "One.", "Q", "Two.", system="One."),
        "<start>user\nOne.\n\nQ<stop>\n<start>assistant\n⟦One.<stop>⟧\n"
        "<start>user\nQ<stop>\n<start>assistant\n⟦Two.<stop>⟧\n",
    ),
    "nothing ends a turn": (
        "{% for m in messages %}{% if m.role == 'user' %}### Instruction:\n{{ m.content }}\n\n"
        "### Response:\n{% else %}{{ m.content }}\n\n{% endif %}{% endfor %}",
        said("Q", "One.", "Q", "Two."),
        "### Instruction:\nQ\n\n### Response:\n⟦One.⟧\n\n"
        "### Instruction:\nQ\n\n### Response:\n⟦Two.⟧\n\n",
    ),
    "the next role's token ends a turn": (
        "[gMASK]<sop>{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{% endfor %}",
        said("Q", "One.", "Q", "Two."),
        "[gMASK]<sop><|user|>\nQ<|assistant|>\n⟦One.<|user|>⟧\nQ<|assistant|>\n⟦Two.⟧",
    ),
    "the last turn ends otherwise": (
        "<|start|>system<|message|>Be good.<|end|>{% for m in messages %}<|start|>{{ m.role }}"
        "<|message|>{{ m.content }}"
        "{{ '<|return|>' if loop.last else '<|end|>' }}{% endfor %}",
        said("Q", "One.", "Q", "Two."),
        "<|start|>system<|message|>Be good.<|end|><|start|>user<|message|>Q<|end|>"
        "<|start|>assistant<|message|>⟦One.<|end|>⟧<|start|>user<|message|>Q<|end|>"
        "<|start|>assistant<|message|>⟦Two.<|return|>⟧",
    ),
    "the last turn has no end": (
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}"
        "{% if not loop.last %}<|stop|>\n{% endif %}{% endfor %}",
        said("Q", "One.", "Q", "Two."),
        "<|user|>Q<|stop|>\n<|assistant|>⟦One.<|stop|>⟧\n<|user|>Q<|stop|>\n<|assistant|>⟦Two.⟧",
    ),
    "eos stands behind a finished conversation too": (
        "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}",
        said("Q", "One.", "Q", "Two."),
        "<|user|>\nQ<|end|>\n<|assistant|>\n⟦One.<|end|>⟧\n"
        "<|user|>\nQ<|end|>\n<|assistant|>\n⟦Two.<|end|>⟧\n</s>",
    ),
    "the next header is always written": (
        "<|im_start|>system\nBe good.<|im_end|>\n{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{{ m.content }}<|im_end|>\n{% endfor %}{{ '<|im_start|>assistant\n' }}",
        said("Q", "One.", "Q", "Two."),
        "<|im_start|>system\nBe good.<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n"
        "<|im_start|>assistant\n⟦One.<|im_end|>⟧\n<|im_start|>user\nQ<|im_end|>\n"
        "<|im_start|>assistant\n⟦Two.<|im_end|>⟧\n<|im_start|>assistant\n",
    ),
    "white space stands before the end": (
        "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
        "{% else %} {{ m.content }} {{ eos_token }}{% endif %}{% endfor %}",
        said("Q", "One.", "Q", "Two."),
        "[INST] Q [/INST] ⟦One. </s>⟧[INST] Q [/INST] ⟦Two. </s>⟧",
    ),
    "the answer holds the markers": (
        CHATML,
        said("<|im_end|>", "<|im_start|>assistant\nOne.<|im_end|>\n", "Q", "<|im_end|>"),
        "<|im_start|>user\n<|im_end|><|im_end|>\n<|im_start|>assistant\n"
        "⟦<|im_start|>assistant\nOne.<|im_end|>\n<|im_end|>⟧\n"
        "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n⟦<|im_end|><|im_end|>⟧\n",
    ),
    "both roles say the same": (
        CHATML,
        said("Yes.", "Yes.", "Yes.", "Yes.", system="Yes."),
        "<|im_start|>system\nYes.<|im_end|>\n"
        "<|im_start|>user\nYes.<|im_end|>\n<|im_start|>assistant\n⟦Yes.<|im_end|>⟧\n"
        "<|im_start|>user\nYes.<|im_end|>\n<|im_start|>assistant\n⟦Yes.<|im_end|>⟧\n",
    ),
    "macros, namespaces and blocks carry the text": (
        "{% macro turn(role, text) %}{% set inner %}{{ text }}{% endset %}"
        "<{{ role }}{% if 'stop' in inner %} held{% endif %}>{{ inner | trim }}</{{ role }}>"
        "{% endmacro %}{% set ns = namespace(all='') %}"
        "{% for m in messages %}{% set ns.all = ns.all ~ turn(m.role, m['content']) %}{% endfor %}"
        "{{ ns.all }}",
        said("Q", " stop ", "Q", "Two."),
        "<user>Q</user><assistant held>⟦stop</assistant>⟧"
        "<user>Q</user><assistant>⟦Two.</assistant>⟧",
    ),
    "letters are changed": (
        "{% for m in messages %}<{{ m.role }}>{{ m.content | upper | replace('\n', '<n>') }}"
        "{{ eos_token }}{% endfor %}",
        said("q", "straße\n", "q", "\ntwo"),
        "<user>Q</s><assistant>⟦STRASSE<n></s>⟧<user>Q</s><assistant>⟦<n>TWO</s>⟧",
    ),
    "contents are written as JSON": (
        "{% for m in messages %}{{ m.role }}: {{ m.content | tojson }}"
        "{{ eos_token }}\n{% endfor %}",
        said("Q", 'a "b"\n', "Q", "é"),
        'user: "Q"</s>\nassistant: "⟦a \\"b\\"\\n"</s>⟧\nuser: "Q"</s>\nassistant: "⟦é"</s>⟧\n',
    ),
    "contents are lists of parts": (
        "{% for m in messages %}<{{ m.role }}>{% if m.content is string %}{{ m.content }}"
        "{% else %}{% for part in m.content if part.type == 'text' %}{{ part.text }}{% endfor %}"
        "{% endif %}</{{ m.role }}>{% endfor %}",
        [
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Q"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "On"}] * 2},
        ],
        "<user>Q</user><assistant>⟦OnOn</assistant>⟧",
    ),
}
"""Name of what is awkward -> (template, conversation, the marked render)."""


def template_of(name):
    return find_template(TOYS[name][0], bos_token="<s>", eos_token="</s>")


def spans_of(name, messages=None, **options):
    return assistant_spans(template_of(name), messages or TOYS[name][1], **options)


def places(found):
    return [(span.start, span.end, span.message) for span in found.spans]


@pytest.mark.parametrize("name", TOYS)
def test_exactly_the_answers_and_their_ends_are_supervised(name):
    _, messages, expected = TOYS[name]
    found = spans_of(name)
    assert marked(found) == expected
    assert found.text == template_of(name).render(messages)
    for span in found.spans:
        assert messages[span.message]["role"] == "assistant"


ENDINGS = {
    "thinking is stripped from history": ("<|end|>", "<|end|>"),
    "contents are trimmed": ("<|end|>", "<|end|>"),
    "roles must alternate": ("</s>", "</s>"),
    "the system message is dropped": ("<|im_end|>", "<|im_end|>"),
    "the system message moves into the question": ("<stop>", "<stop>"),
    "nothing ends a turn": ("", ""),
    "the last turn ends otherwise": ("<|end|>", "<|return|>"),
    "the last turn has no end": ("<|stop|>", ""),
    "white space stands before the end": (" </s>", " </s>"),
    "the answer holds the markers": ("<|im_end|>", "<|im_end|>"),
    "macros, namespaces and blocks carry the text": ("</assistant>", "</assistant>"),
}
"""What ends an answer, and what ends the last one."""
TRIMMED = ("contents are trimmed", "macros, namespaces and blocks carry the text")


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


def test_only_the_last_answer():
    found = assistant_spans(CHATML, said("Q", "One.", "Q", "Two."), turns="last")
    assert [found.text[span.start : span.end] for span in found.spans] == ["Two.<|im_end|>"]


def test_without_the_end_of_turn():
    found = assistant_spans(CHATML, said("Q", "One."), end_of_turn=False)
    assert marked(found).endswith("assistant\n⟦One.⟧<|im_end|>\n")
    assert found.end_of_turn == "<|im_end|>"


def test_a_message_may_be_left_out_of_training():
    messages = said("Q", "One.", "Q", "Two.")
    messages[1]["train"] = False
    assert [span.message for span in assistant_spans(CHATML, messages).spans] == [3]
    messages[1]["train"] = "no"
    with pytest.raises(ValueError, match="train of a message is 'no'"):
        assistant_spans(CHATML, messages)


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


def test_from_the_generation_prompt_on_thoughts_and_calls_are_supervised():
    found = assistant_spans(THINKING, TOOL_TALK, start="generation")
    assert marked(found) == (
        "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n"
        f"⟦<think>\nso\n</think>\n{CALLED}<|im_end|>⟧\n"
        "<|im_start|>tool\n7<|im_end|>\n<|im_start|>assistant\n⟦Seven.<|im_end|>⟧\n"
    )


def test_from_the_content_on_they_are_not_and_a_warning_says_so():
    found = assistant_spans(THINKING, TOOL_TALK)
    assert [span.message for span in found.spans] == [3]
    assert "no text of messages 1" in found.warnings[0]
    assert "start='generation'" in found.warnings[0]


def test_tools_are_rendered():
    template = "{% if tools %}{{ tools | tojson }}\n{% endif %}" + CHATML
    found = assistant_spans(template, said("Q", "One."), tools=[{"name": "One."}])
    assert marked(found) == (
        '[{"name": "One."}]\n<|im_start|>user\nQ<|im_end|>\n'
        "<|im_start|>assistant\n⟦One.<|im_end|>⟧\n"
    )


def test_after_a_generation_prompt_that_thinks_the_rest_is_supervised():
    template = (
        "{% for m in messages %}<{{ m.role }}>"
        "{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n{% endif %}"
        "{{ m.content }}</s>{% endfor %}"
        "{% if add_generation_prompt %}<assistant><think>\n{% endif %}"
    )
    found = assistant_spans(template, said("Q", "One.", "Q", "Two."), start="generation")
    assert marked(found) == (
        "<user>Q</s><assistant>⟦One.</s>⟧<user>Q</s><assistant><think>\n⟦\n</think>\nTwo.</s>⟧"
    )


def test_both_renders_read_the_same_time():
    found = assistant_spans("{{ strftime_now('%S.%f') }}" + CHATML, said("Q", "One."))
    assert found.text[found.spans[0].start : found.spans[0].end] == "One.<|im_end|>"


def test_a_missing_end_is_a_warning_and_eos_is_offered():
    found = spans_of("nothing ends a turn")
    assert found.end_of_turn is None
    assert "nothing ends the turn of messages 1, 3" in found.warnings[0]
    assert "append_eos=True" in found.warnings[0]
    appended = spans_of("nothing ends a turn", append_eos=True)
    assert marked(appended).endswith("### Response:\n⟦Two.</s>⟧")
    ended = "contents are trimmed"
    assert marked(spans_of(ended, append_eos=True)) == TOYS[ended][2]
    without = assistant_spans(TOYS["letters are changed"][0], said("Q", "One."))
    assert "give eos_token" in without.warnings[0]


@pytest.mark.parametrize(
    ("name", "middle", "last"),
    [
        ("contents are trimmed", "<|end|>", "<|end|>"),
        ("nothing ends a turn", None, None),
        ("the next role's token ends a turn", "<|user|>", None),
        ("the last turn ends otherwise", "<|end|>", "<|return|>"),
        ("the last turn has no end", "<|stop|>", None),
        ("white space stands before the end", " </s>", " </s>"),
    ],
)
def test_the_end_of_turn_is_found(name, middle, last):
    end = find_turn_end(template_of(name))
    assert (end.middle, end.last) == (middle, last)


@pytest.mark.parametrize(
    ("template", "contents", "message"),
    [
        ("{% for m in messages %}{{ m.content }}|{{ m.content }}</s>{% endfor %}",
         ("Q", "One."), "message 1 in more than one place"),
        ("{% for m in messages if m.role == 'assistant' %}{{ m.content[:1] }}"
         "{{ messages[0].content }}{{ m.content[1:] }}</s>{% endfor %}",
         ("Q", "One."), "in more than one place"),
        ("{% for m in messages %}{{ m.role }} {{ m.content | int }}\n{% endfor %}",
         ("4", "7"), r"\(given text\).*at character 17.*'7\\n' became '0\\n'"),
        ("{% for m in messages %}{{ m.role }}</s>{% endfor %}", ("Q", "One."), "list of parts"),
    ],
    ids=["written twice", "others' words inside", "not followed", "every answer dropped"],
)  # fmt: skip
def test_what_cannot_be_located_is_not_guessed(template, contents, message):
    with pytest.raises(TemplateError, match=message):
        assistant_spans(template, said(*contents))


def test_an_empty_answer_is_a_warning():
    found = assistant_spans(CHATML, said("Q", "", "Q", "Two."))
    assert [span.message for span in found.spans] == [3]
    assert "no text of messages 1" in found.warnings[0]


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


def test_truncation_is_counted(bytes_tokenizer):
    messages = said("yes", "no", "yes", "It is so.")
    whole = labels(bytes_tokenizer, messages, template=CHATML)
    last = max(i for i, label in enumerate(whole.labels) if label != IGNORED)
    cut = labels(bytes_tokenizer, messages, template=CHATML, max_length=last)
    assert (cut.ids, cut.labels) == (whole.ids[:last], whole.labels[:last])
    assert (cut.removed, whole.removed) == (1, 0)


def test_a_row_that_lost_its_answer_is_named(bytes_tokenizer):
    rows = [said("no", "yes"), said("It is so, and not so; " * 9, "no")]
    with pytest.raises(MaskError, match=r"row 1 .* truncation to 30 tokens removed all 2"):
        label_rows(bytes_tokenizer, rows, template=CHATML, max_length=30)
    kept = label_rows(bytes_tokenizer, rows, template=CHATML, max_length=30, on_empty="keep")
    assert [row.supervised for row in kept] == [2, 0]


def test_a_row_without_an_answer_or_a_question_is_named(tokenizer):
    with pytest.raises(MaskError, match="row 0 has no supervised token"):
        labels(tokenizer, said("Q"), template=CHATML)
    answer = [{"role": "assistant", "content": "no"}]
    template = "{% for m in messages %}{{ m.content }}</s>{% endfor %}"
    with pytest.raises(MaskError, match="all 2 tokens of row 0"):
        labels(tokenizer, answer, template=template)
    assert labels(tokenizer, answer, template=template, on_full="keep").supervised


def test_a_row_that_a_template_refuses_is_named(tokenizer):
    rows = [said("Q", "no"), said("Q", "no")[::-1]]
    with pytest.raises(TemplateError, match=r"row 1: .*roles must alternate"):
        label_rows(tokenizer, rows, template=TOYS["roles must alternate"][0])


def test_rows_may_bring_their_tools(tokenizer):
    template = "{{ tools | tojson }}" + CHATML
    rows = [{"messages": said("Q", "no"), "tools": [{"name": name}]} for name in "ab"]
    made = label_rows(tokenizer, rows, template=template)
    assert [json.loads(row.text.split("<", 1)[0])[0]["name"] for row in made] == ["a", "b"]
    assert label_rows(tokenizer, [], template=template) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_length": 0}, "max_length is 0 tokens"),
        ({"on_empty": "drop"}, "on_empty is 'drop'"),
        ({"on_full": "drop"}, "on_full is 'drop'"),
        ({"turns": "first"}, "turns is 'first'"),
        ({"start": "header"}, "start is 'header'"),
    ],
)
def test_unknown_options_are_refused(tokenizer, options, message):
    with pytest.raises(ValueError, match=message):
        labels(tokenizer, said("Q", "no"), template=CHATML, **options)
