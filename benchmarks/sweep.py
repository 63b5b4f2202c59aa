"""How many fine-tunes an hour: a sweep, the same runs one after another, and TRL's defaults.

    python benchmarks/sweep.py [--runs 6] [--examples 300] [--epochs 3] [--batch 32] [--rounds 2]

All arms make the same fine-tunes of `tiny`, side by side in one run, round by round. A run counts
from its call to its return, so loading, tokenising and what the sweep measures and stores belong to
it. The processes of all arms have made a short run before; how long they took to start is shown
apart. The best round of each counts. The sweep stores in a folder of its own.

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
from step import LAB, fresh, tokenised, trl

from sftlab.machine import fast_precision
from sftlab.sweeps import sweep
from sftlab.train import Settings, finetune
from sftlab.world import country_examples

THREADS = 2  # of the runs one after another
SHORT = 32  # examples of a run that only starts a process
BARS = {"sweep / one after another": 1.5, "sweep / TRL": 3.0}


def last_loss(run):
    return run.history[-1]["loss"]


def process(run):
    """Tells how many processes the sweep had."""
    return os.getpid()


def swept(examples, settings, runs):
    """Wall seconds of the sweep, and the number of its processes."""
    start = time.perf_counter()
    found = sweep(
        "tiny", examples=examples, measure={"loss": last_loss, "process": process},
        settings=settings, seeds=runs, progress=False, refresh=True,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    if found["error"].notna().any():
        raise RuntimeError(f"a run failed: {found['error'].dropna().iloc[0]}")
    return seconds, found.loc[found["measure"] == "process", "value"].nunique()


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


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=6)
    parser.add_argument("--examples", type=int, default=300)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch", type=int, help="by default the profile's")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    with TemporaryDirectory() as cache, ExitStack() as processes:
        os.environ["SFTLAB_CACHE"] = cache
        processes.callback(lambda: loky.get_reusable_executor().shutdown(kill_workers=True))
        compare(options, processes)


def compare(options, stack):
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    examples = country_examples(options.examples, seed=0)
    short = country_examples(SHORT, seed=1)
    _, tokenizer = fresh()
    supervised = sum(
        sum(label != -100 for label in labels) for _, labels in tokenised(tokenizer, examples)
    )
    fast = fast_precision()
    arms = {("one after another", fast): THREADS, ("on one thread", fast): 1}
    arms |= {("TRL", precision): cores for precision in dict.fromkeys(["float32", fast])}
    own = {
        arm: stack.enter_context(ProcessPoolExecutor(1, mp_context=get_context("spawn")))
        for arm in arms
    }

    whole = Settings(num_train_epochs=options.epochs, per_device_train_batch_size=options.batch)
    once = whole.changed(num_train_epochs=1)

    def serial(arm, rows, settings, runs):
        job = own[arm].submit(one_after_another, *arm, arms[arm], rows, settings, runs)
        return job.result()

    ours = ("sweep", fast)
    seconds, starts, processes = {arm: [] for arm in (ours, *arms)}, {}, set()
    for _ in range(options.rounds):
        # Again in each round: processes that had no work for two minutes have ended. As many runs
        # as there may be processes, so that each has made one.
        begun = time.perf_counter()
        swept(short, once, cores)
        starts.setdefault(ours, time.perf_counter() - begun)
        took, used = swept(examples, whole, options.runs)
        seconds[ours].append(took)
        processes.add(used)
        for arm in arms:
            if arm not in starts:
                begun = time.perf_counter()
                serial(arm, short, once, 1)
                starts[arm] = time.perf_counter() - begun
            seconds[arm].append(serial(arm, examples, whole, options.runs))
    best = {arm: min(took) for arm, took in seconds.items()}
    ratios = {
        "sweep / one after another": best["one after another", fast] / best[ours],
        "sweep / TRL": min(took for (arm, _), took in best.items() if arm == "TRL") / best[ours],
    }
    processes = max(processes)
    how = {ours: f"{processes} process{'es' * (processes > 1)} x 1 thread"}
    how |= {arm: f"1 process x {n} thread{'s' * (n > 1)}" for arm, n in arms.items()}
    print(
        f"{options.runs} runs of {len(examples)} examples x {options.epochs} epochs, batches of "
        f"{options.batch or LAB.per_device_train_batch_size}, {cores} cores, "
        f"best of {options.rounds} rounds"
    )
    total = options.runs * options.epochs * supervised
    for arm, took in best.items():
        print(f"  {', '.join(arm):<28}{how[arm]:<24}{took:7.2f} s{3600 * options.runs / took:7.0f}"
              f" runs/hour{total / took:8.0f} supervised tokens/s"
              f"   (start-up {starts[arm]:.1f} s)")  # fmt: skip
    # Two threads share every operation of one run; processes share nothing. So the more of a run
    # two threads can share, the less is left to win: this is all that there is.
    gain = best["on one thread", fast] / best["one after another", fast]
    most = min(cores, options.runs) / gain
    print(f"  {THREADS} threads make a run {gain:.2f} times as fast as one does, so {cores} "
          f"processes can reach {most:.2f}; the sweep reaches "
          f"{ratios['sweep / one after another'] / most:.0%} of that")  # fmt: skip
    for name, ratio in ratios.items():
        verdict = "met" if ratio >= BARS[name] else "MISSED"
        print(f"  {name:<28}{ratio:7.2f}   bar {BARS[name]}: {verdict}")
    if options.json:
        found = {
            "seconds": {", ".join(arm): took for arm, took in seconds.items()},
            "start-up": {", ".join(arm): took for arm, took in starts.items()},
            "supervised tokens": total,
            "processes": processes,
            "ratios": ratios,
            "two threads / one": gain,
        }
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
