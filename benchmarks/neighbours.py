"""A fine-tune of a small model next to busy programs: all cores, all cores PASSIVE, one thread.

    python benchmarks/neighbours.py [--rounds 3] [--busy 0 1 2]

Each way runs in a process of its own, since OMP_WAIT_POLICY counts before torch is imported; the
ways take turns. Printed are seconds (median of the rounds, loading not counted) and the ratio to
one thread, which is what `sftlab.machine.choose_threads` takes for small models. The machine should
be quiet otherwise.
"""

import argparse
import os
import statistics
import subprocess
import sys

WAYS = {
    "all cores": {},
    "all cores, PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
    "one thread": {},
}
CHILD = """
import sys, time
import sftlab.machine as machine
from sftlab import country_examples, finetune
if sys.argv[1] != "one thread":
    machine.SMALL = 0
examples = country_examples(100)
finetune("tiny", examples[:32], num_train_epochs=1, progress=False)
begun = time.perf_counter()
finetune("tiny", examples, progress=False)
print(time.perf_counter() - begun)
"""


def seconds(way: str) -> float:
    """A fine-tune of 100 examples in a fresh process."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OMP_")} | WAYS[way]
    command = [sys.executable, "-W", "ignore", "-c", CHILD, way]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 1, 2])
    chosen = parser.parse_args()
    print("| busy programs | " + " | ".join(WAYS) + " |\n" + "| --- " * (len(WAYS) + 1) + "|")
    for count in chosen.busy:
        spin = [sys.executable, "-c", "while True: pass"]
        neighbours = [subprocess.Popen(spin) for _ in range(count)]
        try:
            taken = {way: [] for way in WAYS}
            for _ in range(chosen.rounds):
                for way in WAYS:
                    taken[way].append(seconds(way))
        finally:
            for neighbour in neighbours:
                neighbour.kill()
        medians = {way: statistics.median(times) for way, times in taken.items()}
        cells = [f"{s:.1f} s ({s / medians['one thread']:.2f})" for s in medians.values()]
        print(f"| {count} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
