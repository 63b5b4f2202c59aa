"""Jinja as transformers sets it up for chat templates: the sandbox, its filters and its functions.

A chat template is code from elsewhere, so it runs in jinja2's immutable sandbox and sees plain data
only. Settings, filters and functions are those of `render_jinja_template` in transformers 5.23, and
tests hold the two together; what differs is that the clock stands still within one call of
`frozen_clock`, so that two renders of a template that writes the date agree.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.utils
from jinja2.sandbox import ImmutableSandboxedEnvironment

_NOW: ContextVar[datetime | None] = ContextVar("now", default=None)
REASONING = ("reasoning_content", "thinking", "reasoning")
"""The names under which messages carry their reasoning; the first is the one that counts."""


class Refusal(jinja2.TemplateError):
    """What a template says when it calls `raise_exception`."""


class Generation(jinja2.ext.Extension):
    """`{% generation %} ... {% endgeneration %}` renders what stands between."""

    tags = frozenset({"generation"})

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        # A call block, as in transformers: what the body sets does not reach the text after it.
        return jinja2.nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller: Any) -> str:
        return caller()


class _Dict:
    """`dict` without the type's other attributes, which would let a template out of its box."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict:
        return dict.fromkeys(*args)


class _Namespace(jinja2.utils.Namespace):
    """`namespace`, whose attributes may not begin with an underscore."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        # A bare `*args`, as in jinja2's own class, so that a template may call an attribute `self`.
        self, given = args[0], dict(*args[1:], **kwargs)
        for name in given:
            _check_name(name)
        jinja2.utils.Namespace.__init__(self, given)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(
            f"a namespace's attribute may not begin with an underscore, and this one is {name!r}"
        )


def _refuse(message: Any) -> NoReturn:
    raise Refusal(message)


def _now(form: str) -> str:
    return (_NOW.get() or datetime.now()).strftime(form)


def to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """The filter `tojson`, which unlike jinja2's own escapes nothing for HTML."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def prepare(environment: jinja2.Environment) -> jinja2.Environment:
    """The environment with the filters and functions of chat templates."""
    environment.filters["tojson"] = to_json
    environment.globals.update(
        raise_exception=_refuse, strftime_now=_now, dict=_Dict(), namespace=_Namespace
    )
    return environment


OPTIONS: dict[str, Any] = {
    "trim_blocks": True,
    "lstrip_blocks": True,
    "extensions": [Generation, jinja2.ext.loopcontrols],
}
"""Settings of the environment: a block's own line break and indentation are not text."""


@lru_cache(maxsize=256)
def compiled(text: str) -> jinja2.Template:
    """The template, compiled once."""
    return prepare(ImmutableSandboxedEnvironment(**OPTIONS)).from_string(text)


@contextmanager
def frozen_clock() -> Iterator[None]:
    """Every `strftime_now` inside tells the same time."""
    token = _NOW.set(_NOW.get() or datetime.now())
    try:
        yield
    finally:
        _NOW.reset(token)


def plain_messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Copies of the messages as a template may see them.

    As in transformers: what is None is left out (a Dataset fills absent keys so), objects become
    their type's name, and reasoning goes under each name that templates read. The key `train`,
    which is for the mask, is left out too.
    """
    plain = []
    for message in messages:
        copy = {
            key: _plain(value)
            for key, value in message.items()
            if value is not None and key != "train"
        }
        if len(copy) > 2:  # Two keys are the role and the content.
            found = next((copy[key] for key in REASONING if key in copy), None)
            if found is not None:
                copy = {"thinking": found, **copy, "reasoning_content": found}
        plain.append(copy)
    return plain


def plain_tools(tools: Sequence[Any] | None) -> list[Any] | None:
    """JSON schemas of the tools; functions are described by transformers."""
    if tools is None:
        return None
    if any(callable(tool) for tool in tools):
        from transformers.utils import get_json_schema

        tools = [get_json_schema(tool) if callable(tool) else tool for tool in tools]
    return _plain(tools)


def _plain(value: Any) -> Any:
    kind = type(value)
    if value is None or kind in (str, int, float, bool):
        return value
    if kind is dict or isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    for base in (str, int, float):
        if isinstance(value, base):  # A subclass may bring methods that the sandbox must not call.
            return base(value)
    return f"<{kind.__name__}>"
