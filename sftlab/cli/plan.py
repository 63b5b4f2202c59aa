"""`sftlab plan`: what a fine-tune will take of memory, disk and time, before anything is loaded."""

from typing import Annotated

import typer

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


def plan(
    model: Annotated[
        str, typer.Option(help="A built-in name, a profile, a config.json, a folder or a hub id.")
    ],
    method: Annotated[
        str, typer.Option(help="full, lora, qlora, int8, prefix, frozen, gradual or head.")
    ] = "lora",
    batch: Annotated[int, typer.Option(help="Examples at a time.")] = 4,
    seq: Annotated[int, typer.Option(help="Tokens of each example.")] = 2048,
    checkpointing: Annotated[
        bool,
        typer.Option("--checkpointing", help="Compute layers again instead of keeping them."),
    ] = False,
    rank: Annotated[int, typer.Option(help="Rank of the adapters.")] = 16,
    prefix_tokens: Annotated[int, typer.Option(help="Positions of a prefix.")] = 16,
    trained_layers: Annotated[
        int | None, typer.Option(help="Upper layers that frozen trains; by default half.")
    ] = None,
    bf16: Annotated[bool, typer.Option(help="Multiply matrices in bfloat16.")] = True,
    supervised: Annotated[
        float, typer.Option(help="Share of batch x seq that is answers; 1 is the most.")
    ] = 1.0,
    padded: Annotated[
        bool, typer.Option("--padded", help="Examples differ in length: --seq is the longest.")
    ] = False,
    accumulation: Annotated[int, typer.Option(help="Batches of one optimizer step.")] = 1,
    gpu: Annotated[
        str | None, typer.Option(help="A GPU of the table, such as a100-80gb or rtx-3090.")
    ] = None,
    memory: Annotated[
        float | None,
        typer.Option(metavar="GB", help="Memory to fit into; else the GPU's, or what is free."),
    ] = None,
    throughput: Annotated[
        float | None, typer.Option(help="Tokens a second, where you know them.")
    ] = None,
    tokens: Annotated[
        float, typer.Option(help="Tokens of the whole training: examples x length x epochs.")
    ] = 1e7,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the plan as JSON, for programs.")
    ] = False,
) -> None:
    """Say what a fine-tune will take of memory, disk and time. Nothing is loaded.

    \b
    For example:
      sftlab plan --model llama-3.1-8b --method qlora --gpu rtx-3090
      sftlab plan --model qwen3-0.6b --method full --batch 8 --seq 1024 --checkpointing
      sftlab plan --model my-model/config.json --memory 24 --throughput 1500 --json

    Built in: llama-3.1-8b, llama-3.2-1b, llama-3.2-3b, llama-2-7b, mistral-7b-v0.1, smollm2-135m,
    qwen3-0.6b. Of another hub id config.json is fetched, never weights. Memory is by formula, and
    within 5% of what an H100 measured (int8: 10%); time is an estimate.
    """
    from sftlab.machine import free_memory
    from sftlab.planner import PlanError, estimate, find_architecture, find_gpu, speed

    if memory is not None and not memory > 0:
        raise PlanError(f"memory is {memory!r}; give gigabytes, above zero")
    if not tokens > 0:
        raise PlanError(f"tokens is {tokens!r}; give a number above zero")
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
    pace = speed(found, gpu=gpu, throughput=throughput)
    room = memory * GB if memory else room or free_memory()
    if as_json:
        import json

        shown = found.as_dict() | {
            "available_bytes": int(room),
            "fits": found.needed <= room,
            "tokens": tokens,
            "tokens_per_second": pace.tokens_per_second,
            "hours": pace.hours(tokens),
            "operations_per_token": pace.operations,
            "speed": pace.source,
        }
        typer.echo(json.dumps(shown, indent=2))
        return
    where = gpu or ("the given memory" if memory else f"free {found.step.device}")
    typer.echo(_text(found, pace, room=room, where=where, tokens=tokens))
    if found.needed > room:
        typer.echo("\n".join(_remedies(architecture, chosen, room=room)))


def _text(found, pace, *, room: float, where: str, tokens: float) -> str:
    a, step = found.architecture, found.step
    lines = [
        f"{step.method} on {a.name}: {a.parameters:,} weights, {found.trained:,} trained",
        f"{step.per_device_train_batch_size} x {step.max_length} tokens, {step.supervised:.0%} of "
        f"them scored, {'bfloat16' if step.bf16 else 'float32'}{', padded' * step.padded}"
        f"{', checkpointing' * step.gradient_checkpointing}",
        "",
    ]
    for part, size in found.at_peak().items():
        if size:
            lines.append(f"  {part:14}{size / GB:9.2f} GB   {MEANING[part]}")
    lines += [
        f"  {'total':14}{found.total / GB:9.2f} GB   at the {found.peak} of the backward pass, "
        "when it is most",
        f"  {'process':14}{found.process / GB:9.2f} GB   besides tensors",
        "",
        f"memory  needs {found.needed / GB:.1f} GB, {where} has {room / GB:.1f} GB: "
        + ("it fits" if found.needed <= room else "it does NOT fit"),
        f"disk    {found.download / GB:.2f} GB published weights in 16 bits, "
        f"{found.result / GB:.2f} GB result, {found.checkpoint / GB:.2f} GB a checkpoint",
        f"time    {pace.tokens_per_second:,.0f} tokens a second, {pace.hours(tokens):,.1f} hours "
        f"for {tokens:,.0f} tokens ({pace.source})",
    ]
    notes = {
        "finetune uses checkpointing under qlora: see --checkpointing": step.method == "qlora"
        and not step.gradient_checkpointing,
        "with small batches or a small model it takes longer: on an H100 up to six times as long": (
            "estimate" in pace.source and step.device == "cuda"
        ),
        "int8 stores columns with values beyond 6 a second time; the plan has the most there can "
        "be": step.method == "int8" and step.device == "cuda",
        "of the last steps, when every weight is trained": step.method == "gradual",
        f"layers of {a.family} are not built as Llama's: activations are rough": not a.known_layout,
    }
    return "\n".join(lines + [f"note    {note}" for note, holds in notes.items() if holds])


def _remedies(architecture, chosen: dict, *, room: float) -> list[str]:
    """What would need less, each with its figure."""
    from sftlab.planner import estimate

    whole = chosen["per_device_train_batch_size"] * chosen["gradient_accumulation_steps"]
    changes = {
        "--checkpointing": {"gradient_checkpointing": True},
        f"--batch 1 --accumulation {whole}": {
            "per_device_train_batch_size": 1,
            "gradient_accumulation_steps": whole,
        },
        "--supervised 0.25, if a quarter are answers": {"supervised": 0.25},
        "--method qlora": {"method": "qlora"},
    }
    lines, all_of_them = ["-> smaller:"], dict(chosen)
    for words, change in changes.items():
        if chosen["method"] == "prefix" and "gradient_checkpointing" in change:
            continue  # it does not go with a prefix
        if any(chosen[name] != value for name, value in change.items()):
            all_of_them |= change
            needed = estimate(architecture, **(chosen | change)).needed
            lines.append(f"   {needed / GB:8.1f} GB  {words}")
    needed = estimate(architecture, **all_of_them).needed
    fits = "does not fit either: choose a smaller model or more memory"
    return [*lines, f"   {needed / GB:8.1f} GB  all: {'fits' if needed <= room else fits}"]
