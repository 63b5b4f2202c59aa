"""`sftlab plan`: what a fine-tune will take of memory, disk and time, before anything is loaded."""

from typing import Annotated

import typer

GB = 1e9
MEANING = {
    "weights": "the base's",
    "adapters": "LoRA's weights, or the prefix",
    "quantisation": "constants that unpack the weights",
    "optimiser": "Adam's two moments",
    "gradients": "of what is trained",
    "activations": "kept for the way back",
    "overhead": "the framework's own, for a moment",
    "reused": "one takes the place of the other",
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
    precision: Annotated[str, typer.Option(help="float32 or bfloat16, of the products.")] = (
        "bfloat16"
    ),
    supervised: Annotated[
        float, typer.Option(help="Share of batch x seq that is answers; 1 is the most.")
    ] = 1.0,
    padded: Annotated[
        bool, typer.Option("--padded", help="Examples differ in length: --seq is the longest.")
    ] = False,
    accumulation: Annotated[int, typer.Option(help="Batches of one optimiser step.")] = 1,
    card: Annotated[
        str | None, typer.Option(help="A card of the table, such as a100-80gb or rtx-3090.")
    ] = None,
    memory: Annotated[
        float | None, typer.Option(metavar="GB", help="Memory to fit into; else the card's, or "
                                   "what is free here.")
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
) -> None:  # fmt: skip
    """Tell what a fine-tune will take of memory, disk and time. Nothing is loaded.

    \b
    For example:
      sftlab plan --model llama-3.1-8b --method qlora --card rtx-3090
      sftlab plan --model qwen3-0.6b --method full --batch 8 --seq 1024 --checkpointing
      sftlab plan --model my-model/config.json --memory 24 --throughput 1500 --json

    Built in: llama-3.1-8b, llama-3.2-1b, llama-3.2-3b, llama-2-7b, mistral-7b-v0.1, smollm2-135m,
    qwen3-0.6b. Of another hub id config.json is fetched, never weights. Memory is by formula, and
    within 1% of what an H100 measured (int8: up to 17% too low); time is an estimate.
    """
    from sftlab.machine import free_memory
    from sftlab.planner import estimate, find_architecture, find_card, speed
    from sftlab.train import SettingsError

    if memory is not None and not memory > 0:
        raise SettingsError(f"memory is {memory!r}; give gigabytes, above zero")
    if not tokens > 0:
        raise SettingsError(f"tokens is {tokens!r}; give a number above zero")
    chosen = {
        "method": method, "batch": batch, "length": seq, "checkpointing": checkpointing,
        "rank": rank, "precision": precision, "supervised": supervised,
        "accumulation": accumulation, "device": "cuda" if card else None,
        "prefix_tokens": prefix_tokens, "trained_layers": trained_layers, "padded": padded,
    }  # fmt: skip
    room = find_card(card).memory if card else None
    architecture = find_architecture(model)
    found = estimate(architecture, **chosen)
    pace = speed(found, card=card, throughput=throughput)
    room = memory * GB if memory else room or free_memory()
    if as_json:
        import json

        told = found.as_dict() | {
            "available_bytes": int(room),
            "fits": found.needed <= room,
            "tokens": tokens,
            "tokens_per_second": pace.tokens_per_second,
            "hours": pace.hours(tokens),
            "operations_per_token": pace.operations,
            "speed": pace.source,
        }
        typer.echo(json.dumps(told, indent=2))
        return
    where = f"{card}" if card else "the given memory" if memory else f"free {found.step.device}"
    typer.echo(_text(found, pace, room=room, where=where, tokens=tokens))
    if found.needed > room:
        typer.echo("\n".join(_remedies(architecture, chosen, room=room)))


def _text(found, pace, *, room: float, where: str, tokens: float) -> str:
    from sftlab.planner import PARTS

    a, step = found.architecture, found.step
    lines = [
        f"{step.method} on {a.name}: {a.parameters:,} weights, {found.trained:,} trained",
        f"{step.batch} x {step.length} tokens, {step.supervised:.0%} of them scored, "
        f"{step.precision}{', padded' if step.padded else ''}"
        f"{', checkpointing' if step.checkpointing else ''}",
        "",
    ]
    for part in (*PARTS, "reused"):
        size = getattr(found, part)
        if size:
            lines.append(f"  {part:14}{size / GB:9.2f} GB   {MEANING[part]}")
    lines += [
        f"  {'total':14}{found.total / GB:9.2f} GB   tensors at the peak ({found.moment})",
        f"  {'process':14}{found.process / GB:9.2f} GB   besides tensors",
        "",
        f"memory  needs {found.needed / GB:.1f} GB, {where} has {room / GB:.1f} GB: "
        + ("it fits" if found.needed <= room else "it does NOT fit"),
        f"disk    {found.download / GB:.2f} GB published weights in 16 bits, "
        f"{found.result / GB:.2f} GB result, {found.checkpoint / GB:.2f} GB a checkpoint",
        f"time    {pace.tokens_per_second:,.0f} tokens a second, {pace.hours(tokens):,.1f} hours "
        f"for {tokens:,.0f} tokens ({pace.source})",
    ]
    if step.method == "qlora" and not step.checkpointing:
        lines.append("note    finetune checkpoints under qlora: see --checkpointing")
    if "estimate" in pace.source and step.device == "cuda":
        lines.append(
            "note    with small batches or a small model it takes longer: on an H100 up to six "
            "times as long"
        )
    if step.method == "int8" and step.device == "cuda":
        lines.append(
            "note    int8 stores columns with values beyond 6 a second time; how many they are "
            "depends on the weights, and the total is without them"
        )
    if step.method == "gradual":
        lines.append("note    of the last steps, when every weight is trained")
    if not a.known_layout:
        lines.append(
            f"note    layers of {a.family} are not built as Llama's: activations are rough"
        )
    return "\n".join(lines)


def _remedies(architecture, chosen: dict, *, room: float) -> list[str]:
    """What would need less, each with its figure."""
    from sftlab.planner import estimate

    changes = [
        ("--checkpointing", {"checkpointing": True}),
        ("--batch 1 --accumulation " + str(chosen["batch"] * chosen["accumulation"]),
         {"batch": 1, "accumulation": chosen["batch"] * chosen["accumulation"]}),
        ("--supervised 0.25, if a quarter are answers", {"supervised": 0.25}),
        ("--method qlora", {"method": "qlora"}),
    ]  # fmt: skip
    lines, all_of_them = ["-> smaller:"], dict(chosen)
    for words, change in changes:
        if all_of_them["method"] == "prefix" and "checkpointing" in change:
            continue  # it does not go with a prefix
        if any(chosen[name] != value for name, value in change.items()):
            all_of_them |= change
            needed = estimate(architecture, **(chosen | change)).needed
            lines.append(f"   {needed / GB:8.1f} GB  {words}")
    needed = estimate(architecture, **all_of_them).needed
    fits = (
        "fits" if needed <= room else "does not fit either: choose a smaller model or more memory"
    )
    return [*lines, f"   {needed / GB:8.1f} GB  all of these: {fits}"]
