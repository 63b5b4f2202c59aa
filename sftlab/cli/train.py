"""`sftlab train`: fine-tune a model on a file of your own, and report the outcome."""

import json
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer


def train(
    file: Annotated[Path, typer.Argument(help="JSONL, JSON, CSV, TSV or Parquet.")],
    out: Annotated[
        Path, typer.Option(metavar="RUN", help="Folder for the model and the report: a new one.")
    ],
    profile: Annotated[str, typer.Option(help="A profile, a model folder, or a hub id.")] = "tiny",
    method: Annotated[
        str | None, typer.Option(help="full, lora, qlora, ...; else the profile's own.")
    ] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the rows; else 3.")] = None,
    rate: Annotated[
        float | None, typer.Option(help="Peak learning rate; else the profile's for the method.")
    ] = None,
    template: Annotated[
        str | None, typer.Option(metavar="NAME|FILE", help="Chat template; else chatml.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of the order of the rows; else 0.")] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="Any other setting, such as max_length=512."
        ),
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Rows that share its value are held out together."),
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Go on without the rows that are wrong.")
    ] = False,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Go on although the doctor finds the template wrong.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the outcome as JSON, for programs.")
    ] = False,
) -> None:
    """Fine-tune a model on your own file, measure it on held-out rows, and write a report.

    \b
    For example:
      sftlab train my.jsonl --out runs/mine
      sftlab train my.csv --out runs/mine --method lora --epochs 5 --rate 1e-3
      sftlab train my.jsonl --out runs/mine --profile smollm2-135m --set max_length=1024

    Rows are checked first, then the template, their lengths, and whether memory, disk and time
    suffice. Stopped by Ctrl-C or a kill, the same command goes on from the last checkpoint. The
    exit code is 1 when something is wrong with the rows or the template, or the machine is too
    small, and 2 for other mistakes.
    """
    from sftlab.course import parse_parameter
    from sftlab.models import find_profile
    from sftlab.train import Settings, run_identity, run_state

    given = {"method": method, "num_train_epochs": epochs, "learning_rate": rate,
             "template": template, "seed": seed}  # fmt: skip
    given |= dict(parse_parameter(text) for text in setting or [])
    settings = Settings().changed(**{k: v for k, v in given.items() if v is not None})
    found = find_profile(profile)
    options = {"skip_bad": skip_bad, "anyway": anyway, "group": group}
    _check_exists(file)
    wanted = run_identity(file, found, settings, **options)
    if run_state(out, wanted) == "finished":
        _finished(out, as_json)
        return
    try:
        _train(file, out, found, settings, options, wanted, as_json)
    except KeyboardInterrupt:
        from sftlab.train import last_step

        step = last_step(out / "checkpoints")
        where = f"goes on from step {step}" if step else "starts again: there is no checkpoint yet"
        print(f"\ninterrupted; the same command {where}:\n  {_command()}", file=sys.stderr)
        raise typer.Exit(130) from None


def _train(file, out, profile, settings, options: dict, wanted: dict, as_json: bool) -> None:
    from sftlab.planner import needs
    from sftlab.train import DataFaults, TrainingFaults, prepare, train_own_data

    def say(text: str) -> None:
        if not as_json:
            typer.echo(text)

    def note(line: str) -> None:
        typer.echo(line, err=True)

    note(f"checking {file}")
    try:
        data = prepare(file, profile=profile, settings=settings, **options)
    except DataFaults as faults:
        _stop(faults.report.as_dict(), _with_remedy(faults.report, file), as_json)
    except TrainingFaults as faults:
        found = {"ok": False, "findings": [vars(one) for one in faults.findings]}
        _stop({**found, "advice": faults.advice}, str(faults), as_json)
    say(str(data))
    table = needs(data, profile, folder=out)
    if not table.ok:
        rows = [vars(row) for row in table.rows]
        _stop({"ok": False, "preflight": rows}, str(table), as_json)
    say(f"\n{table}\n")
    done = train_own_data(data, profile, folder=out, wanted=wanted, tell=note)

    from sftlab.show import next_command, summary, write_report

    write_report(done)
    if as_json:
        typer.echo(json.dumps(_as_dict(done), indent=2, ensure_ascii=False))
        return
    for line in summary(done):
        typer.echo(line)
    typer.echo(f"report    {out / 'report.html'}\nnext      {next_command(done)}")


def _check_exists(file: Path) -> None:
    """RecordsError, with what to do, for a file that can't be read at all."""
    from sftlab.data import DataFile

    DataFile(file)


def _with_remedy(report, file: Path) -> str:
    """The report, and what to do about it."""
    more = f"--limit {report.problems_total} shows all problems"
    text = str(report).replace(
        more, f"`sftlab validate {file} {more.partition(' shows')[0]}` shows all problems"
    )
    if report.broken or not report.good:
        return f"{text}\n\nnothing was trained: mend the file first"
    return (
        f"{text}\n\nnothing was trained: mend the rows, or add --skip-bad to go on with the "
        f"{report.good:,} good ones"
    )


def _stop(report: dict[str, Any], text: str, as_json: bool) -> None:
    typer.echo(json.dumps(report, indent=2, ensure_ascii=False) if as_json else text)
    raise typer.Exit(1)


def _finished(out: Path, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"ok": True, "folder": str(out), "state": "finished"}, indent=2))
        return
    typer.echo(f"{out} is finished, and nothing was done\nreport    {out / 'report.html'}")
    typer.echo(f"next      sftlab chat {shlex.quote(str(out))}")


def _as_dict(done) -> dict[str, Any]:
    data, report = done.data, done.data.report
    sides = {"before": done.before, "after": done.after}
    return {
        "ok": True,
        "folder": str(done.folder),
        "rows": {
            "read": report.rows, "bad": report.bad, "left_out": dict(data.reasons()),
            "train": len(data.train), "held_out": len(data.held_out),
            "repeats": data.split.repeats, "nearly_repeats": data.split.near,
            "overlaps": data.split.overlaps, "cut": data.cut,
        },
        "notes": data.notes,
        "steps": done.run.history[-1]["step"],
        "seconds": done.run.seconds,
        "validation": done.run.validation,
        **{name: side and asdict(side) for name, side in sides.items()},
        "provenance": {**done.run.provenance, "file": data.sha256},
    }  # fmt: skip


def _command() -> str:
    return shlex.join(["sftlab", *sys.argv[1:]])
