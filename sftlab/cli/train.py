"""`sftlab train`, `preflight` and `plan`: a fine-tune of a file of your own, and what it needs."""

import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import typer

from sftlab.cli.app import command, say


@command
def train(
    file: Path,
    out: Path,
    profile: str = "tiny",
    method: str | None = None,
    epochs: float | None = None,
    rate: float | None = None,
    template: str | None = None,
    seed: int | None = None,
    set_: list[str] | None = None,
    group: str | None = None,
    skip_bad: bool = False,
    anyway: bool = False,
    json_: bool = False,
) -> None:
    from sftlab.course import parse_parameter
    from sftlab.data import DataFile
    from sftlab.models import find_profile
    from sftlab.train import Settings, last_step, run_identity, run_state

    given = {"method": method, "num_train_epochs": epochs, "learning_rate": rate}
    given |= {"template": template, "seed": seed}
    given |= dict(parse_parameter(text) for text in set_ or [])
    settings = Settings().changed(**{k: v for k, v in given.items() if v is not None})
    base = find_profile(profile)
    options = {"skip_bad": skip_bad, "anyway": anyway, "group": group}
    DataFile(file)  # or a RecordsError with what to do
    wanted = run_identity(file, base, settings, **options)
    if run_state(out, wanted) == "finished":
        lines = [f"{out} is finished, and nothing was done", f"report    {out / 'report.html'}"]
        lines.append(f"next      sftlab chat {shlex.quote(str(out))}")
        done = {"ok": True, "folder": str(out), "state": "finished"}
        say(*([done] if json_ else lines))
        return
    try:
        _train(file, out, base, settings, options, wanted, json_)
    except KeyboardInterrupt:
        step = last_step(out / "checkpoints")
        where = f"goes on from step {step}" if step else "starts again: there is no checkpoint yet"
        again = shlex.join(["sftlab", *sys.argv[1:]])
        print(f"\ninterrupted; the same command {where}:\n  {again}", file=sys.stderr)
        raise typer.Exit(130) from None


def _train(
    file: Path, out: Path, profile: Any, settings: Any, options: dict, wanted: dict, as_json: bool
) -> None:
    from sftlab.planner import needs
    from sftlab.show import next_command, summary, write_report
    from sftlab.train import DataFaults, TrainingFaults, prepare, train_own_data

    def stop(report: dict[str, Any], text: str) -> NoReturn:
        say(report if as_json else text)
        raise typer.Exit(1)

    def note(line: str) -> None:
        typer.echo(line, err=True)

    note(f"checking {file}")
    try:
        data = prepare(file, profile=profile, settings=settings, **options)
    except DataFaults as faults:
        report = faults.report
        remedy = "mend the file first"
        if report.good and not report.broken:
            remedy = f"mend the rows, or add --skip-bad to go on with the {report.good:,} good ones"
        stop(report.as_dict(), f"{report}\n\nnothing was trained: {remedy}")
    except TrainingFaults as faults:
        found = {"ok": False, "findings": [vars(one) for one in faults.findings]}
        stop({**found, "advice": faults.advice}, str(faults))
    table = needs(data, profile, folder=out)
    if not as_json:
        say(str(data), *([f"\n{table}\n"] if table.ok else []))
    if not table.ok:
        stop({"ok": False, "preflight": [vars(row) for row in table.rows]}, str(table))
    done = train_own_data(data, profile, folder=out, wanted=wanted, tell=note)
    write_report(done)
    if as_json:
        say(_as_dict(done))
    else:
        say(*summary(done), f"report    {out / 'report.html'}", f"next      {next_command(done)}")


def _as_dict(done: Any) -> dict[str, Any]:
    data, report, split = done.data, done.data.report, done.data.split
    sides = {"before": done.before, "after": done.after}
    rows = {
        "read": report.rows, "bad": report.bad, "left_out": dict(data.reasons()),
        "train": len(data.train), "held_out": len(data.held_out), "repeats": split.repeats,
        "nearly_repeats": split.near, "overlaps": split.overlaps, "cut": data.cut,
    }  # fmt: skip
    return {
        "ok": True,
        "folder": str(done.folder),
        "rows": rows,
        "notes": data.notes,
        "steps": done.run.history[-1]["step"],
        "seconds": done.run.seconds,
        "validation": done.run.validation,
        **{name: side and asdict(side) for name, side in sides.items()},
        "provenance": {**done.run.provenance, "file": data.sha256},
    }


@command
def preflight(profile: str = "tiny", method: str | None = None) -> None:
    from sftlab.planner import preflight as check

    found = check(profile, method=method)
    say(str(found))
    if not found.ok:
        raise typer.Exit(1)


GB = 1e9
MEANING = {
    "weights": "the base's",
    "adapters": "LoRA's weights, or the prefix",
    "optimizer": "Adam's two moments",
    "gradients": "of what is trained",
    "activations": "kept for the backward pass",
    "logits": "of the supervised positions, with their gradients",
    "temporary": "copies of weights, gradients of activations",
}


