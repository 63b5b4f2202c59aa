"""Templates render as in transformers, are found by name, and name the lines of their errors.

The built-in families are checked character for character; at the end are texts that are followed
through a template.
"""

import copy
import json
import re
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import AutoTokenizer
from transformers.utils.chat_template_utils import render_jinja_template

from sftlab.chat import (
    FAMILIES,
    TemplateError,
    assistant_spans,
    examine,
    find_template,
    installed_templates,
    setup_tokenizer,
    trace,
)
from sftlab.paths import DATA


def said(*turns):
    """Messages from `role: content` lines; u, a and s are short for user, assistant, system."""
    names = {"u": "user", "a": "assistant", "s": "system"}
    parts = (turn.split(": ", 1) for turn in turns)
    return [{"role": names[role], "content": content} for role, content in parts]


CHAT = said("u: Hi", "a: Ho", "u: And?", "a: Yes")
SYSTEM = said("s: Be brief.") + CHAT
REASONED = [CHAT[0], CHAT[1] | {"reasoning": "so", "name": None}]
TOOLS = [{"type": "function", "function": {"name": "f", "description": "", "parameters": {}}}]
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
FORMS = tomllib.loads(Path(__file__).with_name("written.toml").read_text(encoding="utf-8"))


def rendered(text, messages, **variables):
    """The text that transformers makes of a template, and the character spans that it marks."""
    # `apply_chat_template` drops what is None beforehand.
    plain = [{k: v for k, v in message.items() if v is not None} for message in messages]
    asked = {"return_assistant_tokens_mask": not variables.get("add_generation_prompt")}
    texts, marked = render_jinja_template([plain], chat_template=text, **asked, **variables)
    return texts[0], marked[0] if marked else []


def of_family(name, messages):
    family = FAMILIES[name]
    tokens = {"bos_token": family.bos_token, "eos_token": family.eos_token}
    return rendered(family.text, messages, **tokens)


@pytest.mark.parametrize("prompt", [False, True])
@pytest.mark.parametrize("name", sorted(installed_templates()))
def test_installed_templates_render_as_in_transformers(name, prompt):
    messages, options = REASONED, {"tools": TOOLS, "add_generation_prompt": prompt}
    if name.startswith(("idefics3", "smolvlm", "llava_next")):
        messages = [m | {"content": [{"type": "text", "text": m["content"]}]} for m in REASONED]
    template = replace(find_template(name), **TOKENS)
    expected = rendered(template.text, messages, **options, **TOKENS)[0]
    assert template.render(messages, **options) == expected
    assert "Ho" in expected


def test_messages_are_prepared_as_in_transformers():
    text = (
        "{{ messages[1].reasoning_content }}{{ messages[1].thinking }}{{ 'name' in messages[1] }}"
        "{{ messages | tojson }}{{ documents is none }}"
        "{% generation %}{{ missing }}{{ bos_token is defined }}{% endgeneration %}"
    )
    tokens = {"bos_token": "", "eos_token": ""}
    assert find_template(text).render(REASONED) == rendered(text, REASONED, **tokens)[0]


@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__.__mro__ }}{{ messages.__class__() }}",
        "{% set _ = messages.append(1) %}",
        "{% set ns = namespace(_a=1) %}",
        "{% set ns = namespace() %}{% set ns._a = 1 %}",
    ],
)
def test_templates_stay_in_the_sandbox(text):
    with pytest.raises(TemplateError, match="SecurityError"):
        find_template(text).render(CHAT)
    with pytest.raises(TemplateError, match="SecurityError"):
        trace(find_template(text), CHAT)


FAILING = {
    "syntax": ("{{ 1 }}\n\n{% if", r"\(given text\) is not valid Jinja: line 3: .*`\{% if`"),
    "refusal": (
        "\n\n{{ raise_exception('no!') }}",
        r"refuses this conversation at line 3 .*: no!;",
    ),
    "in a macro": (
        "{% macro f(x) %}\n{{ x + 1 }}\n{% endmacro %}\n\n{{ f('a') }}",
        r"fails at line 2 \(`\{\{ x \+ 1 \}\}`\): TypeErr",
    ),
}


@pytest.mark.parametrize("case", FAILING)
def test_an_error_names_the_line_and_what_is_wrong(case):
    text, message = FAILING[case]
    with pytest.raises(TemplateError, match=message):
        find_template(text).render(CHAT)


def test_whose_special_tokens_count(toy_tokenizer):
    found = find_template("llama-3")
    assert (found.name, found.bos_token) == ("llama-3", FAMILIES["llama-3"].bos_token)
    assert find_template("mistral", tokenizer=toy_tokenizer).eos_token == toy_tokenizer.eos_token
    assert find_template(found) == found


