"""Templates grown from real ones: each renders a bounded text as transformers does, or is refused.

`check(seed, folder)` makes the case of a seed, renders it, and says how it came out.
"""

import random
import re
from functools import lru_cache
from pathlib import Path

from transformers.utils.chat_template_utils import _compile_jinja_template

from sftlab.chat import FAMILIES, Template, TemplateError, installed_templates, trace

CALL = {"type": "function", "function": {"name": "f", "arguments": {"a": [1, {"b": None}]}}}
MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi <b> & 'you'"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "name": "f", "content": "[1]"},
    {"role": "assistant", "content": "Ho\n", "reasoning_content": "so"},
    {"role": "user", "content": "And ß?"},
    {"role": "assistant", "content": "<think>\nhm\n</think>\n\nYes"},
]
TOOLS = [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {}}}]
BOMBS = """{% for i in range(99999) %}@{% endfor %}
{% for i in range(99999) if i %}{% for j in range(99999) %}@{% endfor %}{% endfor %}
{% macro f() %}@{{ f() }}{% endmacro %}{{ f() }}
{% macro f(n) %}{% if n %}{{ f(n - 1) ~ f(n - 1) }}{% endif %}{% endmacro %}{{ f(12) }}
{% set n = namespace(x='x') %}{% for i in range(99) %}{% set n.x = n.x OP n.x %}{% endfor %}@
{% set n = namespace(x=1) %}{% for i in range(99) %}{% set n.x = [n.x, n.x] %}{% endfor %}@
{% set n = namespace(x=1) %}{% for i in range(9) %}{% set n.x = dict(a=n.x, b=n.x) %}{% endfor %}@
{% set x = 'x' * N %}{{ x|replace('x', x) }}
{% set x = [messages] * N %}{{ x|tojson }}
{% for x in [1] recursive %}@{{ loop([1]) }}{% endfor %}
{% filter center(N) %}@{% endfilter %}
{% set x %}@{{ 'x' * N }}{% endset %}{{ x ~ x }}
{% block a %}@{{ self.a() }}{% endblock %}
{% call(x) namespace() %}@{% endcall %}""".splitlines()
EXPRESSIONS = """'x' * N;N ** N;'%Nd' % 1;'{:N}'.format(1);'{:{}}'.format(1, N);'%*d' % (N, 1);
'x'|center(N);'x'.ljust(N);[1]|batch(N, 0)|list;messages|tojson(indent=N);
range(N)|list;range(N)|sum;lipsum(N);messages|string|indent(N);
('x' * N).replace('', 'y' * N);('x' * N)|join('y' * N);1|round(N);'1'.zfill(N);
'\\t'.expandtabs(N);messages * N;'x'.translate({120: 'x' * N});
(1).to_bytes(N, 'big');[[1]] * N|sum(start=[]);range(N)|map('string')|join(', ');
messages|map(attribute='role')|unique|list;messages|groupby('role')|list;
dict.fromkeys(range(N), messages);messages[::-1]|length;
[messages, tools]|string|length;tools|pprint;
messages|selectattr('role', 'in', ['user'])|list|length;'a' ~ 'b' + 'c' ~ N;
cycler(1, 2).next();('%s' * N)|format(*([1] * N));messages|slice(N)|list|length;
strftime_now('%Nd')|length;'x' in 'y' * N;messages|map('tojson')|list;
(messages + messages)|sort(attribute='role')|first;{'a': N}|items|list;
N // 7 % 5;(-1, 1)|min;messages[1:]|reverse|list|count;'x y'|title|wordcount;
joiner(', ')();none;messages.x.y"""
EXPRESSIONS = [one.strip() for one in EXPRESSIONS.replace("\n", "").split(";")]
NESTS = """{% if 1 %}@{% endif %}
{% for i in [1] %}@{% endfor %}
(@)
[@]
not @
(@)|list
@ ~ 1""".splitlines()
OUTPUT = 20_000_000


