"""`sftlab train`, `preflight` and `plan`: a fine-tune of a file of your own, and what it needs."""

import io
import shlex
import sys
import warnings
from pathlib import Path

import typer

from sftlab.cli.app import command


@command
def train(
    file: Path,
    out: Path,
    profile: str = "tiny",
    method: str | None = None,
    epochs: float | None = None,
    rate: float | None = None,
    template: str | None = None,
    turns: str | None = None,
    start: str | None = None,
    seed: int | None = None,
    set_: list[str] | None = None,
    group: str | None = None,
    meta: list[str] | None = None,
    skip_bad: bool = False,
    anyway: bool = False,
    changed: bool = False,
) -> None:
    from sftlab.course import parse_parameter
    from sftlab.data import DataFile
    from sftlab.machine import processes
    from sftlab.paths import check_writable
    from sftlab.planner import needs
    from sftlab.profiles import find_profile
    from sftlab.show import next_command, summary, write_report
    from sftlab.train import (
        DataFaults,
        Settings,
        TrainingFaults,
        last_step,
        prepare,
        run_identity,
        run_state,
        train_own_data,
        writing,
    )

    def note(line: str) -> None:
        if team.is_main_process:
            typer.echo(line, err=True)

    given = {"method": method, "num_train_epochs": epochs, "learning_rate": rate}
    given |= {"template": template, "turns": turns, "start": start, "seed": seed}
    given |= dict(parse_parameter(text) for text in set_ or [])
    settings = Settings().changed(**{k: v for k, v in given.items() if v is not None})
    check_writable(out)
    base = find_profile(profile, verify=not changed)
    options = {"skip_bad": skip_bad, "anyway": anyway, "group": group, "meta": meta or []}
    DataFile(file)  # or a RecordsError with what to do
    team = processes()
    if not team.is_main_process:  # it takes its part of the training, and the main one reports
        sys.stdout = io.StringIO()
        warnings.simplefilter("ignore")
    wanted = run_identity(file, base, settings, **options)
    if run_state(out, wanted) == "finished":
        print(f"{out} is finished, and nothing was done")
        print(f"next      sftlab chat {shlex.quote(str(out))}")
        return
    note(f"checking {file}")
    try:
        data = prepare(file, profile=base, settings=settings, **options)
        if team.is_main_process:
            table = needs(data, base, folder=out)
            print(f"{data}\n\n{table}\n")
            if not table.ok:
                raise typer.Exit(1)
        if team.num_processes > 1:
            batch = data.settings.per_device_train_batch_size
            note(f"training in {team.num_processes} processes, {batch} rows at a time in each")
        how = {"wanted": wanted, "verify": not changed, "tell": note}
        if (done := train_own_data(data, base, folder=out, **how)) is None:
            return
        note("writing the report")
        with writing(out):
            write_report(done)
    except DataFaults as faults:
        report = faults.report
        print(f"{report}\n\nnothing was trained: mend the file")
        if report.good and not report.broken:
            print(f"or add --skip-bad to go on with the {report.good:,} good rows")
        raise typer.Exit(1) from None
    except TrainingFaults as faults:
        print(faults)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        step = last_step(out / "checkpoints")
        where = f"goes on from step {step}" if step else "starts again: there is no checkpoint yet"
        if (out / "run.json").is_file():
            where = "measures the model, which is trained and saved, and writes the report"
        note(f"\ninterrupted; the same command {where}:")
        note(f"  {shlex.join(['sftlab', *sys.argv[1:]])}")
        raise typer.Exit(130) from None
    print(*summary(done), f"report    {out / 'report.html'}", sep="\n")
    print(f"next      {next_command(done)}")


@command
def preflight(profile: str = "tiny", method: str | None = None) -> None:
    from sftlab.planner import preflight as check

    found = check(profile, method=method)
    print(found)
    if not found.ok:
        raise typer.Exit(1)


