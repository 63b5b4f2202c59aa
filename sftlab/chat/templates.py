"""A chat template: the Jinja text that turns messages into the one string that a model reads.

    messages                                  text, by ChatML
    [{"role": "user", "content": "Hi"},       <|im_start|>user
     {"role": "assistant", "content": "Ho"}]  Hi<|im_end|>
                                              <|im_start|>assistant
                                              Ho<|im_end|>

One `Template` serves training, evaluation and serving, so that a model is prompted in the form in
which it was trained. A template is code from elsewhere: it runs in jinja2's sandbox, set up by
transformers, and sees plain data only. `find_template` takes whatever the user has:

    "chatml", "llama-3"              the lab's families
    "qwen3", "gemma3_training"       those that TRL installs
    "my/model", "my/template.jinja"  a folder or file: *.jinja, tokenizer_config.json, ...
    "{% for message in messages %}"  the Jinja text itself
    None                             the tokenizer's own
"""

import json
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jinja2

from sftlab.chat.families import FAMILIES

CHATML = FAMILIES["chatml"].text
REASONING = ("reasoning_content", "thinking", "reasoning")
"""The keys under which messages carry their reasoning; the first that is there counts."""
_FILES = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")
"""Where a model's folder keeps its template; the first that has one counts, as in transformers."""
_NOW: ContextVar[datetime | None] = ContextVar("now", default=None)


class TemplateError(ValueError):
    """A template that can't be found or rendered; names it, the line if known, and a remedy."""


@contextmanager
def frozen_clock() -> Iterator[None]:
    """Every `strftime_now` inside gives the same time, so that two renders of one text agree."""
    token = _NOW.set(_NOW.get() or datetime.now())
    try:
        yield
    finally:
        _NOW.reset(token)


def _strftime_now(form: str) -> str:
    return (_NOW.get() or datetime.now()).strftime(form)


@lru_cache(maxsize=1)
def jinja_environment() -> jinja2.Environment:
    """The sandbox with the tags, filters and functions of chat templates."""
    # A private name, and the only one here: transformers has no public way to its environment, and
    # a copy of it would miss their security fixes. The tests hold renders to `apply_chat_template`.
    from transformers.utils.chat_template_utils import _compile_jinja_template

    environment = _compile_jinja_template("").environment.overlay()
    environment.globals = environment.globals | {"strftime_now": _strftime_now}
    return environment


@lru_cache(maxsize=256)
def _compiled(text: str) -> jinja2.Template:
    return jinja_environment().from_string(text)


