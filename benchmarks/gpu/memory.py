"""Peak memory and speed of fine-tuning steps on a GPU, next to what the planner says.

    python benchmarks/gpu/memory.py [--cases TEXT] [--scratch DIR] [--csv FILE]
    python benchmarks/gpu/memory.py --table FILE

The models have the published sizes and random weights: nothing is downloaded, and but for int8
memory and speed do not depend on what a model knows. Each case trains a fresh model for a few steps
with the lab's own trainer. Its peak is the most that torch's allocator had given out from the
second step on, when Adam's moments are there; its speed counts the steps after the second.

`--scratch` takes the random models: 16 GB for 8 billion weights, best on a disk held in memory.
`--cases` runs those whose line holds a text, such as "qlora". Every case is written to the CSV file
as soon as it is measured, so that a run cut short leaves what it has. `--table` needs no GPU: it
prints what was measured next to what the planner says now.
"""

import argparse
import csv
import gc
import sys
import time
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from sftlab.models import load_tokenizer
from sftlab.planner import GPUS, Case, on_gpus, read_configuration, speed
from sftlab.profiles import find_profile
from sftlab.quiet import quiet_libraries
from sftlab.train import Settings, load_base, make_trainer

WARM = 2
"""Steps before the speed is timed."""
TIMED = 3


BIG, SMALL = "llama-3.1-8b", "llama-3.2-1b"
CASES = [
    Case(SMALL, "full", 1, 2048),
    Case(SMALL, "full", 8, 512),
    Case(SMALL, "full", 4, 2048, True),
    Case(SMALL, "lora", 4, 1024),
    Case(SMALL, "frozen", 4, 1024),
    Case(SMALL, "head", 4, 1024),
    Case(SMALL, "prefix", 4, 1024),
    Case(SMALL, "int8", 4, 1024),
    Case("qwen3-0.6b", "full", 4, 1024),
    Case("qwen3-0.6b", "full", 8, 2048, True),
    Case(BIG, "qlora", 1, 512),
    Case(BIG, "qlora", 1, 2048),
    Case(BIG, "qlora", 4, 1024),
    Case(BIG, "qlora", 4, 1024, supervised=0.25),
    Case(BIG, "qlora", 4, 1024, shortest=0.5),
    Case(BIG, "qlora", 1, 4096),
    Case(BIG, "qlora", 1, 2048, True),
    Case(BIG, "qlora", 4, 2048, True),
    Case(BIG, "qlora", 4, 2048, True, supervised=0.25),
    Case(BIG, "qlora", 8, 2048, True),
    Case(BIG, "qlora", 1, 8192, True),
    Case(BIG, "qlora", 16, 512, True, shortest=0.5),
    Case(BIG, "lora", 1, 512),
    Case(BIG, "lora", 2, 1024),
    Case(BIG, "lora", 1, 4096),
    Case(BIG, "lora", 1, 2048, True),
    Case(BIG, "lora", 4, 2048, True),
    Case(BIG, "lora", 8, 1024, True, supervised=0.25),
    Case(BIG, "int8", 1, 2048),
    Case(BIG, "int8", 4, 2048, True),
]


def make_model(name: str, scratch: Path) -> Path:
    """The folder of a model with random weights in bfloat16, as publishers store them."""
    from transformers import AutoModelForCausalLM

    folder = scratch / name
    if folder.exists():
        return folder
    torch.manual_seed(0)
    with torch.device("cuda"):
        model = AutoModelForCausalLM.from_config(read_configuration(name), dtype=torch.bfloat16)
    tokenizer = load_tokenizer("tiny")  # a trainer wants one; its ids are in range
    for config in (model.config, model.generation_config):
        for end in ("bos_token_id", "eos_token_id", "pad_token_id"):
            setattr(config, end, getattr(tokenizer, end))
    model.save_pretrained(folder, max_shard_size="40GB")
    tokenizer.save_pretrained(folder)
    return folder


def settings_of(case: Case) -> Settings:
    """How the lab trains it."""
    return Settings(
        method=case.method,
        bf16=True,
        per_device_train_batch_size=case.batch,
        max_length=case.length,
        num_train_epochs=1,
        learning_rate=1e-5,
        gradient_checkpointing=case.checkpointing,
        adapter_dtype="bfloat16" if case.method in ("qlora", "int8") else "float32",
    )


def lengths_of(case: Case) -> list[int]:
    """Tokens of each row, from the longest to the shortest."""
    short = case.length * case.shortest
    step = (case.length - short) / max(case.batch - 1, 1)
    return [int(case.length - step * n) for n in range(case.batch)]