@command
def plan(
    model: str,
    method: str = "lora",
    batch: int = 4,
    seq: int = 2048,
    checkpointing: bool = False,
    rank: int = 16,
    prefix_tokens: int = 16,
    trained_layers: int | None = None,
    bf16: bool = True,
    supervised: float = 1.0,
    padded: bool = False,
    accumulation: int = 1,
    gpu: str | None = None,
    memory: float | None = None,
    tokens: float = 1e7,
) -> None:
    from sftlab.machine import free_memory
    from sftlab.planner import PlanError, estimate, find_architecture, find_gpu, speed

    for name, value in (("memory", memory), ("tokens", tokens)):
        if value is not None and not value > 0:
            raise PlanError(f"{name} is {value!r}; give a number above zero")
    chosen = {
        "method": method,
        "per_device_train_batch_size": batch,
        "max_length": seq,
        "gradient_checkpointing": checkpointing,
        "r": rank,
        "bf16": bf16,
        "supervised": supervised,
        "gradient_accumulation_steps": accumulation,
        "device": "cuda" if gpu else None,
        "num_virtual_tokens": prefix_tokens,
        "trained_layers": trained_layers,
        "padded": padded,
    }
    room = find_gpu(gpu).memory if gpu else None
    architecture = find_architecture(model)
    found = estimate(architecture, **chosen)
    pace = speed(found, gpu=gpu)
    room = memory * GB if memory else room or free_memory()
    where = gpu or ("the given memory" if memory else f"free {found.step.device}")
    say(_text(found, pace, room=room, where=where, tokens=tokens))
    if found.needed > room:
        say(*_remedies(architecture, chosen, room=room))


def _text(found: Any, pace: Any, *, room: float, where: str, tokens: float) -> str:
    a, step = found.architecture, found.step
    parts = {part: (size, MEANING[part]) for part, size in found.at_peak().items() if size}
    peak = f"at the {found.peak} of the backward pass, when it is most"
    parts |= {"total": (found.total, peak), "process": (found.process, "besides tensors")}
    lines = [
        f"{step.method} on {a.name}: {a.parameters:,} weights, {found.trained:,} trained",
        f"{step.per_device_train_batch_size} x {step.max_length} tokens, {step.supervised:.0%} of "
        f"them scored, {'bfloat16' if step.bf16 else 'float32'}{', padded' * step.padded}"
        f"{', checkpointing' * step.gradient_checkpointing}",
        "",
        *(f"  {part:14}{size / GB:9.2f} GB   {what}" for part, (size, what) in parts.items()),
        "",
        f"memory  needs {found.needed / GB:.1f} GB, {where} has {room / GB:.1f} GB: "
        + ("it fits" if found.needed <= room else "it does NOT fit"),
        f"disk    {2 * a.parameters / GB:.2f} GB published weights in 16 bits, "
        f"{found.result / GB:.2f} GB result, {found.checkpoint / GB:.2f} GB a checkpoint",
        f"time    {pace.tokens_per_second:,.0f} tokens a second, {pace.hours(tokens):,.1f} hours "
        f"for {tokens:,.0f} tokens ({pace.source})",
    ]
    notes = {
        "finetune uses checkpointing under qlora: see --checkpointing": step.method == "qlora"
        and not step.gradient_checkpointing,
        "with small batches or a small model it takes longer: on an H100 up to six times as long": (
            step.device == "cuda"
        ),
        "int8 stores columns with values beyond 6 a second time; the plan has the most there can "
        "be": step.method == "int8" and step.device == "cuda",
        "of the last steps, when every weight is trained": step.method == "gradual",
        f"layers of {a.name} are not built as Llama's: activations are rough": not a.known_layout,
    }
    return "\n".join(lines + [f"note    {note}" for note, holds in notes.items() if holds])


def _remedies(architecture: Any, chosen: dict, *, room: float) -> list[str]:
    """What would need less, each with its figure."""
    from sftlab.planner import estimate

    whole = chosen["per_device_train_batch_size"] * chosen["gradient_accumulation_steps"]
    smaller = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": whole}
    changes = {
        "--checkpointing": {"gradient_checkpointing": True},
        f"--batch 1 --accumulation {whole}": smaller,
        "--supervised 0.25, if a quarter are answers": {"supervised": 0.25},
        "--method qlora": {"method": "qlora"},
    }
    if chosen["method"] == "prefix":
        del changes["--checkpointing"]  # it does not go with a prefix
    lines, all_of_them = ["-> smaller:"], dict(chosen)
    for words, change in changes.items():
        if any(chosen[name] != value for name, value in change.items()):
            all_of_them |= change
            needed = estimate(architecture, **(chosen | change)).needed
            lines.append(f"   {needed / GB:8.1f} GB  {words}")
    needed = estimate(architecture, **all_of_them).needed
    fits = (
        "fits" if needed <= room else "does not fit either: choose a smaller model or more memory"
    )
    return [*lines, f"   {needed / GB:8.1f} GB  all: {fits}"]