@lru_cache(maxsize=1)
def sources() -> list[str]:
    texts = [path.read_text("utf-8") for _, path in sorted(installed_templates().items())]
    return [family.text for family in FAMILIES.values()] + texts


@lru_cache(maxsize=100)
def tokens(text: str) -> tuple[str, ...]:
    """Jinja's tags, and within and between them words and other characters."""
    return tuple(re.findall(r"{%.*?%}|{{.*?}}|{#.*?#}|[^{]+|{", text, flags=re.S))


def grown(rng: random.Random) -> str:
    parts = list(tokens(rng.choice(sources())))

    def number() -> str:
        return str(rng.choice([0, 1, 2, 3, 8, 50, 999, 10**5, 10**9, 10**20, -1]))

    def inserted() -> str:
        if rng.random() < 0.1:
            depth = rng.choice([2, 5, 9, 15, 30, 3000])
            pair = rng.choice(NESTS).split("@")
            nest = pair[0] * depth + "1" + pair[1] * depth
            return nest if "%" in nest else "{{ " + nest + " }}"
        made = rng.choice(EXPRESSIONS)
        form = rng.choice(["{{ $ }}", "{% if ($) %}y{% endif %}", "{% set y = $ %}"])
        form = form.replace("$", made)
        form = rng.choice([form, form, rng.choice(BOMBS).replace("@", form)])
        form = re.sub(r"\bN\b|(?<=[%:])N", lambda found: number(), form)
        return form.replace("OP", rng.choice("~+"))

    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        at = rng.randrange(len(parts))
        kind = rng.choice(["delete", "double", "splice", *["insert"] * 12, "word"])
        if kind == "delete":
            del parts[at]
        elif kind == "double":
            parts[at:at] = parts[at : at + rng.randrange(1, 9)] * rng.choice([1, 2, 50])
        elif kind == "splice":
            parts[at:] = (other := tokens(rng.choice(sources())))[rng.randrange(len(other)) :]
        elif kind == "insert":
            parts.insert(at, inserted())
        else:
            words = re.split(r"(\W+)", parts[at])
            word = rng.randrange(len(words))
            words[word] = rng.choice(["", words[word] * 2, "\ud800", "messages", "+", "*", "|list"])
            parts[at] = "".join(words)
        parts = parts or ["x"]
    return "".join(parts)


def check(seed: int, folder: Path) -> str:
    rng = random.Random(seed)
    text = grown(rng)
    messages = MESSAGES[: rng.randrange(1, len(MESSAGES) + 1)]
    given = {"tools": rng.choice([None, TOOLS]), "add_generation_prompt": rng.random() < 0.3}
    case = f"seed {seed}: {text[:3000]!r}"
    try:
        template = Template(name="grown", text=text, bos_token="<s>", eos_token="</s>")
        made = template.render(messages, **given)
        if rng.random() < 0.2:
            followed = trace(template, messages, tools=given["tools"]).text
            assert given["add_generation_prompt"] or followed == made, case
    except TemplateError as error:
        said = str(error)
        label = re.search(r"not valid|goes beyond a limit|refuses|fails|can't be|nested", said)
        bounded = label and said.isprintable() and len(said) < 1500
        assert bounded, f"{case}: {said!r}"
        return f"refused: {label[0]}"
    assert len(made) < OUTPUT, case
    # The plain environment folds constants, even where none are reached: in time without end, or
    # with Python's ValueError for numbers of over 4,300 digits.
    if re.search(r"00000|\*\* *\d{3}", text):
        return "rendered, not compared"
    values = given | {"bos_token": "<s>", "eos_token": "</s>", "documents": None}
    plain = _compile_jinja_template(text).render(messages=template.plain(messages), **values)
    assert re.sub("<Namespace.*>", "", made) == re.sub("<Namespace.*>", "", plain), case
    return "rendered"
