"""Commands on text: `corpus`, `seen`, `validate`, `doctor` and `mask`."""

import json
import os
from itertools import islice
from pathlib import Path
from typing import Any

import typer

from sftlab.cli.app import command


@command
def corpus(count: int = 5, seed: int = 0, kind: str | None = None) -> None:
    from sftlab.world import documents

    for number, document in enumerate(islice(documents(seed=seed, kind=kind), count), start=1):
        print(f"--- document {number} ---\n{document.rstrip()}\n")


@command
def seen(text: str) -> None:
    from sftlab.world import seen as count_in_corpus

    print(f"seen {count_in_corpus(text):,} times")


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
    print(json.dumps(report.as_dict(), indent=2, ensure_ascii=False) if json_ else report)
    if not report.ok:
        raise typer.Exit(1)


@command
def doctor(
    template: str | None = None,
    tokenizer: str | None = None,
    data: Path | None = None,
    max_length: int | None = None,
) -> None:
    if template is None and tokenizer is None:
        raise ValueError("name what to examine: --template, --tokenizer with its own, or both")
    if max_length is not None and (tokenizer is None or data is None):
        raise ValueError("--max-length counts the tokens of rows: give --tokenizer and --data too")
    from sftlab.chat import examine
    from sftlab.data import read

    found = examine(
        template,
        tokenizer=None if tokenizer is None else _tokenizer(tokenizer),
        conversations=None if data is None else read(data)["messages"],
        max_length=max_length,
    )
    print(found)
    if not found.ok:
        raise typer.Exit(1)


def _tokenizer(name: str) -> Any:
    from sftlab.models import load_tokenizer

    folder = os.path.expanduser(name)
    here = {
        file for file in ("tokenizer_config.json", "config.json") if Path(folder, file).is_file()
    }
    if here != {"tokenizer_config.json"}:
        return load_tokenizer(name)
    from transformers import AutoTokenizer  # a saved run need not hold a whole model

    options = {"local_files_only": True, "trust_remote_code": False}
    return AutoTokenizer.from_pretrained(folder, **options)


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
) -> None:
    from sftlab.data import read
    from sftlab.show import show_mask

    rows = read(messages)["messages"]
    if row > len(rows):
        raise ValueError(f"--row {row}: {messages} has {len(rows)} rows; give one from 1")
    xray = show_mask(
        rows[row - 1],
        template=template,
        tokenizer=_tokenizer(tokenizer),
        turns=turns,
        start=start,
        end_of_turn=not no_end_of_turn,
        max_length=max_length,
    )
    print(f"template {xray.template}\n{xray}")
