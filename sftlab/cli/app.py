"""How a function becomes a command; what `--help` says of it is in commands.toml.

    @command
    def plan(model: str, batch: int = 4)    in Python
    sftlab plan --model MODEL --batch 8     in a terminal

Imports of libraries stay inside the commands, so that `--help` answers at once.
"""

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

WORDS = tomllib.loads(Path(__file__).with_name("commands.toml").read_text(encoding="utf-8"))

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Learn supervised fine-tuning by measuring it, offline, on this machine.

    A mistake is answered with one line; SFTLAB_DEBUG=1 in the environment shows the traceback.
    """,
)


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Register a function as the command of its name, with the words of commands.toml."""
    name = function.__name__.rstrip("_")  # `class_` is the command `class`
    words, kinds = WORDS[name], function.__annotations__
    for key, word in words.get("arguments", {}).items():
        kinds[key] = Annotated[kinds[key], typer.Argument(**_entry(word))]
    for key, word in words.get("options", {}).items():
        flags = [f"--{key.strip('_').replace('_', '-')}"]
        entry = {"flags": flags} | _entry(word)
        kinds[key] = Annotated[kinds[key], typer.Option(*entry.pop("flags"), **entry)]
    return app.command(name, help=words["help"])(function)


def new_file(out: Path) -> Path:
    """The file of an --out; ValueError when there is one already."""
    if out.exists():
        raise ValueError(f"{out} is there already; delete it, or give --out a new name")
    return out


def _entry(word: str | dict[str, Any]) -> dict[str, Any]:
    return {"help": word} if isinstance(word, str) else word
