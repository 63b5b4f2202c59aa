"""How long a reading of the forgetting meter takes, beside the fine-tune that it follows.

    python benchmarks/meter.py [--threads 2] [--rounds 3]

Each figure is the best of its rounds; loading is not counted.
"""

import argparse
import time

import torch

from sftlab.machine import keep_freed_memory
from sftlab.measure import items, read_meter
from sftlab.models import load
from sftlab.train import finetune
from sftlab.world import country_examples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--profile", default="tiny")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    keep_freed_memory()
    model, tokenizer = load(chosen.profile)
    readings, runs = [], []
    for _ in range(chosen.rounds):
        begun = time.perf_counter()
        read_meter(model, tokenizer)
        readings.append(time.perf_counter() - begun)
        runs.append(finetune(chosen.profile, country_examples(400), progress=False).seconds)
    print(f"{chosen.threads} threads, {len(items())} items")
    print(f"a reading of the meter     {min(readings):6.2f} s")
    print(f"400 examples, 3 epochs     {min(runs):6.2f} s")


if __name__ == "__main__":
    main()
