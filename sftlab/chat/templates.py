"""A chat template: the Jinja text that turns messages into the one string that a model reads.

    messages                                  text, by ChatML
    [{"role": "user", "content": "Hi"},       <|im_start|>user
     {"role": "assistant", "content": "Ho"}]  Hi<|im_end|>
                                              <|im_start|>assistant
                                              Ho<|im_end|>

A template is code from elsewhere: it runs in jinja2's sandbox, set up by transformers.
`find_template` takes whatever the user has:

    "chatml", "llama-3"              the lab's families, which families.toml draws
    "qwen3", "gemma3_training"       those that TRL installs
    "my/model", "my/template.jinja"  a folder or file: *.jinja, tokenizer_config.json, ...
    "{% for message in messages %}"  the Jinja text itself
    "own", None                      the tokenizer's own
"""

import json
import os
import tomllib
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jinja2

from sftlab.chat.limits import NESTING, LimitError, compiled, limited, within_limits
from sftlab.data import printable

REASONING = ("reasoning_content", "thinking", "reasoning")
"""The keys under which messages carry their reasoning; the first that is there counts."""
_FILES = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")
"""Where a model's folder keeps its template; the first that has one counts, as in transformers."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """One way to write a conversation as a text, and what one must know to train with it."""

    text: str  # the Jinja source, with `{% generation %}` around each answer and its end of turn
    control_tokens: Sequence[str] = ()  # each must be one token, and no content hold one
    end_of_turn: str | None = None  # what ends an answer; None: the tokenizer's own `eos_token`
    bos_token: str = ""  # in the published tokenizer, for renders without one; so `eos_token`
    eos_token: str = ""

    def end(self, eos_token: str | None = None) -> str:
        """What ends a turn when the tokenizer's eos is `eos_token` (default: the published one)."""
        return self.end_of_turn or eos_token or self.eos_token

    @property
    def writes_bos(self) -> bool:
        """Whether the text begins with `bos_token`, so that nobody else may add one."""
        return "bos_token" in self.text


_HERE = Path(__file__).parent
FAMILIES = {
    name: Family(text=(_HERE / "jinja" / f"{name}.jinja").read_text(encoding="utf-8"), **values)
    for name, values in tomllib.loads((_HERE / "families.toml").read_text(encoding="utf-8")).items()
}
CHATML = FAMILIES["chatml"].text


class TemplateError(ValueError):
    """A template that can't be found or rendered; names it, the line if known, and a remedy."""


@lru_cache(maxsize=1)
def jinja_environment() -> jinja2.Environment:
    """The sandbox with the tags, filters and functions of chat templates."""
    # A private name, and the only one here: transformers has no public way to its environment, and
    # a copy of it would miss their security fixes. The tests hold renders to `apply_chat_template`.
    from transformers.utils.chat_template_utils import _compile_jinja_template

    return limited(_compile_jinja_template("").environment)


_compiled = lru_cache(maxsize=512)(compiled)


