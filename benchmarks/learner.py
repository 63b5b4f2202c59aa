"""What one learner takes of a shared machine: memory, processes and processor time of lessons.

    python benchmarks/learner.py [00 05] [--seeds 2] [--jobs 1 2]

Each lesson runs from top to bottom in a kernel of its own, with an empty cache, so that it reads
nothing that another learner has trained. `--jobs` sets LOKY_MAX_CPU_COUNT, the worker processes of
an experiment; OMP_NUM_THREADS is 1. Memory is the proportional set size, in which a page that
several processes share counts once, summed over the kernel and its workers about once a second.
Neither it nor the processor time depends much on what else runs. Linux only.
"""

import argparse
import os
import tempfile
import threading
from contextlib import suppress

import nbformat
import psutil
from nbclient import NotebookClient

from sftlab.course import find_lessons

HEAD = "lesson, jobs, kernel set up, kernel at the end, peak of all, processes, CPU minutes"


class Watch:
    """Looks at the descendants of this program, which are the kernel and its workers."""

    def __init__(self) -> None:
        self.kernel, self.peak, self.most, self.seconds = 0.0, 0.0, 0, {}

    def look(self, over: threading.Event) -> None:
        while not over.wait(1):
            sizes = []
            for process in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):  # it has just ended
                    sizes.append(process.memory_full_info().pss / 1e9)
                    times = process.cpu_times()
                    self.seconds[process.pid, process.create_time()] = times.user + times.system
            self.kernel = sizes[0] if sizes else self.kernel  # the one that was started first
            self.peak = max(self.peak, sum(sizes))
            self.most = max(self.most, sum(size > 0.1 for size in sizes))


def measure(lesson, seeds: int, jobs: int) -> list[str]:
    """A row of the table."""
    notebook = nbformat.read(lesson.path, as_version=4)
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", []):
            cell.source += f"\nseeds = {seeds}"
    watch, over, after = Watch(), threading.Event(), []

    def executed(cell, **_) -> None:
        if after or "start_lesson(" in cell.source:
            over.wait(1.5)  # until the watch has looked
            after.append(watch.kernel)

    looking = threading.Thread(target=watch.look, args=[over])
    looking.start()
    try:
        with tempfile.TemporaryDirectory() as folder:
            os.environ |= {"SFTLAB_CACHE": f"{folder}/cache", "LOKY_MAX_CPU_COUNT": str(jobs)}
            options = {"kernel_name": "python3", "on_cell_executed": executed, "timeout": None}
            resources = {"metadata": {"path": folder}}
            NotebookClient(notebook, resources=resources, **options).execute()
    finally:
        over.set()
        looking.join()
    sizes = [f"{size:.2f} GB" for size in (after[0], after[-1], watch.peak)]
    spent = sum(watch.seconds.values()) / 60
    return [lesson.name, str(jobs), *sizes, str(watch.most), f"{spent:.1f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("lessons", nargs="*", default=["00", "05", "06", "07"])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 2])
    chosen = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    names = HEAD.split(", ")
    print("| " + " | ".join(names) + " |\n" + "| --- " * len(names) + "|", flush=True)
    for lesson in find_lessons(chosen.lessons):
        for jobs in chosen.jobs:
            print("| " + " | ".join(measure(lesson, chosen.seeds, jobs)) + " |", flush=True)


if __name__ == "__main__":
    main()
