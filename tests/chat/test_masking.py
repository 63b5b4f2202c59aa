"""What is supervised: on the toys and on every template of TRL, then token by token.

⟦ and ⟧ stand around what is to be supervised; they were typed by hand.
"""

import json
import re
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import render_jinja_template

from sftlab.chat import (
    IGNORED,
    MaskError,
    TemplateError,
    assistant_spans,
    find_template,
    find_turn_end,
    installed_templates,
    label_rows,
    labels,
)

TOYS, CHATS, TRL = (
    tomllib.loads(Path(__file__).with_name(f"{name}.toml").read_text(encoding="utf-8"))
    for name in ("toys", "chats", "trl")
)
INSTALLED = sorted(installed_templates())
CHATML = TOYS["the answer holds the markers"]["template"]
ENDLESS = TOYS["nothing ends a turn"]["template"]


def said(*contents, system=None):
    """user, assistant, user, assistant, ..."""
    before = [{"role": "system", "content": system}] if system else []
    roles = ("user", "assistant")
    return before + [{"role": roles[i % 2], "content": c} for i, c in enumerate(contents)]


def chat(kind):
    return said(*CHATS[kind], system="System Zulu." if kind == "system" else None)


def with_tokens(text):
    return replace(find_template(text), bos_token="<s>", eos_token="</s>")


def template_of(name):
    text = TOYS[name]["template"] if name in TOYS else installed_templates()[name]
    return with_tokens(text)


def form(name, messages):
    """The messages as a template takes them: some want contents as lists of parts."""
    if not name.startswith(("idefics3", "smolvlm", "llava_next")):
        return messages
    return [m | {"content": [{"type": "text", "text": m["content"]}]} for m in messages]


def ends_of(name):
    """What ends an answer, and what ends the last one."""
    if name in TOYS:
        return tuple(TOYS[name]["ends"])
    end = TRL["ends"][max((key for key in TRL["ends"] if name.startswith(key)), key=len)]
    return end, TRL["last"].get(name, end)


def marked(spans):
    """The text with ⟦ and ⟧ around each span."""
    text = spans.text
    for span in reversed(spans.spans):
        text = f"{text[: span.start]}⟦{text[span.start : span.end]}⟧{text[span.end :]}"
    return text


def places(found):
    return [(span.start, span.end, span.message) for span in found.spans]


def check_tokens(row, wanted):
    """A token is supervised exactly if its characters are, white space apart."""
    inside = {at for start, end, _ in wanted for at in range(start, end)}
    for token, (first, last) in enumerate(row.offsets):
        held = set(range(first, last))
        outside = "".join(row.text[at] for at in sorted(held - inside)).strip()
        if held:
            supervised = bool(held & inside) and not outside
            assert row.labels[token] == (row.ids[token] if supervised else IGNORED)
            assert (token in row.straddling) == (bool(held & inside) and bool(outside))


@pytest.fixture(scope="module")
def words_tokenizer():
    """A Metaspace BPE with bytes to fall back on, as of Llama-2, Mistral and Gemma."""
    core = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    core.decoder = decoders.Sequence(steps)
    special = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "[INST]"]
    words = ["Question Alfa? Answer Bravo. user assistant system", "It is so, grüße 你好 don't!"]
    core.train_from_iterator(words * 20, BpeTrainer(vocab_size=600, special_tokens=special))
    trained = json.loads(core.to_str())
    vocabulary = trained["model"]["vocab"]
    vocabulary |= {f"<0x{byte:02X}>": len(vocabulary) + byte for byte in range(256)}
    core = Tokenizer.from_str(json.dumps(trained))
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>")


@pytest.fixture(params=["toy", "words"])
def tokenizer(request):
    """One of bytes, as of GPT-2, Llama-3 and Qwen, and one of words."""
    return request.getfixturevalue(f"{request.param}_tokenizer")


@pytest.mark.parametrize("name", TOYS)
def test_exactly_the_answers_and_their_ends_are_supervised(name):
    messages = said(*TOYS[name]["said"], system=TOYS[name].get("system"))
    found = assistant_spans(template_of(name), messages)
    assert marked(found) == TOYS[name]["expected"]
    assert found.text == template_of(name).render(messages)
    assert {messages[span.message]["role"] for span in found.spans} == {"assistant"}


def left_of(template, name, messages, index):
    """What a template leaves of a content: its render tells whether white space counts."""
    whole, content = template.render(form(name, messages)), messages[index]["content"]

    def counts(other):
        changed = list(messages)
        changed[index] = messages[index] | {"content": other}
        return template.render(form(name, changed)) != whole

    kept = content if counts(content.lstrip()) else content.lstrip()
    return kept if counts(content.rstrip()) else kept.rstrip()