@dataclass(frozen=True, kw_only=True)
class Template:
    """A chat template, `text` its Jinja source (or a TemplateError), and what its variables are."""

    name: str  # in error messages: a family's, a file's, or `(given text)`
    text: str
    bos_token: str = ""
    eos_token: str = ""
    variables: tuple[tuple[str, Any], ...] = ()  # other variables, such as `enable_thinking`

    def __post_init__(self) -> None:
        try:
            _compiled(self.text, jinja_environment())
        except jinja2.TemplateSyntaxError as error:
            raise TemplateError(
                f"the chat template {self.name} is not valid Jinja: line {error.lineno}: "
                f"{_short(error.message)}{self._quoted(error.lineno)}; correct that line"
            ) from None
        except Exception as error:
            raise self._beyond(error) from None

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Any] | None = None,
        add_generation_prompt: bool = False,
        **variables: Any,
    ) -> str:
        """The conversation as one string, as `apply_chat_template(tokenize=False)` gives it.

        `variables` override the template's own. Raises TemplateError, which names the line, where
        the template refuses, fails, or goes beyond a limit of `sftlab.chat.limits`.
        """
        variables |= {"tools": tools, "add_generation_prompt": add_generation_prompt}
        return self.render_in(jinja_environment(), self.plain(messages), **variables)

    def plain(self, messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """`plain_messages`, with the arguments of tool calls as the template takes them: nearly all
        take dicts, DeepSeek-V3's joins JSON text to its own."""
        plain = plain_messages(messages)
        calls = [call for one in plain for call in one.get("tool_calls") or ()]
        for call in filter(lambda call: isinstance(call, dict), calls):
            function = call.get("function", call)
            if isinstance(function, dict) and "arguments" in function:
                function["arguments"] = _arguments(function["arguments"], _takes_text(self))
        return plain

    def render_in(
        self,
        environment: jinja2.Environment,
        messages: list[dict[str, Any]],
        *,
        tools: Sequence[Any] | None,
        **variables: Any,
    ) -> str:
        """`render` of messages as they are, compiled in another environment."""
        values = {"bos_token": self.bos_token, "eos_token": self.eos_token, "documents": None}
        values = {**dict(self.variables), **values, **variables}
        values |= {"messages": messages, "tools": _plain(tools)}
        try:
            return within_limits(_compiled(self.text, environment).render, values)
        except TemplateError:
            raise
        except Exception as error:
            frames = reversed(traceback.extract_tb(error.__traceback__))
            line = next((frame.lineno for frame in frames if frame.filename == "<template>"), None)
            at = f" at line {line}{self._quoted(line)}" if line else ""
            if isinstance(error, LimitError | RecursionError | MemoryError):
                raise self._beyond(error, at) from None
            said = _short(error)
            if type(error) is jinja2.TemplateError:  # what `raise_exception` raises
                raise TemplateError(
                    f"the chat template {self.name} refuses this conversation{at}: {said}; change "
                    "the messages as it says, or use another template"
                ) from None
            raise TemplateError(
                f"the chat template {self.name} fails{at}: {type(error).__name__}: {said}; it may "
                "need messages of another form (a list of content parts, a tool's name), or "
                "a variable that it reads"
            ) from error

    def _beyond(self, error: Exception, at: str = "") -> TemplateError:
        """For what goes beyond a limit: ours, or that of Python on nesting."""
        what = _short(error)
        if not isinstance(error, LimitError):
            what = "it is nested too deep, calls itself, or has too long a number "
            what += f"({type(error).__name__}: {_short(error)})"
        return TemplateError(
            f"the chat template {self.name} goes beyond a limit{at}: {what}; shorten what it does "
            "there, or use another template"
        )

    def _quoted(self, line: int) -> str:
        """`` (`the line`)``, shortened."""
        source = " ".join("".join(self.text.splitlines()[line - 1 : line]).split())
        return f" (`{_short(source[:80])}{'...' if len(source) > 80 else ''}`)" if source else ""


def _short(text: Any) -> str:
    """One line of about 500 characters at most, with escapes for what can't be printed."""
    return printable(" ".join(str(text).split()), 500)


def plain_messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Copies of the messages as a template may see them, and as transformers prepares them: without
    None (a Dataset fills absent keys with it), reasoning under each key that templates read."""
    plain = []
    for message in messages:
        kept = {key: v for key, v in message.items() if v is not None and key != "train"}
        copy = {key: _plain(value) for key, value in kept.items()}
        reasoning = next((copy[key] for key in REASONING if key in copy), None)
        if reasoning is not None:
            copy = {"thinking": reasoning, **copy, "reasoning_content": reasoning}
        plain.append(copy)
    return plain


@lru_cache(maxsize=256)
def _takes_text(template: Template) -> bool:
    """Whether it fails with a call whose arguments are a dict, and renders their JSON text."""

    def rendered(arguments: Any) -> str:
        call = {"id": "call00000", "type": "function"}
        call["function"] = {"name": "call", "arguments": arguments}
        talk = [{"role": "user", "content": "Question"}]
        talk += [{"role": "assistant", "content": "", "tool_calls": [call]}]
        options = {"tools": None, "add_generation_prompt": False}
        try:
            return template.render_in(jinja_environment(), talk, **options)
        except TemplateError:
            return ""

    arguments = {"key": "value"}
    return not rendered(arguments) and json.dumps(arguments) in rendered(json.dumps(arguments))


def _arguments(given: Any, as_text: bool) -> Any:
    if as_text:
        return given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
    try:
        parsed = json.loads(given) if isinstance(given, str) else given
    except ValueError:
        return given
    return parsed if isinstance(parsed, dict) else given


def _plain(value: Any, depth: int = 0) -> Any:
    """A value without methods that the sandbox would call, such as those that write files."""
    if type(value) is str:  # nearly always
        return value
    if depth > NESTING:
        raise TemplateError(
            f"lists and dicts in the messages or tools are nested over {NESTING} deep, or hold "
            "themselves; a template can't write them: leave them out"
        )
    if isinstance(value, Mapping):
        return {_plain(k, depth + 1): _plain(item, depth + 1) for k, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, depth + 1) for item in value]
    for kind in (bool, str, int, float):
        if isinstance(value, kind):
            return kind(value)
    return None if value is None else f"<{type(value).__name__}>"


def find_template(which: str | Path | Template | None = None, *, tokenizer: Any = None) -> Template:
    """The template, with the special tokens that it may write: those of the tokenizer, or without
    one the file's, or those of the published family, or none.

    `which` is a family's name, a template that TRL installs, a file (`.jinja`, `.json`) or a
    folder, a Jinja text, a `Template`, or "own" or None for the tokenizer's own.
    """
    values: dict[str, Any] = {}
    if isinstance(which, Template):
        name, text, values = which.name, which.text, dict(which.variables)
        values |= {"bos_token": which.bos_token, "eos_token": which.eos_token}
    elif which in (None, "own"):
        if tokenizer is None:
            what = (
                "'own' is the tokenizer's chat template" if which else "no chat template is given"
            )
            raise TemplateError(f"{what}; give a name, a file, or a tokenizer (doctor --tokenizer)")
        name = f"of {tokenizer.name_or_path or type(tokenizer).__name__}"
        text = _default(tokenizer.chat_template, f"the tokenizer {name}")
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
    bos, eos = (str(values.pop(key, None) or "") for key in ("bos_token", "eos_token"))
    variables = tuple(sorted((key, value) for key, value in values.items() if value is not None))
    return Template(name=name, text=text, bos_token=bos, eos_token=eos, variables=variables)


def installed_templates() -> dict[str, Path]:
    """Files of the chat templates that TRL brings, by name."""
    folder = Path(find_spec("trl").origin).with_name("chat_templates")
    return {file.stem: file for file in folder.glob("*.jinja")}


def _from_path(path: Path) -> tuple[str, str, dict[str, Any]]:
    """Name, text and special tokens of the template in a file, or in a model's folder."""
    # os.path says False of a name that is too long, where Path raises.
    files = [path / name for name in _FILES] if os.path.isdir(path) else [path]
    held = {file: _read(file) for file in files if os.path.isfile(file)}
    file = next((file for file in held if held[file].get("chat_template")), None)
    if file is None:
        raise TemplateError(
            f"there is no chat template {_short(str(path))!r}: it is neither a family "
            f"({', '.join(FAMILIES)}) nor a template that TRL installs, a Jinja text, or a file or "
            f"folder that holds one ({', '.join(_FILES)}); correct the name"
        )
    config = _read(c) if (c := file.with_name(_FILES[-1])).is_file() else {}
    special = {}
    for key in ("bos_token", "eos_token", "unk_token", "pad_token"):
        token = config.get(key)
        special[key] = token.get("content") if isinstance(token, dict) else token
        if not isinstance(special[key], str | None) or (token and not special[key]):
            raise TemplateError(f"{key} in {c} must be a text, or have one as content; correct it")
    name = str(path) if path.is_dir() else path.name
    return name, _default(held[file]["chat_template"], file), special


def _read(file: Path) -> dict[str, Any]:
    """The object of a JSON file; a Jinja text as the `chat_template` of one."""
    try:
        text = file.read_text(encoding="utf-8")
        found = json.loads(text) if file.suffix == ".json" else {"chat_template": text}
    except OSError as error:
        raise TemplateError(f"{file} can't be read: {error.strerror}; correct that") from None
    except (ValueError, RecursionError) as error:
        what = "UTF-8 text" if isinstance(error, UnicodeDecodeError) else "valid JSON"
        raise TemplateError(f"{file} is not {what}: {error}; correct it") from None
    if not isinstance(found, dict):
        raise TemplateError(f"{file} holds a {type(found).__name__}; it must hold a JSON object")
    return found


def _default(template: Any, where: Any) -> str:
    """The text; of several under names that of `default`."""
    if isinstance(template, list):
        named = [item for item in template if isinstance(item, dict)]
        template = {str(item.get("name")): item.get("template") for item in named}
    if isinstance(template, dict):
        if "default" not in template:
            raise TemplateError(
                f"{where} has the chat templates {_short(', '.join(template))} and no default; "
                "give the text of one of them, or another as the template (`--template chatml`)"
            )
        template = template["default"]
    if not isinstance(template, str):
        raise TemplateError(
            f"{where} has no chat template; give a family's name ({', '.join(FAMILIES)}), a file, "
            "or a Jinja text as the template (`--template chatml`)"
        )
    return template
