"""Templates render as in transformers, are found by name, and name the lines of their errors."""

import json

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from sftlab.chat import (
    FAMILIES,
    Template,
    TemplateError,
    find_template,
    frozen_clock,
    installed_templates,
)

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
        template.text, messages, tools=TOOLS, add_generation_prompt=prompt,
        bos_token="<s>", eos_token="</s>",
    )  # fmt: skip
    assert template.render(messages, tools=TOOLS, add_generation_prompt=prompt) == expected
    assert "Ho" in expected


@pytest.mark.parametrize(
    "text",
    [
        "{% for m in messages %}\n  {% if m.role == 'user' %}\n{{ m.content }}\n  {% endif %}\n"
        "{% endfor %}",
        "{{ messages | tojson }}{{ {'ü': '<'} | tojson(indent=2, sort_keys=true) }}",
        "{{ messages | tojson(ensure_ascii=true, separators=(',', ':')) }}",
        "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m.role }}{% break %}"
        "{% endfor %}",
        "{% set a = 1 %}{% generation %}{% set a = 2 %}{{ a }}{% endgeneration %}{{ a }}",
        "{% set ns = namespace(self=1, n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}"
        "{% endfor %}{{ ns.n }}{{ ns.self }}",
        "{{ dict(a=1) }}{{ dict.fromkeys([1]) }}{{ tools is none }}{{ documents is none }}",
        "{{ messages[1].reasoning_content }}{{ messages[1].thinking }}{{ 'name' in messages[1] }}",
        "{{ missing }}{{ bos_token is defined }}",
    ],
)
def test_the_language_is_that_of_transformers(text):
    expected = theirs(text, CHAT, bos_token="", eos_token="")
    assert find_template(text).render(CHAT) == expected


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("{{ ''.__class__.__mro__ }}{{ messages.__class__() }}", "SecurityError"),
        ("{% set _ = messages.append(1) %}", "SecurityError"),
        ("{% set ns = namespace(_a=1) %}", "SecurityError"),
        ("{% set ns = namespace() %}{% set ns._a = 1 %}", "SecurityError"),
    ],
)
def test_templates_stay_in_the_sandbox(text, error):
    with pytest.raises(TemplateError, match=error):
        find_template(text).render(CHAT)


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


def test_a_syntax_error_names_template_and_line():
    with pytest.raises(
        TemplateError, match=r"\(given text\) is not valid Jinja: line 3: .*`\{% if`"
    ):
        find_template("{{ 1 }}\n\n{% if")


def test_a_refusal_names_the_line_and_what_the_template_says():
    template = Template(
        name="strict", text="\n{% if 1 %}\n{{ raise_exception('no!') }}\n{% endif %}"
    )
    with pytest.raises(TemplateError, match=r"strict refuses this conversation at line 3 .*: no!;"):
        template.render(CHAT)


def test_a_failure_inside_a_macro_names_the_macros_line():
    template = Template(
        name="deep", text="{% macro f(x) %}\n{{ x + 1 }}\n{% endmacro %}\n\n{{ f('a') }}"
    )
    with pytest.raises(
        TemplateError, match=r"deep fails at line 2 \(`\{\{ x \+ 1 \}\}`\): TypeErr"
    ):
        template.render(CHAT)


def test_a_name_that_is_no_text_is_refused():
    with pytest.raises(TemplateError, match="bos_token of a template is 1"):
        Template(name="x", text="", bos_token=1)


def test_the_clock_stands_still_where_it_is_asked_to():
    template = find_template("{{ strftime_now('%f') }}")
    with frozen_clock():
        assert len({template.render(CHAT) for _ in range(50)}) == 1


def test_families_bring_their_published_tokens():
    found = find_template("llama-3")
    assert (found.name, found.bos_token) == ("llama-3", FAMILIES["llama-3"].bos_token)
    assert find_template("llama-3", bos_token="<s>").bos_token == "<s>"


def test_the_tokenizers_tokens_go_before_the_familys(tokenizer):
    assert find_template("mistral", tokenizer=tokenizer).eos_token == tokenizer.eos_token
    assert find_template("chatml", tokenizer=tokenizer).eos_token == "</s>"


def test_the_tokenizers_own_template(bytes_tokenizer):
    with pytest.raises(TemplateError, match="has no chat template"):
        find_template(tokenizer=bytes_tokenizer)
    with pytest.raises(TemplateError, match="give a name, a file, or a tokenizer"):
        find_template()


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
    ("name", "content", "message"),
    [
        ("tokenizer_config.json", "{}", "has no chat template"),
        ("tokenizer_config.json", "{", "is not valid JSON"),
        ("tokenizer_config.json", "[]", "holds a list"),
        ("tokenizer_config.json", '{"chat_template": {"rag": "x"}}', "rag and no default"),
    ],
)
def test_broken_files_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(TemplateError, match=message):
        find_template(tmp_path / name)


def test_a_file_that_is_no_text_is_named(tmp_path):
    (tmp_path / "a.jinja").write_bytes(b"\xff\xfe")
    with pytest.raises(TemplateError, match=r"a\.jinja is not UTF-8"):
        find_template(tmp_path / "a.jinja")


def test_an_unknown_name_lists_the_families(tmp_path):
    with pytest.raises(TemplateError, match=r"no chat template 'chatmel'.*chatml, llama-3"):
        find_template("chatmel")
    with pytest.raises(TemplateError, match="holds no chat template"):
        find_template(tmp_path)