@command
def merge(run: Path, out: Path, dtype: str | None = None, changed: bool = False) -> None:
    from sftlab.paths import check_writable
    from sftlab.train import RunError, load_run, writing

    check_writable(out)
    if out.is_file() or any(out.glob("*")):
        raise RunError(f"{out} is a file, or not empty; give --out a new folder")
    made = load_run(run, merge=True, dtype=dtype, verify=not changed)
    with writing(out):
        made.save(out)
    print(f"{out} is a plain model of {made.model.num_parameters():,} weights, {made.model.dtype}")
    print("files    ", *sorted(file.name for file in out.iterdir()))
    print("read by   vLLM, llama.cpp's convert_hf_to_gguf.py, and transformers:")
    print("    from transformers import AutoModelForCausalLM, AutoTokenizer")
    print(f"    model = AutoModelForCausalLM.from_pretrained({str(out)!r})")
    print(f"    tokenizer = AutoTokenizer.from_pretrained({str(out)!r})")
    print(f"next      sftlab chat {shlex.quote(str(out))}")


GB = 1e9


@command
def plan(
    model: str,
    method: str = "lora",
    batch: int = 4,
    seq: int = 2048,
    checkpointing: bool = False,
    rank: int = 16,
    supervised: float = 1.0,
    gpu: str | None = None,
    memory: float | None = None,
    tokens: float = 1e7,
) -> None:
    from sftlab.machine import free_memory
    from sftlab.planner import estimate, find_gpu, speed

    chosen = {
        "method": method,
        "per_device_train_batch_size": batch,
        "max_length": seq,
        "gradient_checkpointing": checkpointing,
        "r": rank,
        "supervised": supervised,
        "device": "cuda" if gpu else None,
    }
    room = find_gpu(gpu).memory if gpu else free_memory()
    room = memory * GB if memory else room
    found = estimate(model, **chosen)
    pace, a = speed(found, gpu=gpu), found.architecture
    fits = "it fits" if found.needed <= room else "it does NOT fit"
    print(f"{method} on {a.name}: {a.parameters:,} weights, {found.trained:,} trained")
    print(f"{batch} x {seq} tokens, {supervised:.0%} of them scored\n")
    for part, size in found.at_peak().items():
        if size:
            print(f"  {part:14}{size / GB:9.2f} GB")
    print(f"  {'process':14}{found.process / GB:9.2f} GB   besides tensors\n")
    print(f"memory  needs {found.needed / GB:.1f} GB of {room / GB:.1f} GB: {fits}")
    print(f"disk    {found.result / GB:.2f} GB result, {found.checkpoint / GB:.2f} GB a checkpoint")
    print(f"time    {pace.hours(tokens):,.1f} hours for {tokens:,.0f} tokens: ", end="")
    print(f"{pace.tokens_per_second:,.0f} tokens a second ({pace.source})")
    notes = {
        "finetune uses checkpointing under qlora: see --checkpointing": (
            method == "qlora" and not checkpointing
        ),
        "with small batches or a small model it takes longer: on an H100 up to six times as long": (
            found.step.device == "cuda"
        ),
        "layers are not built as Llama's: activations are rough": not a.known_layout,
    }
    for note, holds in notes.items():
        if holds:
            print(f"note    {note}")
    if found.needed > room:
        print("-> smaller:")
        for words, change in SMALLER.items():
            needed = estimate(model, **(chosen | change)).needed
            print(f"   {needed / GB:8.1f} GB  {words}")


SMALLER = {
    "--batch 1": {"per_device_train_batch_size": 1},
    "--batch 1 --method qlora": {"per_device_train_batch_size": 1, "method": "qlora"},
    "--batch 1 --method qlora --checkpointing": {
        "per_device_train_batch_size": 1,
        "method": "qlora",
        "gradient_checkpointing": True,
    },
}
"""Options of `plan` that need less memory, each less than the one before."""
