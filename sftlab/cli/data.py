"""Commands on text: `corpus`, `seen`, `validate`, `doctor` and `mask`."""

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from sftlab.cli.course import console

LEVELS = {"error": "red", "warning": "yellow", "note": "cyan", "ok": "green"}
ROLES = {"system": "magenta", "user": "yellow", "assistant": "cyan", "tool": "green"}


def corpus(
    count: Annotated[int, typer.Option(min=1, help="How many documents.")] = 5,
    seed: Annotated[int, typer.Option(help="0 is the corpus of the base models.")] = 0,
    kind: Annotated[str | None, typer.Option(help="Only documents of this kind.")] = None,
    stats: Annotated[bool, typer.Option(help="Print counts instead of the documents.")] = False,
) -> None:
    """Print documents of the base models' training text.

    \b
    For example:
      sftlab corpus                          the first five documents
      sftlab corpus --count 3 --kind story   three stories
      sftlab corpus --count 10000 --stats    how long ten thousand of them are
    """
    from sftlab.world import documents

    chosen = itertools.islice(documents(seed=seed, kind=kind), count)
    if not stats:
        for number, document in enumerate(chosen, start=1):
            typer.echo(f"--- document {number} ---\n{document.rstrip()}\n")
        return
    lengths = sorted(len(document) for document in chosen)
    typer.echo(f"documents   {count:>12,}")
    typer.echo(f"characters  {sum(lengths):>12,}")
    typer.echo(f"median      {lengths[count // 2]:>12,} characters a document")
    typer.echo(f"longest     {lengths[-1]:>12,} characters")


def seen(text: Annotated[str, typer.Argument(help="The exact text to look for.")]) -> None:
    """Count how often that training text holds a text.

    \b
    For example:
      sftlab seen "The capital of France is Paris"

    Capitals, spaces and full stops count. The first time takes half a minute, while the corpus is
    made again from its seed.
    """
    from sftlab.world import seen as count_in_corpus

    times = count_in_corpus(text)
    typer.echo("never seen" if times == 0 else f"seen {times:,} time{'s' * (times > 1)}")


def validate(
    file: Annotated[Path, typer.Argument(help="JSONL, JSON, CSV, TSV or Parquet.")],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the report as JSON, for programs.")
    ] = False,
    good: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the good rows here, as JSONL.")
    ] = None,
    bad: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the bad rows here, each with its problems."),
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="How many problems to show.")] = 20,
) -> None:
    """Check a file of examples, row by row, and tell what is wrong and how to mend it.

    \b
    For example:
      sftlab validate my.jsonl
      sftlab validate my.jsonl --good clean.jsonl --bad rejected.jsonl
      sftlab validate my.csv --json

    Rows may have messages, conversations (ShareGPT), prompt and completion, or instruction, input
    and output. The exit code is 0 when all is well, 1 when something is wrong, 2 when the file
    can't be read at all.
    """
    from sftlab.data import validate as check

    report = check(file, limit=limit, good=good, bad=bad)
    if as_json:
        typer.echo(json.dumps(report.as_dict(), indent=2, ensure_ascii=False))
    else:
        typer.echo(str(report))
    if not report.ok:
        raise typer.Exit(1)


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
    from sftlab.data import read

    found = examine(
        template,
        tokenizer=None if tokenizer is None else load_tokenizer(tokenizer),
        conversations=None if data is None else read(data)["messages"],
        max_length=max_length,
    )
    if as_json:
        typer.echo(json.dumps(found.as_dict(), indent=2, ensure_ascii=False))
    else:
        _print_findings(found)
    if not found.ok:
        raise typer.Exit(1)


def load_tokenizer(name: str):
    """The tokenizer of a profile or of a folder; ValueError when it is not on this machine."""
    from sftlab.models import PROFILES, find_profile, local_folder
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


def _print_findings(found) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), expand=True)
    table.add_column("", no_wrap=True)
    table.add_column("finding", no_wrap=True)
    table.add_column("what it means, and what to do", ratio=1, overflow="fold")
    for finding in found.findings:
        said = Text(_sentence(finding.what))
        if finding.remedy:
            said.append(f"\n→ {_sentence(finding.remedy)}", style="bold")
        table.add_row(Text(finding.level, style=LEVELS[finding.level]), finding.code, said)
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
        _print_mask(xray)


def load_conversation(file: Path, row: int = 1) -> dict[str, Any]:
    """The messages of a file's row, counted from 1, with its tools.

    They are taken as they are, where they are messages: what a template makes of them is what is
    to be seen. Rows of another shape are converted.

    Raises:
        RecordsError: the file or the row can't be read.
        ValueError: there is no such row.
    """
    from sftlab.data import DataFile, RecordsError, convert

    if (alone := _alone(file)) is not None:
        if row != 1:
            raise ValueError(f"--row {row}: {file} holds one conversation; leave --row out")
        return {"messages": alone}
    rows = list(itertools.islice(DataFile(file), row))
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
        problems = [replace(p, file=str(file), line=found.line) for p in error.problems]
        raise RecordsError(problems) from None


def _alone(file: Path) -> list[dict] | None:
    """The messages of a file that is one list of them."""
    if file.suffix != ".json" or not file.is_file():
        return None
    try:
        value = json.loads(file.read_text(encoding="utf-8-sig"))
    except ValueError:  # the reader of rows reports it, with the line
        return None
    return value if _are_messages(value) else None


def _are_messages(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(one, dict) and isinstance(one.get("role"), str) for one in value)
    )


def _print_mask(xray) -> None:
    from sftlab.show import MASK_KEY

    table = Table.grid()
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for line in xray.lines:
        shown = Text(line.text, style="bold" if line.supervised else "dim")
        shown.append(line.after, style="bold blue")
        role = Text(f"{line.role}  ", style=ROLES.get(line.role, "dim"))
        table.add_row(role, Text(line.before, style="bold blue"), shown)
    out = console()
    out.print(Text(f"template {xray.template}: {xray.sentence}", style="bold"))
    out.print(Text(MASK_KEY + "\n", style="dim"))
    out.print(table)
    for warning in xray.warnings:
        out.print(Text(f"! {warning}", style="yellow"))