NAMED = [{"name": "default", "template": "{{ eos_token }}"}, {"name": "rag", "template": ""}]
FILES = {
    "a.jinja": "{{ eos_token }}",
    "chat_template.json": json.dumps({"chat_template": "{{ eos_token }}"}),
    "tokenizer_config.json": json.dumps({"chat_template": NAMED, "eos_token": {"content": "<e>"}}),
}


@pytest.mark.parametrize("name", FILES)
def test_files_of_every_kind(tmp_path, name):
    config = {"eos_token": "<e>", "chat_template": "{{ 1 }}"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / name).write_text(FILES[name])
    assert find_template(tmp_path / name).render(CHAT) == "<e>"
    assert find_template(str(tmp_path / name)).eos_token == "<e>"
    if name != "a.jinja":
        assert find_template(tmp_path).render(CHAT) == "<e>"


BROKEN = {
    b"{}": "there is no chat template",
    b"{": "is not valid JSON",
    b"[]": "holds a list",
    b'{"chat_template": {"rag": "x"}}': "rag and no default",
    b"\xff\xfe": "is not UTF-8",
    b'{"chat_template": "x", "bos_token": {"a": 1}}': "bos_token in .* must be a text",
}


@pytest.mark.parametrize("content", BROKEN, ids=BROKEN.values())
def test_broken_files_are_named(tmp_path, content):
    file = tmp_path / "tokenizer_config.json"
    file.write_bytes(content)
    with pytest.raises(TemplateError, match=BROKEN[content]):
        find_template(file)


def test_a_template_that_is_not_there_lists_the_families(tmp_path, toy_tokenizer):
    with pytest.raises(TemplateError, match=r"no chat template 'chatmel'.*chatml, llama-3"):
        find_template("chatmel")
    with pytest.raises(TemplateError, match="there is no chat template"):
        find_template("x" * 9_999)
    with pytest.raises(TemplateError, match="there is no chat template"):
        find_template(tmp_path)
    with pytest.raises(TemplateError, match="has no chat template"):
        find_template(tokenizer=toy_tokenizer)
    with pytest.raises(TemplateError, match="give a name, a file, or a tokenizer"):
        find_template()


OWN = {
    "chatml": "<|im_end|>",
    "phi3": "<|end|>",
    "cohere2": "<|END_OF_TURN_TOKEN|>",  # the last of the two tokens that end a turn
    "alpaca": "<|endoftext|>",
}


@pytest.mark.parametrize("name", OWN)
def test_the_tokenizer_s_own_template_stays_and_gets_only_what_it_needs(toy_tokenizer, name):
    tokenizer = copy.deepcopy(toy_tokenizer)
    with pytest.raises(TemplateError, match="'own' is the tokenizer's"):
        find_template("own")
    for use in (lambda: find_template("own", tokenizer=tokenizer), lambda: setup(tokenizer)):
        with pytest.raises(TemplateError, match=r"the tokenizer of .* has no chat template"):
            use()
    text = "{# mine #}" + find_template(name).text
    tokenizer.chat_template = text
    tokenizer.eos_token = "<|endoftext|>"
    tokenizer.add_special_tokens({"additional_special_tokens": [OWN[name]]})
    size = len(tokenizer)
    assert setup(tokenizer) == []
    assert (tokenizer.chat_template, tokenizer.eos_token) == (text, OWN[name])
    assert tokenizer.pad_token not in (None, OWN[name])
    assert len(tokenizer) == size
    found = find_template("own", tokenizer=tokenizer)
    assert (found, found.eos_token) == (find_template(tokenizer=tokenizer), OWN[name])
    assert dict(found.variables)["pad_token"] == tokenizer.pad_token


