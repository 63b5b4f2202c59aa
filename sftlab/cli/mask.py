"""`sftlab mask`: which tokens of a conversation a model is to learn, under any chat template."""

import json
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

ROLES = {"system": "magenta", "user": "yellow", "assistant": "cyan", "tool": "green"}


def mask(
    messages: Annotated[
        Path, typer.Option(metavar="FILE", help="A conversation, or a file of them.")
    ],
    template: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="A built-in name, a name that TRL knows, or a file; else the tokenizer's own, or "
            "chatml.",
        ),
    ] = None,
    tokenizer: Annotated[
        str, typer.Option(metavar="DIR", help="A profile, or a folder with a tokenizer.")
    ] = "tiny",
    row: Annotated[int, typer.Option(min=1, help="Which conversation of the file.")] = 1,
    turns: Annotated[
        str, typer.Option(help="The answers to learn: all, last, or everything.")
    ] = "all",
    start: Annotated[
        str, typer.Option(help="Where an answer begins: content, or generation (prompt).")
    ] = "content",
    no_end_of_turn: Annotated[
        bool, typer.Option("--no-end-of-turn", help="Leave out what ends an answer.")
    ] = False,
    max_length: Annotated[
        int | None, typer.Option(min=1, help="The tokens that training keeps.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print every token, for programs.")] = (
        False
    ),
) -> None:
    """Show which tokens of a conversation are learned; brackets hold what is.

    \b
    For example:
      sftlab mask --template chatml --messages chat.json
      sftlab mask --template my.jinja --messages train.jsonl --row 7 --turns last
      sftlab mask --tokenizer runs/my-first-assistant --messages chat.json --json

    The file holds a list of messages, or rows as `sftlab validate` reads them.
    """
    from sftlab.cli.doctor import load_tokenizer
    from sftlab.show import show_mask

    if turns not in ("all", "last", "everything"):
        raise ValueError(f"--turns {turns}: use all, last or everything")
    conversation = load_conversation(messages, row)
    xray = show_mask(
        conversation["messages"], tools=conversation.get("tools"), template=template,
        tokenizer=load_tokenizer(tokenizer), turns=turns, start=start,
        end_of_turn=not no_end_of_turn, max_length=max_length,
    )  # fmt: skip
    if as_json:
        typer.echo(json.dumps(xray.as_dict(), indent=2, ensure_ascii=False))
    else:
        _print(xray)


def load_conversation(file: Path, row: int = 1) -> dict[str, Any]:
    """The messages of a file's row, counted from 1, with its tools.

    They are taken as they are, where they are messages: what a template makes of them is what is
    to be seen. Rows of another shape are converted.

    Raises:
        RecordsError: the file or the row can't be read.
        ValueError: there is no such row.
    """
    from dataclasses import replace

    from sftlab.data import DataFile, RecordsError, convert

    if (alone := _alone(file)) is not None:
        if row != 1:
            raise ValueError(f"--row {row}: {file} holds one conversation; leave --row out")
        return {"messages": alone}
    rows = list(islice(DataFile(file), row))
    if broken := [one for one in rows if not one.counts]:
        raise RecordsError([replace(p, file=str(file)) for p in broken[0].problems])
    if len(rows) < row:
        raise ValueError(f"--row {row}: {file} has {len(rows)} rows; give one from 1")
    found = rows[-1]
    if found.problems:
        raise RecordsError([replace(p, file=str(file), line=found.line) for p in found.problems])
    if isinstance(found.value, dict) and _are_messages(found.value.get("messages")):
        return found.value
    try:
        return {"messages": convert(found.value)}
    except RecordsError as error:
        told = [replace(p, file=str(file), line=found.line) for p in error.problems]
        raise RecordsError(told) from None


def _alone(file: Path) -> list[dict] | None:
    """The messages of a file that is one list of them."""
    if file.suffix != ".json" or not file.is_file():
        return None
    try:
        value = json.loads(file.read_text(encoding="utf-8-sig"))
    except ValueError:  # told by the reader of rows, with the line
        return None
    return value if _are_messages(value) else None


def _are_messages(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(one, dict) and isinstance(one.get("role"), str) for one in value)
    )


def _print(xray) -> None:
    from rich.table import Table
    from rich.text import Text

    from sftlab.cli.ledger import _console
    from sftlab.show import KEY, lines

    table = Table.grid()
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for line in lines(xray.tokens):
        shown = Text(line.text, style="bold" if line.supervised else "dim")
        shown.append(line.after, style="bold blue")
        role = Text(f"{line.role}  ", style=ROLES.get(line.role, "dim"))
        table.add_row(role, Text(line.before, style="bold blue"), shown)
    console = _console()
    console.print(Text(f"template {xray.template}: {xray.sentence}", style="bold"))
    console.print(Text(KEY + "\n", style="dim"))
    console.print(table)
    for warning in xray.warnings:
        console.print(Text(f"! {warning}", style="yellow"))