def rows_of(case: Case) -> list[dict]:
    """Examples for all steps, of random ids."""
    draw, made = torch.Generator().manual_seed(0), []
    for length in lengths_of(case) * (WARM + TIMED):
        ids = torch.randint(5, 1000, (length,), generator=draw).tolist()
        still = length - round(length * case.supervised)
        made.append({"input_ids": ids, "labels": [-100] * still + ids[still:]})
    return made


def train(case: Case, folder: Path, scratch: Path) -> dict[str, float]:
    """Train a case's steps on a fresh model."""
    torch.cuda.empty_cache()
    with quiet_libraries():
        model, tokenizer = load_base(find_profile(folder), settings_of(case))
        rows = rows_of(case)
        trainer = make_trainer(
            model, tokenizer, rows, settings_of(case), [], folder=scratch / "run", save_steps=None
        )
    trainer.order = range(len(rows))
    ordinary, begun = trainer.training_step, []

    def step(*given):
        done = trainer.state.global_step
        if done == 1:
            gc.collect()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        if done == WARM:
            torch.cuda.synchronize()
            begun.append(time.perf_counter())
        return ordinary(*given)

    trainer.training_step = step
    with quiet_libraries():
        trainer.train()
    torch.cuda.synchronize()
    seconds = time.perf_counter() - begun[0]
    free, whole = torch.cuda.mem_get_info()
    return {
        "peak_bytes": torch.cuda.max_memory_allocated(),
        "reserved_bytes": torch.cuda.max_memory_reserved(),
        "outside_bytes": whole - free - torch.cuda.memory_reserved(),
        "tokens_per_second": round(case.batch * case.length * TIMED / seconds, 1),
    }


def planned_pace(case: Case, gpu: str) -> float:
    """Tokens a second by the planner's table of GPUs; nan where the GPU is not in it."""
    known = next((name for name in GPUS if name.upper() in gpu.upper()), None)
    return speed(case.plan(), gpu=known).tokens_per_second if known else float("nan")


def print_table(file: Path) -> None:
    """Print, as Markdown, what was measured next to what the planner says now."""
    print("| case | measured GB | planned GB | off by | tokens a second | planned |")
    print("| --- | --- | --- | --- | --- | --- |")
    for gpu, case, found in on_gpus(file):
        total = case.plan().total
        print(
            f"| {case} | {found['peak_bytes'] / 1e9:.2f} | {total / 1e9:.2f} "
            f"| {total / found['peak_bytes'] - 1:+.1%} | {found['tokens_per_second']:,.0f} "
            f"| {planned_pace(case, gpu):,.0f} |"
        )


def rows_in(file: Path) -> list[dict]:
    """The rows of a file as they stand."""
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def measure(cases: list[Case], scratch: Path, file: Path | None) -> int:
    """Train all cases, print and write what they took; how many failed."""
    name, failed = torch.cuda.get_device_name(), 0
    written = {}
    if file and file.is_file():
        keys = [(gpu, case) for gpu, case, _ in on_gpus(file)]
        written = dict(zip(keys, rows_in(file), strict=True))
    print(f"{name}, torch {torch.__version__}, {len(cases)} cases")
    for case in cases:
        try:
            found = train(case, make_model(case.model, scratch), scratch)
        except torch.OutOfMemoryError:
            print(f"{case}: does not fit; planned {case.plan().total / 1e9:.2f} GB", flush=True)
            continue
        except Exception as error:  # the others can still run
            print(f"{case}: {type(error).__name__}: {error}", flush=True)
            failed += 1
            continue
        total = case.plan().total
        print(
            f"{case!s:<52} {found['peak_bytes'] / 1e9:6.2f} GB, planned {total / 1e9:6.2f} "
            f"({total / found['peak_bytes'] - 1:+.1%}); {found['tokens_per_second']:7,.0f} tokens "
            f"a second, planned {planned_pace(case, name):7,.0f}",
            flush=True,
        )
        row = {"gpu": name, "torch": torch.__version__, **asdict(case), **found}
        written[name, case] = row
        if file:
            with file.open("w", encoding="utf-8", newline="") as stream:
                table = csv.DictWriter(stream, list(row), lineterminator="\n")
                table.writeheader()
                table.writerows(written.values())
    return failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", default="", help="run those whose line holds this text")
    parser.add_argument("--scratch", type=Path, help="a folder for the random models")
    parser.add_argument("--csv", type=Path, help="where to write what was measured")
    parser.add_argument("--table", type=Path, help="print the table of such a file, and no more")
    chosen = parser.parse_args()
    if chosen.table:
        print_table(chosen.table)
        return
    if not torch.cuda.is_available():
        sys.exit("torch finds no GPU; on a CPU tests/planner measures such steps")
    with TemporaryDirectory() as temporary:
        cases = [case for case in CASES if chosen.cases in str(case)]
        if measure(cases, chosen.scratch or Path(temporary), chosen.csv):
            sys.exit(1)


if __name__ == "__main__":
    main()
