"""Texts that a template leaves out are found, and none that it writes in another place or form."""

from dataclasses import replace

import pytest

from sftlab.chat import Missing, TemplateError, assistant_spans, find_template
from sftlab.chat import installed_templates as installed

ARGUMENTS = {"town": 'Bern "Lima"', "parts": [{"deep": "Mike\nNine"}]}
CALL = {"id": "call00001", "type": "function", "function": {"name": "wind", "arguments": ARGUMENTS}}
TOOLS = [
    {"type": "function", "function": {"name": name, "description": words, "parameters": {}}}
    for name, words in (("wind", "Sierra tango"), ("rain", "Uniform victor"))
]
RESULT = {"role": "tool", "content": '{"sky": "Oscar \\"1\\""}', "tool_call_id": "call00001"}
RESULT |= {"name": "wind"}


def said(*contents, **more):
    """user, assistant, user, ...; `more` is for each assistant's message."""
    roles = ("user", "assistant")
    made = [{"role": roles[i % 2], "content": text} for i, text in enumerate(contents)]
    return [one | (more if one["role"] == "assistant" else {}) for one in made]


INLINE = "<think>\nGolf thought\n</think>\n\nBravo answer"
ROWS = {
    "system": [{"role": "system", "content": " Zulu system\n"}, *said("Alfa asks", "Bravo\n")],
    "inline": said("Alfa asks", INLINE, "Charlie asks", "<think>Hotel</think>Delta answer"),
    "reasoning": [
        *said("Alfa asks", "Bravo answer", reasoning_content="Golf so"),
        *said("Charlie asks", "Delta answer", reasoning_content="Hotel so"),
    ],
    "calls": [*said("Alfa asks", "", tool_calls=[CALL]), RESULT, said("", "Delta answer")[1]],
}
WORDS = "Zulu Alfa Bravo Charlie Delta Golf Hotel Oscar".split()


def absent(messages, tools, text):
    """What is missing, by words that stand in one place of a row and in no template."""
    for index, message in enumerate(messages):
        held = {"content": [word for word in WORDS if word in message["content"]]}
        held["reasoning"] = message.get("reasoning_content", "").split()[:1]
        held["tool call"] = ["Bern", "Lima", "Mike", "Nine"] * ("tool_calls" in message)
        yield from ((index, part) for part in held if not all(w in text for w in held[part]))
    yield from ((None, "tool") for tool in tools if tool["function"]["description"] not in text)


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("name", sorted(installed()))
def test_what_is_missing_is_what_the_render_does_not_hold(name, kind):
    template = replace(find_template(name), bos_token="<s>", eos_token="</s>")
    messages, tools = ROWS[kind], TOOLS if kind == "calls" else []
    if name.startswith(("idefics3", "smolvlm", "llava_next")):
        form = [m | {"content": [{"type": "text", "text": m["content"]}]} for m in messages]
    else:
        form = messages
    try:
        text = template.render(form, tools=tools)
    except TemplateError:
        return  # a refusal is not a silent loss
    found = assistant_spans(template, form, tools=tools)
    expected = sorted(absent(messages, tools, text), key=str)
    assert sorted(((one.message, one.part) for one in found.missing), key=str) == expected
    answers = {n for n, message in enumerate(messages) if message["role"] == "assistant"}
    assert all(one.learned == (one.message in answers) for one in found.missing)


TOLD = "{% for m in messages %}%s</s>{% endfor %}"
LONG = [{"role": "system", "content": "Answer briefly."}, *said("Who is it?", "It is me, Anna.")]
CASES = {
    "short words that the template writes": (
        "{% for m in messages[1:] %}{{ m.role }}: {{ m.content }}</s>{% endfor %}",
        [{"role": "system", "content": "user"}, *said("Hi", "Ho")], [(0, "content", "user")]),
    "moved to the end": (
        "{% for m in messages[1:] %}{{ m.content }}</s>{% endfor %}{{ messages[0].content }}",
        LONG, []),
    "cut in the middle": (
        TOLD.replace("%s", "{{ m.content | replace('me, ', '') }}"), LONG,
        [(2, "content", "me,")]),
    "can't be followed": (
        TOLD.replace("%s", "{{ m.content if m.role == 'assistant' else m.content | urlencode }}"),
        LONG, [(0, "content", "Answer briefly."), (1, "content", "Who is it?")]),
    "written as JSON": (
        TOLD.replace("%s", "{{ m.content | tojson }}"),
        said('Who says "it"?', 'It is me:\n"Anna".'), []),
    "a number of a call": (
        TOLD.replace("%s", "{{ m.content }}{% for c in m.tool_calls or () %}{{ c.function.name }}"
        "{% endfor %}"),
        said("Who?", "I.", tool_calls=[{"function": {"name": "look", "arguments": {"n": 317}}}]),
        [(1, "tool call", "317")]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_missing_texts_by_hand(case):
    text, messages, expected = CASES[case]
    found = assistant_spans(text, messages).missing
    assert [(one.message, one.part, one.text) for one in found] == expected


def test_a_tool_that_is_called_and_not_defined_is_missing():
    template = "{% for m in messages %}{{ m.content }}{{ m.tool_calls | string }}</s>{% endfor %}"
    talk = [*said("Alfa asks", "I look.", tool_calls=[CALL]), RESULT, said("", "Delta answer")[1]]
    found = assistant_spans(template, talk, tools=TOOLS, start="content").missing
    assert [(one.message, one.part, one.text, one.learned) for one in found] == [
        (None, "tool", "wind", False),
        (None, "tool", "rain", False),
    ]
    assert str(found[0]) == "tool: 'wind'"


def test_only_what_should_be_learned_is_marked_so():
    talk = said("Alfa asks", "Bravo", "Charlie asks", "Delta", reasoning_content="Golf so")
    found = assistant_spans("chatml", talk, turns="last").missing
    assert found == (
        Missing(1, "reasoning", "Golf so", False),
        Missing(3, "reasoning", "Golf so", True),
    )
    talk[3]["train"] = False
    assert [one.learned for one in assistant_spans("chatml", talk).missing] == [True, False]
