"""A template that never ends, or writes without end, is refused in one line."""

import time

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from sftlab.chat import Template, TemplateError, find_template, trace

CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
DOUBLED = (
    "{%% set n = namespace(x=1) %%}{%% for i in range(99) %%}{%% set n.x = %s %%}{%% endfor %%}"
)
GREEDY = {
    "ranges": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "lazy": "{{ ([range(99999)] * 9999)|map('list')|map('sum')|list }}",
    "times": "{{ 'x' * 10**9 }}",
    "power": "{{ 10**10**8 // 10**99999999 }}",
    "method": "{{ 'x'.ljust(999999999) }}",
    "tojson": "{{ messages|tojson(indent=99999999) }}",
    "replace": "{% set x = 'x' * 99999 %}{{ x|replace('x', x) }}",
    "text": DOUBLED % "n.x ~ n.x",
    "lists": DOUBLED % "[n.x, n.x]",
    "macro": "{% macro f() %}{{ f(varargs, varargs) }}{% endmacro %}{{ f(1, 2) }}",
    "itself": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "twice": "{% macro f(n) %}{% if n %}{{ f(n-1) ~ f(n-1) }}{% endif %}{% endmacro %}{{ f(99) }}",
    "if": "{% if 1 %}" * 400 + "{% endif %}" * 400,
    "parentheses": "{{ " + "(" * 5000 + ")" * 5000 + " }}",
    "long": "x" * 300_000,
}


def plain(text, messages):
    return render_jinja_template([messages], chat_template=text)[0][0]


@pytest.mark.parametrize("text", GREEDY.values(), ids=GREEDY)
def test_a_template_without_measure_is_refused_in_one_line(text, monkeypatch):
    monkeypatch.setattr("sftlab.chat.limits.SECONDS", 0.5)
    with pytest.raises(TemplateError, match="template greedy goes beyond a limit") as raised:
        Template(name="greedy", text=text).render(CHAT)
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 1000


def test_the_error_names_line_limit_and_remedy():
    said = r"line 2 \(`{% for.*loops make over 2,000,000 passes.*use another template"
    with pytest.raises(TemplateError, match=said):
        Template(name="t", text="{{ bos_token }}\n" + GREEDY["ranges"]).render(CHAT)


def test_a_limit_that_only_a_long_conversation_meets():
    template = Template(name="t", text="{% if messages|length > 3 %}{{ 'x' * 10**9 }}{% endif %}ok")
    assert template.render(CHAT) == "ok"
    for render in (template.render, lambda talk: trace(template, talk)):
        with pytest.raises(TemplateError, match="one operation makes over"):
            render(CHAT * 2)


def test_slow_operations_end_by_the_processors_time(monkeypatch):
    clock = iter(range(0, 10**9, 2))  # two seconds at each look
    monkeypatch.setattr(time, "thread_time", lambda: float(next(clock)))
    with pytest.raises(TemplateError, match="over 5 seconds of processor time"):
        Template(name="t", text="{% for i in range(99999) %}{{ i }}{% endfor %}").render(CHAT)


def test_messages_that_nest_deep_or_hold_themselves():
    own = []
    own.append(own)
    for given in ([[CHAT[0] | {"content": own}]], [CHAT, own]):
        with pytest.raises(TemplateError, match="nested over 100 deep"):
            find_template("chatml").render(given[0], tools=given[-1])


@pytest.mark.parametrize("name", ["chatml", "qwen3"])
def test_long_conversations_render_as_in_transformers(name):
    template = find_template(name)
    for talk in (CHAT * 1_000, [CHAT[0], {"role": "assistant", "content": "Words. " * 300_000}]):
        assert template.render(talk) == plain(template.text, talk)


def test_a_template_may_look_back_from_each_message():
    text = "{% for m in messages %}{% for n in messages %}{% endfor %}{{ loop.index }}{% endfor %}"
    assert Template(name="t", text=text).render(CHAT * 600) == plain(text, CHAT * 600)


def test_what_loops_and_macros_offer_is_the_same():
    text = """{% for m in messages if m.role != 'x' %}{{ loop.length ~ loop.last ~ loop.index }}
    {{- loop.cycle('a', 'b') }}{{ loop.changed(m.role) }}{{ loop.previtem is defined }}{% endfor %}
    {%- macro f(a, b=2) %}{{ a }}{{ b }}{{ caller(a) }}{{ varargs }}{{ kwargs }}{% endmacro %}
    {%- call(x) f(1, 3, 4, c=5) %}[{{ x }}]{% endcall %}
    {%- for x in [1, [2, [3]]] recursive %}{{ loop(x) if x is sequence else x }}{% endfor %}
    {%- set block | upper %}a{{ 1 + 2 - 3 * 4 % 5 // 2 }}{% endset %}{{ block }}
    {%- for a, b in {'x': 1}|items %}{{ (a, b) }}{{ [a, b] + [1] }}{{ a ~ b ~ none }}{% endfor %}
    {{- messages|map(attribute='role')|map('upper')|join(', ') }}{{ messages[::-1]|length }}
    {{- '%s-%5d' % ('a', 3) }}{{ '{:>4}'.format(2) }}{{ {'a': [1]}|tojson(indent=2) }}
    {%- for i in range(5) %}{% if i == 3 %}{% break %}{% endif %}{{ i < 2 < 3 }}{% endfor %}"""
    assert Template(name="t", text=text).render(CHAT) == plain(text, CHAT)
