"""How many fine-tunes an hour: a sweep, the same runs one after another, and TRL's defaults.

    python benchmarks/sweep.py [--runs 6] [--examples 300] [--epochs 3] [--batch 32] [--rounds 2]

All arms make the same fine-tunes of `tiny`, in one run of this program, round by round. A run
counts from its call to its return, so loading, tokenising and what the sweep measures and stores
belong to it; the start of the processes does not: all have made a short run before. The best round
of each arm counts. The sweep stores in a folder of its own.

Nothing else may run meanwhile: two threads wait for each other at each operation, so a neighbour on
one core slows them many times over, and one-thread processes by half.
"""

import argparse
import json
import os
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import loky
import torch
from step import LAB, trl

from sftlab.machine import fast_precision
from sftlab.sweeps import Experiment
from sftlab.train import Settings, finetune
from sftlab.world import country_examples

THREADS = 2  # of the runs one after another
BARS = {"sweep / one after another": 1.5, "sweep / TRL": 3.0}


def last_loss(run):
    return run.history[-1]["loss"]


def swept(examples, settings, runs):
    """Wall seconds of the sweep."""
    start = time.perf_counter()
    given = {"examples": examples, "settings": settings, "seeds": runs}
    experiment = Experiment("tiny", measure={"loss": last_loss}, **given)
    found = experiment.run({"": {}}, progress=False, refresh=True).frame
    if found["error"].notna().any():
        raise RuntimeError(f"a run failed: {found['error'].dropna().iloc[0]}")
    return time.perf_counter() - start


def one_after_another(arm, precision, threads, examples, settings, runs):
    """Wall seconds of the runs, in this process."""
    torch.set_num_threads(threads)
    start = time.perf_counter()
    for seed in range(runs):
        if arm == "TRL":
            trl(examples, int(settings.num_train_epochs), precision)
        else:
            finetune("tiny", examples, settings=settings, seed=seed, progress=False)
    return time.perf_counter() - start


def compare(options, stack):
    """Wall seconds of each round, by arm."""
    fast, cores = fast_precision(), loky.cpu_count()
    arms = {("one after another", fast): THREADS, ("on one thread", fast): 1}
    arms |= {("TRL", precision): cores for precision in dict.fromkeys(["float32", fast])}
    settings = Settings(num_train_epochs=options.epochs, per_device_train_batch_size=options.batch)
    rows = country_examples(options.examples, seed=0)
    short = (country_examples(32, seed=1), settings.changed(num_train_epochs=1))
    pools = {
        arm: stack.enter_context(ProcessPoolExecutor(1, mp_context=get_context("spawn")))
        for arm in arms
    }
    seconds = {arm: [] for arm in [("sweep", fast), *arms]}
    for _ in range(options.rounds):
        swept(*short, cores)  # again in each round: idle workers end after two minutes
        seconds["sweep", fast].append(swept(rows, settings, options.runs))
        for arm, threads in arms.items():
            for given in ((*short, 1), (rows, settings, options.runs)):
                took = pools[arm].submit(one_after_another, *arm, threads, *given).result()
            seconds[arm].append(took)
    return seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=6)
    parser.add_argument("--examples", type=int, default=300)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch", type=int, default=LAB.per_device_train_batch_size)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    with TemporaryDirectory() as cache, ExitStack() as stack:
        os.environ["SFTLAB_CACHE"] = cache
        stack.callback(lambda: loky.get_reusable_executor().shutdown(kill_workers=True))
        seconds = compare(options, stack)
    best = {arm: min(took) for (arm, _), took in seconds.items()}
    best["TRL"] = min(min(took) for (arm, _), took in seconds.items() if arm == "TRL")
    ratios = {name: best[name.removeprefix("sweep / ")] / best["sweep"] for name in BARS}
    cores = loky.cpu_count()
    print(
        f"{options.runs} runs of {options.examples} examples x {options.epochs} epochs, batches "
        f"of {options.batch}, {cores} cores, best of {options.rounds} rounds"
    )
    for arm, took in seconds.items():
        hour = 3600 * options.runs / min(took)
        print(f"  {', '.join(arm):<28}{min(took):7.2f} s{hour:7.0f} runs/hour")
    # Two threads share every operation of one run; processes share nothing. So the more of a run
    # two threads can share, the less is left to win: this is all that there is.
    gain = best["on one thread"] / best["one after another"]
    most = min(cores, options.runs) / gain
    print(
        f"  {THREADS} threads make a run {gain:.2f} times as fast as one does, so {cores} "
        f"processes can reach {most:.2f}; the sweep reaches "
        f"{ratios['sweep / one after another'] / most:.0%} of that"
    )
    for name, ratio in ratios.items():
        verdict = "met" if ratio >= BARS[name] else "MISSED"
        print(f"  {name:<28}{ratio:7.2f}   bar {BARS[name]}: {verdict}")
    if options.json:
        found = {
            "seconds": {", ".join(arm): took for arm, took in seconds.items()},
            "ratios": ratios,
            "two threads / one": gain,
        }
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