@dataclass(frozen=True, kw_only=True)
class Template:
    """A chat template (`text` is its Jinja source) and what its variables render as.

    Raises:
        TemplateError: the text is not valid Jinja; the message names the line.
    """

    name: str
    "The name in error messages: a family's, a file's, or `(given text)`."
    text: str
    bos_token: str = ""
    eos_token: str = ""
    variables: tuple[tuple[str, Any], ...] = ()
    "Names and values of other variables, such as `enable_thinking`."

    def __post_init__(self) -> None:
        for field in ("name", "text", "bos_token", "eos_token"):
            if not isinstance(value := getattr(self, field), str):
                raise TemplateError(f"{field} of a template is {value!r}; give a string")
        try:
            _compiled(self.text)
        except jinja2.TemplateSyntaxError as error:
            raise TemplateError(
                f"the chat template {self.name} is not valid Jinja: line {error.lineno}: "
                f"{error.message}{_quoted(self.text, error.lineno)}; correct that line"
            ) from None

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Any] | None = None,
        add_generation_prompt: bool = False,
        **variables: Any,
    ) -> str:
        """The conversation as one string, as `apply_chat_template(tokenize=False)` gives it.

        Args:
            messages: role and content each, and what else the template reads.
            tools: JSON schemas, or functions with type hints and a docstring.
            add_generation_prompt: end with the header of the answer that is to come.
            variables: values of other variables; they override the template's own.

        Raises:
            TemplateError: the template refuses the conversation or fails; the line is named.
        """
        values = self.variables_for(plain_messages(messages), tools, add_generation_prompt)
        return self.run(_compiled(self.text), values | variables)

    def variables_for(
        self,
        messages: list[dict[str, Any]],
        tools: Sequence[Any] | None = None,
        add_generation_prompt: bool = False,
    ) -> dict[str, Any]:
        """All variables of a render of plain messages."""
        return {
            **dict(self.variables),
            "bos_token": self.bos_token,
            "eos_token": self.eos_token,
            "messages": messages,
            "tools": _plain_tools(tools),
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
        }

    def run(self, program: jinja2.Template, variables: Mapping[str, Any]) -> str:
        """What a program compiled from this text renders; its errors name template and line."""
        try:
            return program.render(variables)
        except Exception as error:
            frames = reversed(traceback.extract_tb(error.__traceback__))
            line = next((frame.lineno for frame in frames if frame.filename == "<template>"), None)
            at = f" at line {line}{_quoted(self.text, line)}" if line else ""
            if type(error) is jinja2.TemplateError:  # what `raise_exception` raises
                raise TemplateError(
                    f"the chat template {self.name} refuses this conversation{at}: {error}; "
                    "change the messages as it says, or use another template"
                ) from None
            raise TemplateError(
                f"the chat template {self.name} fails{at}: {type(error).__name__}: {error}; it "
                "may need messages of another form (a list of content parts, a tool's name), or "
                "a variable that it reads"
            ) from error


def _quoted(text: str, line: int) -> str:
    """`` (`the line`)``, shortened."""
    lines = text.splitlines()
    if not 0 < line <= len(lines):
        return ""
    source = " ".join(lines[line - 1].split())
    return f" (`{source[:80]}{'...' if len(source) > 80 else ''}`)"