def setup(tokenizer):
    return setup_tokenizer(tokenizer, template="own")


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_written_and_marked_and_masked(name):
    """Two ways to the same spans: the marks of the template, and the lab's masks without them."""
    shown, spans = of_family(name, CHAT)
    for start, end in reversed(spans):
        shown = f"{shown[:start]}[{shown[start:end]}]{shown[end:]}"
    assert shown == FORMS[name]["written"]
    template = find_template(name)
    for messages in (CHAT, said("u: Ho", "a: Ho"), said("u: Ü 🙂", "a: a\nb </b>", "u: x", "a: x")):
        text, marked = of_family(name, messages)
        assert template.render(messages) == text
        found = assistant_spans(template, messages)
        assert [(span.start, span.end) for span in found.spans] == marked
        assert found.end_of_turn == FAMILIES[name].end()
        assert found.warnings == ()


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("own", [False, True], ids=["toy", "tiny"])
def test_the_prompt_s_tokens_are_those_of_training_or_the_doctor_says_so(name, own, toy_tokenizer):
    """What the model is shown at each step is how the finished conversation begins.

    A space that ends the prompt would cut the token that begins the answer in two, and the toy's
    vocabulary has a token of two line breaks, as those of most models.
    """
    tokenizer = toy_tokenizer
    if own:
        tokenizer = AutoTokenizer.from_pretrained(DATA / "models" / "tiny")
    template = find_template(name, tokenizer=tokenizer)
    answers = ["a: Paris", "a: the euro.", "a: 12", "a: - one\n- two"]
    messages = said(*(turn for answer in answers for turn in ("u: What is it?", answer)))

    def ids(count, **options):
        text = template.render(messages[:count], **options)
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    trained, same = ids(len(messages)), []
    for turn in range(1, len(messages), 2):
        prompt, answered = ids(turn, add_generation_prompt=True), ids(turn + 1)
        assert trained[: len(answered)] == answered
        same.append(answered[: len(prompt)] == prompt)
        assert len(answered) > len(prompt) + 1
    problems = examine(template, tokenizer=tokenizer).problems
    found = [one for one in problems if one.code == "prompt-tokens"]
    assert all(same) == (not found)
    assert bool(found) == (name == "llama-3" and not own)
    if found:
        assert r"ends in the tokens '\n\n'" in found[0].what
        assert r"where training has '\n', '\n'" in found[0].what


@pytest.mark.parametrize("name", FAMILIES)
def test_system_message_is_rendered_or_refused(name):
    if "with_system" in FORMS[name]:
        whole, _ = of_family(name, SYSTEM)
        assert whole.startswith(FORMS[name]["with_system"])
        assert whole.count("Be brief.") == 1
        assert whole.endswith(of_family(name, CHAT)[0][-20:])
    else:
        with pytest.raises(Exception, match="before the user's message"):
            of_family(name, SYSTEM)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_role_without_a_place_is_refused_and_never_dropped(name):
    messages = [*CHAT[:2], {"role": "tool", "content": "42 degrees"}]
    if name in ("chatml", "llama-3"):  # any role is a header there
        assert re.search("tool(<.*>)?\n+42 degrees", of_family(name, messages)[0])
    else:
        with pytest.raises(Exception, match=r"tool|alternate"):
            of_family(name, messages)


@pytest.mark.parametrize("name", FAMILIES)
def test_special_tokens_are_written_and_are_all_markers(name):
    """The eos of another tokenizer ends the turns that eos ends, and its bos begins the text."""
    family = FAMILIES[name]
    text, spans = rendered(family.text, CHAT, bos_token="<B>", eos_token="<E>")
    assert all(text[:stop].endswith(family.end("<E>")) for _, stop in spans)
    assert ("<E>" in text) == (family.end_of_turn is None)
    assert text.startswith("<B>") == family.writes_bos
    assert text.count("<B>") == family.writes_bos
    text, _ = of_family(name, SYSTEM if "with_system" in FORMS[name] else CHAT)
    assert all(token in text for token in family.control_tokens)
    markers = set(re.findall(r"<\|?\w+\|?>|</s>|\[/?INST\]", text))
    assert markers <= {*family.control_tokens, family.bos_token, family.eos_token}
    assert family.end_of_turn in (None, *family.control_tokens)


FOLLOWED = """a | trim;a.lstrip(' a');a.rstrip();a.removeprefix('ab');a.removesuffix(' b');a[1:4];
a[::-1];a.split()[-1];a.split('b', 1)[1];a.rsplit('b', 1)[0];a.rpartition('<')[2];a.splitlines()[0];
a.replace('ab', '<n>');a.replace('a', 'bb', 1);a | upper;a.title();a.swapcase();'x' + a;a ~ 'x';
a if a.startswith(('<', ' ')) else '';a if a.find('b') > 1 else '';a | tojson;[a] | string;
a if 'ab' in a and a.count('a') > 1 and not a.isspace() else ''"""


@pytest.mark.parametrize("expression", FOLLOWED.replace("\n", "").split(";"))
def test_what_a_template_does_with_a_content_is_followed(expression):
    """`trace` compares its second render with the real one, and refuses where they differ."""
    text = "{% for m in messages %}{% set a = m.content %}{{ EXPRESSION }}</s>{% endfor %}"
    template = find_template(text.replace("EXPRESSION", expression))
    messages = said("u: Who?ab, b", 'a:  ab <b> ÖÄab\nab\'s 🙂 "b" b')
    traced = trace(template, messages)
    assert traced.text == template.render(messages)
    assert {piece.message for piece in traced.pieces} == {1}


def test_objects_are_not_handed_to_templates(tmp_path):
    messages = [{"role": "user", "content": "Hi", "file": tmp_path / "written"}]
    text = "{{ messages[0].file }}{{ messages[0].file.write_text('x') }}"
    with pytest.raises(TemplateError, match="write_text"):
        find_template(text).render(messages)
    assert not messages[0]["file"].exists()