REFUSED = [("roles must alternate", "system"), ("gemma", "system"), ("gemma_training", "system")]


@pytest.mark.parametrize("kind", CHATS)
@pytest.mark.parametrize("name", [*(n for n in TOYS if "ends" in TOYS[n]), *INSTALLED])
def test_each_kind_of_conversation_is_masked_by_each_template(name, kind, words_tokenizer):
    template, messages, ends = template_of(name), chat(kind), ends_of(name)
    if (name, kind) in REFUSED:
        with pytest.raises(TemplateError, match=r"refuses .*(must alternate|System role not)"):
            assistant_spans(template, form(name, messages))
        return
    found, wanted, at = assistant_spans(template, form(name, messages)), [], 0
    for index, message in enumerate(messages):
        if message["role"] != "system":
            kept = left_of(template, name, messages, index)
            start = found.text.index(kept, at)
            at = start + len(kept)
        if message["role"] == "assistant":
            end = ends[index == len(messages) - 1]
            assert found.text.startswith(end, at)
            at += len(end)
            wanted.append((start, at, index))
    assert places(found) == wanted
    assert found.end_of_turn == (ends[0].strip() or None)
    turn_end = find_turn_end(template)
    assert (turn_end.middle or "", turn_end.last or "") == ends
    assert turn_end.borrowed == (name == "glm4moe")
    check_tokens(labels(words_tokenizer, form(name, messages), template=template), wanted)


THINKING = ("qwen3", "glm4moe", "deepseek", "nemotron", "lfm2_2_5", "gptoss", "muse", "gemma4")


@pytest.mark.parametrize("name", [name for name in INSTALLED if name.startswith(THINKING)])
def test_thoughts_in_the_content_never_move_a_mask(name):
    thoughts = ("<think>\nAlfa\n</think>\n\nBravo", "<think>\nEcho\n</think>\n\nFoxtrot")
    found = assistant_spans(template_of(name), said("Q", thoughts[0], "Q", thoughts[1]))
    first, last = (found.text[span.start : span.end] for span in found.spans)
    assert "Bravo" in first
    assert last.lstrip().startswith(("<think>", "Foxtrot"))
    assert "Foxtrot" in last
    assert "Q" not in first + last


MARKS_MORE = {
    name: (group["before"], group["behind"])
    for group in TRL["marks_more"]
    for name in group["templates"]
}
MARKED = [name for name in INSTALLED if re.search(r"\{%-?\s*generation", template_of(name).text)]


@pytest.mark.parametrize("kind", ["single", "three", "unicode"])
@pytest.mark.parametrize("name", MARKED)
def test_from_the_generation_prompt_on_the_mask_is_that_of_trl(name, kind, toy_tokenizer):
    template, messages = template_of(name), form(name, chat(kind))
    asked = {"chat_template": template.text, "return_assistant_tokens_mask": True}
    text, (marks,) = render_jinja_template([messages], bos_token="<s>", eos_token="</s>", **asked)
    theirs = []
    for start, end in marks:
        if theirs and theirs[-1][1] == start:
            start = theirs.pop()[0]
        theirs.append((start, end))
    found = assistant_spans(template, messages, start="generation")
    assert found.text == text[0]
    before, behind = MARKS_MORE.get(name, ("", ""))
    for (start, end), span in zip(theirs, found.spans, strict=True):
        assert start <= span.start < span.end <= end
        assert found.text[start : span.start] == before
        assert re.fullmatch(behind, found.text[span.end : end])
    if name not in MARKS_MORE:  # then the labels are the same, token by token
        row = labels(toy_tokenizer, messages, template=template.text, start="generation")
        trl = toy_tokenizer.apply_chat_template(messages, return_dict=True, **asked)
        assert row.ids == trl["input_ids"]
        assert [int(label != IGNORED) for label in row.labels] == trl["assistant_masks"]