def plain_messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Copies of the messages as a template may see them.

    As in transformers: None is left out (a Dataset fills absent keys with it), objects become their
    type's name, and reasoning stands under each key that templates read. The key `train`, which is
    for the mask, is left out too.
    """
    plain = []
    for message in messages:
        copy = {
            key: _plain(value)
            for key, value in message.items()
            if value is not None and key != "train"
        }
        reasoning = next((copy[key] for key in REASONING if key in copy), None)
        if reasoning is not None:
            copy = {"thinking": reasoning, **copy, "reasoning_content": reasoning}
        plain.append(copy)
    return plain


def _plain_tools(tools: Sequence[Any] | None) -> list[Any] | None:
    if any(callable(tool) for tool in tools or ()):
        from transformers.utils import get_json_schema

        tools = [get_json_schema(tool) if callable(tool) else tool for tool in tools]
    return _plain(tools)


def _plain(value: Any) -> Any:
    kind = type(value)
    if value is None or kind in (str, int, float, bool):
        return value
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    for base in (str, int, float):
        if isinstance(value, base):  # A subclass may bring methods that the sandbox must not call.
            return base(value)
    return f"<{kind.__name__}>"


def find_template(
    which: str | Path | Template | None = None,
    *,
    tokenizer: Any = None,
    bos_token: str | None = None,
    eos_token: str | None = None,
) -> Template:
    """The template, with the special tokens that it may write.

    Args:
        which: a family's name, the name of a template that TRL installs, a `.jinja` file, a
            `tokenizer_config.json` or `chat_template.json`, a folder that holds one of them, a
            Jinja text, a `Template`, or None for the tokenizer's own.
        tokenizer: a transformers tokenizer, whose special tokens the template writes.
        bos_token: what `bos_token` renders as; by default the tokenizer's, else the file's, else
            that of the published family, else nothing.
        eos_token: the same for `eos_token`.

    Raises:
        TemplateError: there is no such template; the message lists where it was looked for.
    """
    values: dict[str, Any] = {}
    if isinstance(which, Template):
        name, text, values = which.name, which.text, dict(which.variables)
        values |= {"bos_token": which.bos_token, "eos_token": which.eos_token}
    elif which is None:
        if tokenizer is None:
            raise TemplateError("no chat template is given; give a name, a file, or a tokenizer")
        name = f"of {tokenizer.name_or_path or type(tokenizer).__name__}"
        text = _default(tokenizer.chat_template, name)
    elif which in FAMILIES:
        name, text = which, FAMILIES[which].text
        values = {key: getattr(FAMILIES[which], key) for key in ("bos_token", "eos_token")}
    elif isinstance(which, str) and ("{{" in which or "{%" in which):
        name, text = "(given text)", which
    elif which in (installed := installed_templates()):
        name, text = which, installed[which].read_text(encoding="utf-8")
    else:
        name, text, values = _from_path(Path(which))
    if tokenizer is not None:
        values |= tokenizer.special_tokens_map
    chosen = {"bos_token": bos_token, "eos_token": eos_token}
    values |= {key: value for key, value in chosen.items() if value is not None}
    bos, eos = (str(values.pop(key, None) or "") for key in chosen)
    variables = tuple(sorted((key, value) for key, value in values.items() if value is not None))
    return Template(name=name, text=text, bos_token=bos, eos_token=eos, variables=variables)


def installed_templates() -> dict[str, Path]:
    """Files of the chat templates that TRL brings, by name."""
    spec = find_spec("trl")
    roots = (spec and spec.submodule_search_locations) or ()
    return {f.stem: f for root in roots for f in Path(root, "chat_templates").glob("*.jinja")}


def _from_path(path: Path) -> tuple[str, str, dict[str, Any]]:
    """Name, text and special tokens of the template in a file, or in a model's folder."""
    files = [path]
    if path.is_dir():
        files = [file for file in (path / name for name in _FILES) if file.is_file()]
        files = [f for f in files if f.suffix == ".jinja" or "chat_template" in _json(f)]
    if not files:
        raise TemplateError(
            f"{path} holds no chat template ({', '.join(_FILES)} were looked for); give a family's "
            f"name ({', '.join(FAMILIES)}) or a .jinja file"
        )
    file = files[0]
    if not file.is_file():
        raise TemplateError(
            f"there is no chat template {str(path)!r}: it is neither a family "
            f"({', '.join(FAMILIES)}) nor a template that TRL installs, a file or a Jinja text; "
            "correct the name"
        )
    if file.suffix == ".json":
        text = _default(_json(file).get("chat_template"), file)
    else:
        text = _content(file)
    config = _json(c) if (c := file.with_name(_FILES[-1])).is_file() else {}
    special = {
        key: token["content"] if isinstance(token, dict) else token
        for key in ("bos_token", "eos_token", "unk_token", "pad_token")
        if (token := config.get(key))
    }
    return str(path) if path.is_dir() else path.name, text, special


def _content(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise TemplateError(f"{file} is not UTF-8 text: {error}; save it as UTF-8") from None


def _json(file: Path) -> dict[str, Any]:
    content = _content(file)
    try:
        data = json.loads(content)
    except ValueError as error:
        raise TemplateError(f"{file} is not valid JSON: {error}; correct it") from None
    if not isinstance(data, dict):
        raise TemplateError(f"{file} holds a {type(data).__name__}; it must hold a JSON object")
    return data


def _default(template: Any, where: Any) -> str:
    """The text; of several under names that of `default`."""
    if isinstance(template, list):
        template = {item.get("name"): item.get("template") for item in template}
    if isinstance(template, dict):
        if "default" not in template:
            raise TemplateError(
                f"{where} has the chat templates {', '.join(map(str, template))} and no default; "
                "give the text of one of them"
            )
        template = template["default"]
    if not isinstance(template, str):
        raise TemplateError(
            f"{where} has no chat template; give a family's name ({', '.join(FAMILIES)}), a file, "
            "or a Jinja text"
        )
    return template
