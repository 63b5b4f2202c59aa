"""`sftlab ship` and `checklist`: a release that passed the gate, and what else is to be done."""

from pathlib import Path

import typer

from sftlab.cli.app import command

MARKS = {True: "ok", False: "FAILED", None: "-"}


@command
def ship(
    run: Path,
    out: Path,
    to: str,
    type_: str | None = None,
    questions: Path | None = None,
    changed: bool = False,
) -> None:
    from sftlab.paths import check_writable
    from sftlab.ship import GateError, release
    from sftlab.train import writing

    check_writable(out)
    try:
        with writing(out):
            made = release(run, out, to=to, type=type_, questions=questions, verify=not changed)
    except GateError as refused:
        _print_gate(refused.gate)
        print(f"\n{refused}\nnothing was written")
        raise typer.Exit(1) from None
    _print_gate(made.gate)
    print(f"\n{made.gate.verdict}: {out}")
    print("files    ", *sorted(file.name for file in out.iterdir()))
    for program, line in made.serve.items():
        print(f"{program:13}{line}")


def _print_gate(gate) -> None:
    rows = gate.table[["check", "passed", "measured", "bound"]].values.tolist()
    for check, passed, measured, bound in rows:
        print(f"{check:11}{MARKS[passed]:8}{measured} (allowed: {bound})")


@command
def checklist(run: Path, release: Path | None = None, out: Path | None = None) -> None:
    from sftlab.paths import write_atomically
    from sftlab.show import run_checklist

    page = run_checklist(run, release=release)
    file = out or run / "checklist.html"
    write_atomically(file, page.html)
    for part, item, state, evidence in page.boxes:
        print(f"{part:12}{item:36}{state:14}{evidence}")
    print(f"page      {file}")