TWO = said("Q", "One.", "Q", "Two.")
UNTRAINED = [TWO[0], TWO[1] | {"train": False}, *TWO[2:]]
CALLING = (
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
TRIMMED = TOYS["contents are trimmed"]["template"]
BEGUN = "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n"
LAST_ONLY = f"{BEGUN}One.<|im_end|>\n{BEGUN}⟦Two.<|im_end|>⟧\n"
GENERATION = {"start": "generation"}
OPTIONS = {
    "last": (CHATML, TWO, {"turns": "last"}, LAST_ONLY),
    "no end": (CHATML, TWO[:2], {"end_of_turn": False}, f"{BEGUN}⟦One.⟧<|im_end|>\n"),
    "untrained": (CHATML, UNTRAINED, {}, LAST_ONLY),
    "tools": ("{{ tools | tojson }}" + CHATML, TWO[:2], {"tools": [{"name": "One."}]},
        f'[{{"name": "One."}}]{BEGUN}⟦One.<|im_end|>⟧\n'),
    "calls": (CALLING, TOOL_TALK, GENERATION,
        f"{BEGUN}⟦<think>\nso\n</think>\n{CALLED}<|im_end|>⟧\n"
        "<|im_start|>tool\n7<|im_end|>\n<|im_start|>assistant\n⟦Seven.<|im_end|>⟧\n"),
    "thoughts alone": (CALLING, [TWO[0], TOOL_TALK[1] | {"tool_calls": None}], {"append_eos": True},
        f"{BEGUN}⟦<think>\nso\n</think>\n<|im_end|>⟧\n"),
    "thoughts": (THINKING_PROMPT, TWO, GENERATION,
        "<user>Q</s><assistant>⟦One.</s>⟧<user>Q</s><assistant><think>\n⟦\n</think>\nTwo.</s>⟧"),
    "eos": (ENDLESS, TWO, {"append_eos": True},
        "### Instruction:\nQ\n\n### Response:\n⟦One.⟧\n\n"
        "### Instruction:\nQ\n\n### Response:\n⟦Two.</s>⟧"),
    "ended": (TRIMMED, TWO, {"append_eos": True},
        "<s><|user|>\nQ<|end|>\n<|assistant|>\n⟦One.<|end|>⟧\n"
        "<|user|>\nQ<|end|>\n<|assistant|>\n⟦Two.<|end|>⟧\n"),
}  # fmt: skip


@pytest.mark.parametrize("case", OPTIONS)
def test_options_choose_what_is_supervised(case):
    template, messages, options, expected = OPTIONS[case]
    template = with_tokens(template)
    found = marked(assistant_spans(template, messages, **options))
    assert found.endswith(expected)
    assert found.count("⟦") == expected.count("⟦")


WARNINGS = {
    "no end": (ENDLESS, TWO, ["nothing ends the turn of messages 1, 3", "append_eos=True"]),
    "empty": (CHATML, said("Q", "", "Q", "Two."), ["of messages 1", "start='generation'"]),
    "calls": (CHATML, [TOOL_TALK[0], TOOL_TALK[1] | {"reasoning_content": None}, *TOOL_TALK[2:]],
        ["of messages 1", "such as qwen3"]),
}  # fmt: skip


@pytest.mark.parametrize("case", WARNINGS)
def test_a_warning_says_what_is_not_learned(case):
    template, messages, expected = WARNINGS[case]
    found = assistant_spans(template, messages)
    assert all(words in found.warnings[0] for words in expected)


def test_a_span_of_the_content_leaves_the_calls_after_it_and_says_so():
    called = {**ASKED[1], "content": "I look."}
    how = {"start": "content", "append_eos": True}
    found = assistant_spans("qwen3", [ASKED[0], called], **how)
    assert JSON_CALL in found.text
    assert [found.text[span.start : span.end] for span in found.spans] == ["I look."]
    assert "tool calls of messages 1 are not learned" in found.warnings[0]


WEATHER = {"name": "weather", "arguments": {"town": "Bern", "days": 3}}
ASKED = [
    {"role": "user", "content": "Sky?"},
    {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": WEATHER}]},
    {"role": "tool", "content": "Grey", "tool_call_id": "call00001", "name": "weather"},
    {"role": "assistant", "content": "It is grey."},
]
JSON_CALL = '{"name": "weather", "arguments": {"town": "Bern", "days": 3}}'
GEMMA_CALL = '<|tool_call>call:weather{days:3,town:<|"|>Bern<|"|>}<tool_call|>'
CALLS = {
    "qwen3": [
        f"<tool_call>\n{JSON_CALL}\n</tool_call><|im_end|>",
        "<think>\n\n</think>\n\nIt is grey.<|im_end|>",
    ],
    "llama3_1": [
        JSON_CALL.replace("arguments", "parameters") + "<|eot_id|>",
        "It is grey.<|eot_id|>",
    ],
    "gptoss": [
        " to=functions.weather<|channel|>commentary json<|message|>"
        '{"town": "Bern", "days": 3}<|call|>',
        "<|channel|>final<|message|>It is grey.<|return|>",
    ],
    "glm4moe": [
        "\n<think></think>\n<tool_call>weather\n<arg_key>town</arg_key>\n<arg_value>Bern</arg_value>\n"
        "<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n</tool_call><|observation|>",
        "\n<think></think>\nIt is grey.</s>",
    ],
    "deepseekv3": [
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n"
        '{"town": "Bern", "days": 3}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>'
        "<｜end▁of▁sentence｜>",
        "It is grey.<｜end▁of▁sentence｜>",
    ],
    "gemma4": [f"{GEMMA_CALL}<|tool_response>", "It is grey.<turn|>"],
}


@pytest.mark.parametrize("name", CALLS)
def test_calls_are_learned_and_results_and_definitions_are_not(name):
    """Also of arguments as a JSON text, as APIs give them; what is learned was typed by hand."""
    tools = [
        {"type": "function", "function": {"name": "weather", "description": "", "parameters": {}}}
    ]
    as_text = json.loads(json.dumps(ASKED))
    as_text[1]["tool_calls"][0]["function"]["arguments"] = json.dumps(WEATHER["arguments"])
    for messages in (ASKED, as_text):
        found = assistant_spans(template_of(name), messages, tools=tools, append_eos=True)
        assert [found.text[span.start : span.end] for span in found.spans] == CALLS[name]
        assert [one.part for one in found.missing] == ["tool"] * (name == "deepseekv3")


def test_without_a_choice_a_span_begins_at_the_prompt_where_more_than_content_is_learned():
    kept = [TOOL_TALK[0], TOOL_TALK[1] | {"train": False}, *TOOL_TALK[2:]]
    reasons = [TWO[0], TWO[1] | {"thinking": "so"}, *TWO[2:]]
    for messages, turns, start in (
        (TOOL_TALK, "all", "generation"), (TOOL_TALK, "last", "content"),
        (kept, "all", "content"), (reasons, "all", "generation"), (TWO, "all", "content"),
    ):  # fmt: skip
        found = assistant_spans(THINKING_PROMPT + "{# #}", messages, turns=turns)
        assert found == assistant_spans(
            THINKING_PROMPT + "{# #}", messages, turns=turns, start=start
        )


REFUSALS = {
    "written twice": (
        "{% for m in messages %}{{ m.content }}|{{ m.content }}</s>{% endfor %}",
        TWO[:2], {}, "message 1 in more than one place"),
    "others' words inside": (
        "{% for m in messages if m.role == 'assistant' %}{{ m.content[:1] }}"
        "{{ messages[0].content }}{{ m.content[1:] }}</s>{% endfor %}",
        TWO[:2], {}, "in more than one place"),
    "result inside": (installed_templates()["gemma4"].read_text(encoding="utf-8"),
        [ASKED[0], ASKED[1] | {"content": "I look."}, *ASKED[2:]], {},
        "writes text of message 2 inside message 1"),
    "not followed": (
        "{% for m in messages %}{{ m.role }} {{ m.content | int }}\n{% endfor %}",
        said("4", "7"), {}, r"\(given text\).*at character 17.*'7\\n' became '0\\n'"),
    "every answer dropped": (
        "{% for m in messages %}{{ m.role }}</s>{% endfor %}", TWO[:2], {}, "list of parts"),
    "refused": (TOYS["roles must alternate"]["template"], TWO[1:], {},
        "row 0: .*roles must alternate"),
    "no answer": (CHATML, TWO[:1], {}, "row 0 has no supervised token"),
    "train": (CHATML, [TWO[0], TWO[1] | {"train": "no"}], {}, "train of a message is 'no'"),
    "max_length": (CHATML, TWO, {"max_length": 0}, "max_length is 0 tokens"),
    "turns": (CHATML, TWO, {"turns": "first"}, "turns is 'first'"),
    "start": (CHATML, TWO, {"start": "header"}, "start is 'header'"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_what_cannot_be_masked_is_refused_and_named(toy_tokenizer, case):
    template, messages, options, message = REFUSALS[case]
    kind = MaskError if case == "no answer" else ValueError
    with pytest.raises(kind, match=message):
        labels(toy_tokenizer, messages, template=template, **options)


PIECES = [*"ab .\n\t<|>é你👩\u200d", "<|im_end|>", "</think>", "assistant\n"]
CONTENT = st.lists(st.sampled_from(PIECES), min_size=1, max_size=8).map("".join).filter(str.strip)
CONTENTS = st.lists(CONTENT, min_size=2, max_size=6).filter(lambda c: len(c) % 2 == 0)


@pytest.mark.parametrize("trims", [False, True])
@settings(deadline=None)
@given(contents=CONTENTS)
def test_any_conversation_is_masked_as_it_is_built(toy_tokenizer, words_tokenizer, trims, contents):
    template, begin, header, end = CHATML, "", "<|im_start|>{}\n", "<|im_end|>"
    if trims:
        template, begin, header, end = TRIMMED, "<s>", "<|{}|>\n", "<|end|>"
    text, wanted = begin, []
    for index, content in enumerate(map(str.strip, contents) if trims else contents):
        text += header.format(("user", "assistant")[index % 2])
        if index % 2:
            wanted.append((len(text), len(text + content + end), index))
        text += content + end + "\n"
    template = with_tokens(template)
    found = assistant_spans(template, said(*contents))
    assert (found.text, places(found)) == (text, wanted)
    if not trims:  # the one that writes a generation prompt
        generation = assistant_spans(template, said(*contents), start="generation")
        assert generation.spans == found.spans
    for tokenizer in (toy_tokenizer, words_tokenizer):
        row = labels(tokenizer, said(*contents), template=CHATML, on_empty="keep")
        check_tokens(row, places(row))


def test_labels_of_five_tokens_by_hand(toy_tokenizer):
    row = labels(toy_tokenizer, said("yes", "Student"), template=CHATML)
    tokens = ["<|im_start|>", "us", "er", "Ċ", "yes", "<|im_end|>", "Ċ"]
    assert toy_tokenizer.convert_ids_to_tokens(row.ids[:7]) == tokens
    learned = toy_tokenizer.convert_tokens_to_ids(["Student", "<|im_end|>"])
    ignored = len(row.ids) - 3
    assert row.labels == [IGNORED] * ignored + learned + [IGNORED]
    assert row.supervised == 2
    assert toy_tokenizer.decode(row.ids) == row.text


def test_a_token_that_reaches_over_white_space_is_supervised_whole(words_tokenizer):
    template = (
        "{% for m in messages %}{% if m.role == 'user' %}[INST]{{ m.content }}:"
        "{% else %} {{ m.content }}</s>{% endif %}{% endfor %}"
    )
    row = labels(words_tokenizer, said("yes", "Answer"), template=template)
    first, last = next(o for o, label in zip(row.offsets, row.labels, strict=True) if label > 0)
    assert row.text[first:last].startswith(" A")
    assert row.text[row.spans[0].start :] == "Answer</s>"
    assert row.straddling == ()


def test_a_token_that_holds_a_part_of_the_header_is_listed_and_not_supervised(toy_tokenizer):
    template = "{% for m in messages %}{{ m.role }} Que{{ m.content }}</s>{% endfor %}"
    row = labels(toy_tokenizer, said("x", "stion so"), template=template)
    (token,) = row.straddling
    first, last = row.offsets[token]
    assert row.text[first:last] == " Question"
    assert row.labels[token] == IGNORED
    assert row.labels[token + 1] == row.ids[token + 1]


def test_ids_are_those_of_the_tokenizer_with_one_bos_and_each_row_s_tools(tokenizer):
    template = "{{ bos_token }}{{ tools | tojson if tools }}" + CHATML
    rows = [said("Question Alfa?", "It is so."), said("no", "yes", "Q", "grüße 你好")]
    made = label_rows(tokenizer, rows, template=template)
    wanted = tokenizer.apply_chat_template(rows, chat_template=template)["input_ids"]
    assert [row.ids for row in made] == wanted
    assert [row.ids.count(tokenizer.bos_token_id) for row in made] == [1, 1]
    rows = [{"messages": said("Q", "no"), "tools": [{"name": name}]} for name in "ab"]
    made = label_rows(tokenizer, rows, template=template)
    assert ['{"name": "a"}' in row.text for row in made] == [True, False]
    assert label_rows(tokenizer, [], template=template) == []


def test_truncation_is_counted_and_a_row_that_lost_its_answer_is_named(toy_tokenizer):
    messages = said("yes", "no", "yes", "It is so.")
    whole = labels(toy_tokenizer, messages, template=CHATML)
    last = max(i for i, label in enumerate(whole.labels) if label != IGNORED)
    cut = labels(toy_tokenizer, messages, template=CHATML, max_length=last)
    assert (cut.ids, cut.labels) == (whole.ids[:last], whole.labels[:last])
    assert (cut.removed, whole.removed) == (1, 0)
    rows = [said("no", "Student"), said("It is so, and not so; " * 9, "Student")]
    with pytest.raises(MaskError, match=r"row 1 .* truncation to 30 tokens removed all 2"):
        label_rows(toy_tokenizer, rows, template=CHATML, max_length=30)
    kept = label_rows(toy_tokenizer, rows, template=CHATML, max_length=30, on_empty="keep")
    assert [row.supervised for row in kept] == [2, 0]
