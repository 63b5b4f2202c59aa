"""`sftlab doctor`: what will go wrong with a chat template, before anything is trained."""

from pathlib import Path
from typing import Annotated

import typer

COLOURS = {"error": "red", "warning": "yellow", "note": "cyan", "ok": "green"}


def doctor(
    template: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|NAME",
            help="A built-in name, a name that TRL knows, or a file; else the tokenizer's own.",
        ),
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="A profile, or a folder with a tokenizer."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The conversations to train on.")
    ] = None,
    max_length: Annotated[
        int | None,
        typer.Option(min=1, help="The tokens that training keeps of each conversation."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print every finding, for programs.")
    ] = False,
) -> None:
    """Examine a chat template: does it end its turns, lose text, fit the tokenizer and the data?

    \b
    For example:
      sftlab doctor --template chatml
      sftlab doctor --template my.jinja --tokenizer tiny
      sftlab doctor --tokenizer runs/my-first-assistant --data train.jsonl --max-length 512

    The exit code is 1 when a finding is an error.
    """
    if template is None and tokenizer is None:
        raise ValueError("name what to examine: --template, --tokenizer with its own, or both")
    if max_length is not None and (tokenizer is None or data is None):
        raise ValueError("--max-length counts the tokens of data: give --tokenizer and --data too")
    from sftlab.chat import examine

    found = examine(
        template,
        tokenizer=None if tokenizer is None else load_tokenizer(tokenizer),
        conversations=None if data is None else load_conversations(data),
        max_length=max_length,
    )
    if as_json:
        import json

        typer.echo(json.dumps(found.as_dict(), indent=2, ensure_ascii=False))
    else:
        _print(found)
    if not found.ok:
        raise typer.Exit(1)


def load_tokenizer(name: str):
    """The tokenizer of a profile or of a folder on this machine.

    Raises ValueError when there is none; nothing is fetched from the hub.
    """
    from sftlab.profiles import PROFILES, find_profile, local_folder
    from sftlab.quiet import quiet_libraries

    folder = Path(name).expanduser()
    if name in PROFILES and not folder.is_dir():
        here = local_folder(find_profile(name))
        if here is None:
            raise ValueError(
                f"--tokenizer {name}: the model of this profile is not on this machine; load it "
                "once (`sftlab chat` does), or give the folder of a tokenizer"
            )
        folder = here
    if not (folder / "tokenizer_config.json").is_file():
        raise ValueError(
            f"--tokenizer {name}: there is no tokenizer_config.json in that folder; give a folder "
            f"with a tokenizer's files, or one of {', '.join(PROFILES)}"
        )
    with quiet_libraries():
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def load_conversations(file: Path) -> list[list[dict]]:
    """The conversations of a data file, every row checked first; RecordsError when one is wrong."""
    from sftlab.data import read

    return read(file)["messages"]


def _print(found) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from sftlab.cli.course import console

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), expand=True)
    table.add_column("", no_wrap=True)
    table.add_column("finding", no_wrap=True)
    table.add_column("what it means, and what to do", ratio=1, overflow="fold")
    for finding in found.findings:
        said = Text(_sentence(finding.what))
        if finding.remedy:
            said.append(f"\n→ {_sentence(finding.remedy)}", style="bold")
        table.add_row(Text(finding.level, style=COLOURS[finding.level]), finding.code, said)
    out = console()
    out.print(table)
    counts = [
        f"{number} {level}{'s' * (number != 1)}"
        for level in ("error", "warning", "note")
        if (number := sum(finding.level == level for finding in found.findings))
    ]
    typer.echo(f"template {found.template}: {', '.join(counts) or 'nothing wrong was found'}")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "`")) else ".")
