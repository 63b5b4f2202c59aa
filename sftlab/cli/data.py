"""Commands on text: `corpus`, `seen`, `validate`, `doctor` and `mask`."""

import json
import os
from dataclasses import replace
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
    template: str | None = None,
    meta: list[str] | None = None,
    limit: int = 20,
) -> None:
    from sftlab.chat import examine, find_template
    from sftlab.data import read
    from sftlab.data import validate as check

    if template:
        find_template(template)  # or an error, before anything is written
    report = check(file, limit=limit, good=good, bad=bad, meta=meta or ())
    shown, found = report.as_dict(), None
    if template and report.good and not report.broken:
        found = examine(template, conversations=read(file, bad="drop", meta=meta or ()))
        kept = [one for one in found.findings if one.level == "error" or "rows" in one.code]
        found = replace(found, findings=tuple(kept))
        shown |= {"ok": report.ok and found.ok, "render": list(map(vars, kept))}
    counted = "\n(rows are counted here without the bad ones)" if found and report.bad else ""
    text = f"{report}\n\n{found}{counted}" if found else report
    # In ASCII, which every terminal and pipe has: JSON knows no other escape.
    print(json.dumps(shown, indent=2) if json_ else text)
    if not shown["ok"]:
        raise typer.Exit(1)


@command
def doctor(
    template: str | None = None,
    tokenizer: str | None = None,
    data: Path | None = None,
    max_length: int | None = None,
    turns: str = "all",
    start: str = "auto",
    meta: list[str] | None = None,
    changed: bool = False,
) -> None:
    if template is None and tokenizer is None:
        raise ValueError("name what to examine: --template, --tokenizer with its own, or both")
    if max_length is not None and (tokenizer is None or data is None):
        raise ValueError("--max-length counts the tokens of rows: give --tokenizer and --data too")
    from sftlab.chat import examine
    from sftlab.data import read
    from sftlab.train import Settings

    how = Settings(turns=turns, start=start)
    found = examine(
        template,
        tokenizer=None if tokenizer is None else _tokenizer(tokenizer, verify=not changed),
        conversations=None if data is None else read(data, meta=meta or ()),
        max_length=max_length,
        turns=how.turns,
        start=how.start,
    )
    print(found)
    if not found.ok:
        raise typer.Exit(1)


def _tokenizer(name: str, *, verify: bool) -> Any:
    from sftlab.integrity import changes
    from sftlab.models import load_tokenizer
    from sftlab.profiles import Profile, UnknownProfileError, find_profile

    folder = Path(os.path.expanduser(name))
    if (folder / "tokenizer_config.json").is_file() and not (folder / "config.json").is_file():
        # A run of adapters, or a tokenizer alone, of which no model is looked for.
        if verify and (said := changes(folder)):
            raise UnknownProfileError(said)
        return load_tokenizer(Profile(name=name, source=str(folder.resolve())))
    return load_tokenizer(find_profile(name, verify=verify))


@command
def mask(
    messages: Path,
    template: str | None = None,
    tokenizer: str = "tiny",
    row: int = 1,
    turns: str = "all",
    start: str = "auto",
    no_end_of_turn: bool = False,
    max_length: int | None = None,
    meta: list[str] | None = None,
    changed: bool = False,
) -> None:
    from sftlab.chat import find_template, setup_tokenizer
    from sftlab.data import read
    from sftlab.show import show_mask
    from sftlab.train import Settings, check_examples

    rows = check_examples(read(messages, meta=meta or ()))
    if row > len(rows):
        raise ValueError(f"--row {row}: {messages} has {len(rows)} rows; give one from 1")
    found = _tokenizer(tokenizer, verify=not changed)
    template = template or ("own" if found.chat_template else "chatml")
    how = Settings(turns=turns, start=start, template=template)
    setup_tokenizer(found, template=template)  # as the training does
    options = {"turns": how.turns, "start": how.start, "max_length": max_length}
    options["end_of_turn"] = not no_end_of_turn
    xray = show_mask(rows[row - 1], tokenizer=found, **options)
    print(f"template {template if template == 'own' else find_template(template).name}\n{xray}")
