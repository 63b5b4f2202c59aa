"""Find a chat template by whatever the user has: a name, a file, a text, or a tokenizer.

"chatml", "llama-3"             the lab's families
"qwen3", "gemma3_training"      those that TRL installs
"my/model", "my/template.jinja" a folder or file: *.jinja, tokenizer_config.json, ...
"{% for message in messages %}" the Jinja text itself
None                            the tokenizer's own
"""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftlab.chat.families import FAMILIES
from sftlab.chat.rendering import Template, TemplateError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = [
    "CHATML",
    "CONTROL_TOKENS",
    "END_OF_TURN",
    "TEMPLATES",
    "Template",
    "TemplateError",
    "find_template",
    "installed_templates",
]

CHATML = FAMILIES["chatml"].text
TEMPLATES = {"chatml": CHATML}
CONTROL_TOKENS = {"chatml": FAMILIES["chatml"].control_tokens}
"""The tokens of each template that structure a conversation; no content may hold them."""
END_OF_TURN = {"chatml": "<|im_end|>"}
"""The token that ends an assistant's turn, and at which generation stops."""

FILES = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")
"""Where a model's folder keeps its template; the first that has one counts, as in transformers."""


def find_template(
    which: "str | Path | Template | None" = None,
    *,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    bos_token: str | None = None,
    eos_token: str | None = None,
) -> Template:
    """The template, with the special tokens that it may write.

    Args:
        which: a family's name, the name of a template that TRL installs, a `.jinja` file, a
            `tokenizer_config.json` or `chat_template.json`, a folder that holds one of them, a
            Jinja text, a `Template`, or None for the tokenizer's own.
        tokenizer: whose special tokens the template writes.
        bos_token: what `bos_token` renders as; None takes the tokenizer's, else the file's, else
            that of the published family, else nothing.
        eos_token: the same for `eos_token`.

    Raises:
        TemplateError: there is none; the message lists what was tried.
    """
    given: dict[str, Any] = {}
    if isinstance(which, Template):
        name, text = which.name, which.text
        given = which.names()
    elif which is None:
        if tokenizer is None:
            raise TemplateError("no chat template is given; give a name, a file, or a tokenizer")
        name = f"of {tokenizer.name_or_path or type(tokenizer).__name__}"
        text = _default(tokenizer.chat_template, name)
    elif isinstance(which, str) and which in FAMILIES:
        family = FAMILIES[which]
        name, text = which, family.text
        given = {"bos_token": family.bos_token, "eos_token": family.eos_token}
    elif isinstance(which, str) and ("{{" in which or "{%" in which):
        name, text = "(given text)", which
    elif isinstance(which, str) and which in (installed := installed_templates()):
        name, text = which, installed[which].read_text(encoding="utf-8")
    else:
        name, text, given = _from_path(Path(which))
    if tokenizer is not None:
        given = {**given, **tokenizer.special_tokens_map}
    chosen = {"bos_token": bos_token, "eos_token": eos_token}
    given.update((key, value) for key, value in chosen.items() if value is not None)
    special = {key: str(given.pop(key, None) or "") for key in chosen}
    variables = tuple(sorted((k, v) for k, v in given.items() if v is not None))
    return Template(name=name, text=text, variables=variables, **special)


def installed_templates() -> dict[str, Path]:
    """Files of the chat templates that TRL brings, by name."""
    spec = find_spec("trl")
    roots = (spec and spec.submodule_search_locations) or ()
    return {f.stem: f for root in roots for f in Path(root, "chat_templates").glob("*.jinja")}


def _from_path(path: Path) -> tuple[str, str, dict[str, Any]]:
    """Name, text and special tokens of the template in a file, or in a model's folder."""
    if path.is_dir():
        config = _json(path / FILES[-1]) if (path / FILES[-1]).is_file() else {}
        for file in (path / name for name in FILES):
            if file.is_file() and (file.suffix == ".jinja" or "chat_template" in _json(file)):
                return str(path), _read(file), _special(config)
        raise TemplateError(
            f"{path} holds no chat template ({', '.join(FILES)} were looked for); give a family's "
            f"name ({', '.join(FAMILIES)}) or a .jinja file"
        )
    if not path.is_file():
        raise TemplateError(
            f"there is no chat template {str(path)!r}: no family ({', '.join(FAMILIES)}), no "
            "template that TRL installs, no file, and no Jinja text; correct the name"
        )
    config = path.parent / FILES[-1]
    return path.name, _read(path), _special(_json(config) if config.is_file() else {})


def _read(file: Path) -> str:
    if file.suffix != ".json":
        try:
            return file.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise TemplateError(f"{file} is not UTF-8 text: {error}; save it as UTF-8") from None
    return _default(_json(file).get("chat_template"), str(file))


def _json(file: Path) -> dict[str, Any]:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TemplateError(f"{file} is no sound JSON: {error}; correct it") from None
    if not isinstance(data, dict):
        raise TemplateError(f"{file} holds a {type(data).__name__}; a JSON object is expected")
    return data


def _default(template: Any, where: str) -> str:
    """The text, where several are kept under names that of `default`."""
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


def _special(config: dict[str, Any]) -> dict[str, str]:
    """The special tokens of a tokenizer_config.json, where one may be an object with `content`."""
    tokens = {key: config.get(key) for key in ("bos_token", "eos_token", "unk_token", "pad_token")}
    return {
        key: token["content"] if isinstance(token, dict) else token
        for key, token in tokens.items()
        if token
    }
