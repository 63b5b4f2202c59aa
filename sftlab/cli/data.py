"""Commands on text: `corpus`, `seen`, `validate`, `doctor` and `mask`."""

from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import typer
from rich.table import Table
from rich.text import Text

from sftlab.cli.app import command, say, table

LEVELS = {"error": "red", "warning": "yellow", "note": "cyan", "ok": "green"}
ROLES = {"system": "magenta", "user": "yellow", "assistant": "cyan", "tool": "green"}


@command
def corpus(count: int = 5, seed: int = 0, kind: str | None = None, stats: bool = False) -> None:
    from sftlab.world import documents

    chosen = islice(documents(seed=seed, kind=kind), count)
    if not stats:
        for number, document in enumerate(chosen, start=1):
            say(f"--- document {number} ---\n{document.rstrip()}\n")
        return
    lengths = sorted(map(len, chosen))
    say(
        f"documents   {count:>12,}",
        f"characters  {sum(lengths):>12,}",
        f"median      {lengths[count // 2]:>12,} characters a document",
        f"longest     {lengths[-1]:>12,} characters",
    )


@command
def seen(text: str) -> None:
    from sftlab.world import seen as count_in_corpus

    times = count_in_corpus(text)
    say("never seen" if times == 0 else f"seen {times:,} time{'s' * (times > 1)}")


@command
def validate(
    file: Path,
    json_: bool = False,
    good: Path | None = None,
    bad: Path | None = None,
    limit: int = 20,
) -> None:
    from sftlab.data import validate as check

    report = check(file, limit=limit, good=good, bad=bad)
    say(report.as_dict() if json_ else str(report))
    if not report.ok:
        raise typer.Exit(1)


@command
def doctor(
    template: str | None = None,
    tokenizer: str | None = None,
    data: Path | None = None,
    max_length: int | None = None,
    json_: bool = False,
) -> None:
    if template is None and tokenizer is None:
        raise ValueError("name what to examine: --template, --tokenizer with its own, or both")
    if max_length is not None and (tokenizer is None or data is None):
        raise ValueError("--max-length counts the tokens of data: give --tokenizer and --data too")
    from sftlab.chat import examine
    from sftlab.data import read

    found = examine(
        template,
        tokenizer=None if tokenizer is None else _tokenizer(tokenizer),
        conversations=None if data is None else read(data)["messages"],
        max_length=max_length,
    )
    if json_:
        say(found.as_dict())
    else:
        _print_findings(found)
    if not found.ok:
        raise typer.Exit(1)


def _tokenizer(name: str) -> Any:
    """That of a folder, which need not have a model, or else of a profile."""
    from sftlab.models import load_tokenizer
    from sftlab.quiet import quiet_libraries

    folder = Path(name).expanduser()
    if not (folder / "tokenizer_config.json").is_file():
        return load_tokenizer(name)
    with quiet_libraries():
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def _print_findings(found: Any) -> None:
    def sentence(text: str) -> str:
        return text[:1].upper() + text[1:] + ("" if text.endswith((".", "`")) else ".")

    shown = table(
        {"no_wrap": True},
        {"header": "finding", "no_wrap": True},
        {"header": "what it means, and what to do", "ratio": 1, "overflow": "fold"},
        padding=(0, 1),
        expand=True,
    )
    for finding in found.findings:
        said = Text(sentence(finding.what))
        if finding.remedy:
            said.append(f"\n→ {sentence(finding.remedy)}", style="bold")
        shown.add_row(Text(finding.level, style=LEVELS[finding.level]), finding.code, said)
    levels = [finding.level for finding in found.findings]
    counts = [
        f"{number} {level}{'s' * (number != 1)}"
        for level in ("error", "warning", "note")
        if (number := levels.count(level))
    ]
    say(shown, f"template {found.template}: {', '.join(counts) or 'nothing wrong was found'}")


@command
def mask(
    messages: Path,
    template: str | None = None,
    tokenizer: str = "tiny",
    row: int = 1,
    turns: str = "all",
    start: str = "content",
    no_end_of_turn: bool = False,
    max_length: int | None = None,
    json_: bool = False,
) -> None:
    from sftlab.show import MASK_KEY, show_mask

    if turns not in ("all", "last", "everything"):
        raise ValueError(f"--turns {turns}: use all, last or everything")
    conversation = _conversation(messages, row)
    chosen = {"turns": turns, "start": start, "max_length": max_length}
    xray = show_mask(
        **conversation,
        template=template,
        tokenizer=_tokenizer(tokenizer),
        end_of_turn=not no_end_of_turn,
        **chosen,
    )
    if json_:
        say(xray.as_dict())
        return
    shown = Table.grid()
    for column in ({"no_wrap": True}, {"no_wrap": True}, {"overflow": "fold"}):
        shown.add_column(**column)
    for line in xray.lines:
        text = Text(line.text, style="bold" if line.supervised else "dim")
        text.append(line.after, style="bold blue")
        role = Text(f"{line.role}  ", style=ROLES.get(line.role, "dim"))
        shown.add_row(role, Text(line.before, style="bold blue"), text)
    say(Text(f"template {xray.template}: {xray.sentence}", style="bold"))
    say(Text(MASK_KEY + "\n", style="dim"), shown)
    say(*(Text(f"! {warning}", style="yellow") for warning in xray.warnings))


def _conversation(file: Path, row: int) -> dict[str, Any]:
    """`messages` of a file's row, counted from 1, with its `tools`; or of a JSON list of messages.

    Messages are taken as they are: what a template makes of them is what is to be seen. Rows of
    another shape are converted.
    """
    from sftlab.data import DataFile, RecordsError, convert

    def are_messages(value: Any) -> bool:
        listed = isinstance(value, list) and len(value) > 0
        return listed and all(isinstance(m, dict) and isinstance(m.get("role"), str) for m in value)

    source = DataFile(file)
    rows = list(source) if source.format == "json" else list(islice(source, row))
    if source.format == "json" and are_messages(alone := [one.value for one in rows]):
        if row != 1:
            raise ValueError(f"--row {row}: {file} holds one conversation; leave --row out")
        return {"messages": alone}
    broken = [one for one in rows if not one.counts]
    if not broken and len(rows) < row:
        raise ValueError(f"--row {row}: {file} has {len(rows)} rows; give one from 1")
    found = broken[0] if broken else rows[row - 1]
    problems = found.problems
    if not problems:
        if isinstance(found.value, dict) and are_messages(found.value.get("messages")):
            return {name: found.value.get(name) for name in ("messages", "tools")}
        try:
            return {"messages": convert(found.value)}
        except RecordsError as error:
            problems = error.problems
    at = {"file": str(file), "row": row}
    raise RecordsError([replace(one, line=found.line or one.line, **at) for one in problems])
