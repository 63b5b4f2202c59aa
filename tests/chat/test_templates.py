"""Templates render as in transformers, are found by name, and name the lines of their errors."""

import json

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment
from transformers.utils.chat_template_utils import render_jinja_template

from sftlab.chat import (
    FAMILIES,
    TemplateError,
    find_template,
    frozen_clock,
    installed_templates,
    trace,
)
from sftlab.chat.templates import jinja_environment

CHAT = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Ho", "reasoning": "so", "name": None},
]
TOOLS = [{"type": "function", "function": {"name": "f", "description": "", "parameters": {}}}]


def parts(messages):
    return [
        message | {"content": [{"type": "text", "text": message["content"]}]}
        for message in messages
    ]


def theirs(text, messages, **variables):
    """What transformers renders; `apply_chat_template` drops what is None beforehand."""
    plain = [{k: v for k, v in message.items() if v is not None} for message in messages]
    return render_jinja_template([plain], chat_template=text, **variables)[0][0]


@pytest.mark.parametrize("prompt", [False, True])
@pytest.mark.parametrize("name", sorted(installed_templates()))
def test_installed_templates_render_as_in_transformers(name, prompt):
    template = find_template(installed_templates()[name], bos_token="<s>", eos_token="</s>")
    wants_parts = name.startswith(("idefics3", "smolvlm", "llava_next"))
    messages = parts(CHAT) if wants_parts else CHAT
    expected = theirs(
        template.text,
        messages,
        tools=TOOLS,
        add_generation_prompt=prompt,
        bos_token="<s>",
        eos_token="</s>",
    )
    assert template.render(messages, tools=TOOLS, add_generation_prompt=prompt) == expected
    assert "Ho" in expected


def test_messages_are_prepared_as_in_transformers():
    text = (
        "{{ messages[1].reasoning_content }}{{ messages[1].thinking }}{{ 'name' in messages[1] }}"
        "{{ messages | tojson }}{{ documents is none }}"
        "{% generation %}{{ missing }}{{ bos_token is defined }}{% endgeneration %}"
    )
    assert find_template(text).render(CHAT) == theirs(text, CHAT, bos_token="", eos_token="")


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
    """Of transformers, whose environment is taken by a private name."""
    assert isinstance(jinja_environment(), ImmutableSandboxedEnvironment)
    with pytest.raises(TemplateError, match="SecurityError"):
        find_template(text).render(CHAT)
    with pytest.raises(TemplateError, match="SecurityError"):
        trace(find_template(text), CHAT)


def test_objects_are_not_handed_to_templates():
    class Rich(str):
        def save(self):
            return "saved"

    messages = [{"role": Rich("user"), "content": "Hi", "image": object(), "train": False}]
    text = (
        "{{ messages[0].role.save is defined }} {{ messages[0].image }} {{ messages[0] | length }}"
    )
    assert find_template(text).render(messages) == "False <object> 3"


def test_tools_may_be_functions():
    def double(x: int):
        """
        Doubles.

        Args:
            x: a number
        """

    shown = find_template("{{ tools[0].function.name }}").render(CHAT, tools=[double])
    assert shown == "double"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{ 1 }}\n\n{% if", r"\(given text\) is not valid Jinja: line 3: .*`\{% if`"),
        (
            "\n{% if 1 %}\n{{ raise_exception('no!') }}\n{% endif %}",
            r"refuses this conversation at line 3 .*: no!;",
        ),
        (
            "{% macro f(x) %}\n{{ x + 1 }}\n{% endmacro %}\n\n{{ f('a') }}",
            r"fails at line 2 \(`\{\{ x \+ 1 \}\}`\): TypeErr",
        ),
    ],
    ids=["syntax", "refusal", "in a macro"],
)
def test_an_error_names_the_line_and_what_is_wrong(text, message):
    with pytest.raises(TemplateError, match=message):
        find_template(text).render(CHAT)


def test_the_clock_stands_still_where_it_is_asked_to():
    template = find_template("{{ strftime_now('%f') }}")
    with frozen_clock():
        assert len({template.render(CHAT) for _ in range(50)}) == 1


def test_whose_special_tokens_count(tokenizer):
    found = find_template("llama-3")
    assert (found.name, found.bos_token) == ("llama-3", FAMILIES["llama-3"].bos_token)
    assert find_template("llama-3", bos_token="<s>").bos_token == "<s>"
    assert find_template("mistral", tokenizer=tokenizer).eos_token == tokenizer.eos_token
    assert find_template("chatml", tokenizer=tokenizer).eos_token == "</s>"
    assert find_template(found) == found


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jinja", "{{ eos_token }}"),
        ("chat_template.json", json.dumps({"chat_template": "{{ eos_token }}"})),
        ("tokenizer_config.json", json.dumps({
            "chat_template": [{"name": "default", "template": "{{ eos_token }}"},
                              {"name": "rag", "template": ""}],
            "eos_token": {"content": "<e>"},
        })),
    ],
)  # fmt: skip
def test_files_of_every_kind(tmp_path, name, content):
    config = {"eos_token": "<e>", "chat_template": "{{ 1 }}"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / name).write_text(content)
    assert find_template(tmp_path / name).render(CHAT) == "<e>"
    assert find_template(str(tmp_path / name)).eos_token == "<e>"
    if name != "a.jinja":
        assert find_template(tmp_path).render(CHAT) == "<e>"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{}", "has no chat template"),
        (b"{", "is not valid JSON"),
        (b"[]", "holds a list"),
        (b'{"chat_template": {"rag": "x"}}', "rag and no default"),
        (b"\xff\xfe", "is not UTF-8"),
    ],
)
def test_broken_files_are_named(tmp_path, content, message):
    file = tmp_path / "tokenizer_config.json"
    file.write_bytes(content)
    with pytest.raises(TemplateError, match=message):
        find_template(file)


def test_a_template_that_is_not_there_lists_the_families(tmp_path, bytes_tokenizer):
    with pytest.raises(TemplateError, match=r"no chat template 'chatmel'.*chatml, llama-3"):
        find_template("chatmel")
    with pytest.raises(TemplateError, match="holds no chat template"):
        find_template(tmp_path)
    with pytest.raises(TemplateError, match="has no chat template"):
        find_template(tokenizer=bytes_tokenizer)
    with pytest.raises(TemplateError, match="give a name, a file, or a tokenizer"):
        find_template()
