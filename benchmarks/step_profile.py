"""Where a step goes: the lab's default and TRL's, by torch's profiler, on one thread.

    python benchmarks/step_profile.py [--steps 32] [--warm 40] [--picture benchmarks/step.png]

Both arms are those of `step.py`, each in a process of its own. After `warm` steps, as many examples
as `steps` of the lab hold are timed without the profiler, and as many again with it. The profiler
makes each operation dearer, so it gives the shares, and the time without it the length of the bar.

(The name: a file `profile.py` here would hide Python's own module of that name, which torch needs.)
"""

import argparse
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
from step import BATCH, TRL_BATCH, lab, trl
from torch.profiler import ProfilerActivity, profile, record_function

from sftlab.machine import fast_precision
from sftlab.quiet import quiet_libraries
from sftlab.show import COLOURS, GREY, Picture
from sftlab.world import country_examples

UNIT = 16  # examples that the milliseconds are for
CLIPPING = "clipping"
REST = "rest (Python, views, bookkeeping)"
OPTIMISER, ATTENTION = "optimiser and clipping", "attention"
NAMES = {
    "matrix products": "mm addmm addmm_ bmm baddbmm matmul linear mkldnn_linear",
    ATTENTION: "",
    "element-wise and loss": (
        "add add_ sub sub_ rsub mul mul_ div div_ pow rsqrt sqrt neg sum mean silu silu_backward "
        "sigmoid exp exp_ log sin cos _softmax _softmax_backward_data _log_softmax "
        "_log_softmax_backward_data nll_loss_forward nll_loss_backward logsumexp max amax argmax "
        "eq ne lt le gt ge logical_and bitwise_and bitwise_and_ where masked_fill masked_fill_ "
        "clamp clamp_ clamp_min reciprocal maximum any all cumsum"
    ),
    "copies, casts, look-ups": (
        "copy_ _to_copy to clone contiguous cat stack index index_select index_put_ "
        "_index_put_impl_ index_add_ gather scatter scatter_ scatter_add_ embedding "
        "embedding_backward embedding_dense_backward nonzero constant_pad_nd repeat repeat_kv"
    ),
    "filling memory": (
        "fill_ zero_ zeros zeros_like new_zeros full full_like ones ones_like slice_backward "
        "select_backward arange"
    ),
    OPTIMISER: "",
    REST: "",
}
GROUPS = {f"aten::{name}": group for group, names in NAMES.items() for name in names.split()}


class Finished(Exception):
    """Raised out of the training once all is measured."""


class Watch:
    """Stands before `SFTTrainer.training_step`, which both arms call, and measures in between."""

    def __init__(self, warm, steps):
        self.warm, self.steps, self.at = warm, steps, 0
        self.profiler = profile(activities=[ProfilerActivity.CPU])

    def __enter__(self):
        with quiet_libraries():
            from trl import SFTTrainer

        step, clip = SFTTrainer.training_step, torch.nn.utils.clip_grad_norm_

        def watched(*given, **named):
            self.before_step()
            return step(*given, **named)

        def named_clip(*given, **named):
            with record_function(CLIPPING):
                return clip(*given, **named)

        SFTTrainer.training_step, torch.nn.utils.clip_grad_norm_ = watched, named_clip
        return self

    def __exit__(self, kind, error, trace):
        return kind is Finished

    def before_step(self):
        now = time.perf_counter()
        if self.at == self.warm:
            self.begun = now
        elif self.at == self.warm + self.steps:
            self.plain = now - self.begun
            self.profiler.start()
            self.begun = time.perf_counter()
        elif self.at == self.warm + 2 * self.steps:
            self.profiled = now - self.begun
            self.profiler.stop()
            raise Finished
        self.at += 1


def ancestry(event):
    while event is not None:
        yield event
        event = event.cpu_parent


def grouped(events, seconds):
    """Self time of the operations by group, and the names behind it; seconds.

    What belongs to attention on the way back is known by its sequence number, which it shares with
    the operation on the way there.
    """
    forward = {
        event.sequence_nr
        for event in events
        if event.sequence_nr >= 0
        and any("scaled_dot_product" in above.name for above in ancestry(event))
    }
    times, names = Counter(dict.fromkeys(NAMES, 0.0)), Counter()
    for event in events:
        line = list(ancestry(event))
        if any(above.name.startswith(("Optimizer.", CLIPPING)) for above in line):
            group = OPTIMISER
        elif any("scaled_dot_product" in above.name for above in line) or any(
            "evaluate_function" in above.name and above.sequence_nr in forward for above in line
        ):
            group = ATTENTION
        else:
            group = GROUPS.get(event.name, REST)
        times[group] += event.self_cpu_time_total / 1e6
        names[group, event.name] += event.self_cpu_time_total / 1e6
    untold = seconds - sum(times.values())  # between the operations: Python
    times[REST] += untold
    names[REST, "(between operations)"] += untold
    return dict(times), names


def measure(arm, precision, examples, warm, steps):
    """Milliseconds of `UNIT` examples by group, the factor by which the profiler slowed them, and
    milliseconds by operation."""
    torch.set_num_threads(1)
    train, size = (trl, TRL_BATCH) if arm == "TRL" else (lab, BATCH)
    count = steps * BATCH // size
    epochs = 1 + (warm + 2 * count + 1) * size // len(examples)
    with Watch(warm, count) as watch:
        train(examples, epochs, precision)
        raise RuntimeError("the training ended before all was measured")
    times, names = grouped(watch.profiler.events(), watch.profiled)
    scale = 1000 * watch.plain / watch.profiled / (count * size / UNIT)
    return (
        {group: took * scale for group, took in times.items()},
        watch.profiled / watch.plain,
        Counter({name: took * scale for name, took in names.items()}),
    )


def draw(found):
    """One bar an arm, cut by group, in milliseconds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.2, 2.9), layout="constrained")
    ax = figure.subplots()
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(length=0)
    colours = dict(zip(NAMES, [*COLOURS, GREY], strict=True))
    widest = max(sum(times.values()) for times in found.values())
    for row, times in enumerate(found.values()):
        left = 0.0
        for group, colour in colours.items():
            took = times[group]
            ax.barh(row, took, left=left, color=colour, height=0.62, label=None if row else group)
            if took >= 0.035 * widest:
                dark = colour in (COLOURS[0], COLOURS[5], COLOURS[2], GREY)
                ax.text(left + took / 2, row, f"{took:.0f}", ha="center", va="center", fontsize=9,
                        color="white" if dark else "#222222")  # fmt: skip
            left += took
        ax.text(left + 0.01 * widest, row, f"{left:.0f} ms", va="center", fontsize=10)
    ax.set_yticks(range(len(found)), list(found), fontsize=10)
    ax.invert_yaxis()
    ax.set_xlim(0, 1.12 * widest)
    ax.set_xlabel(f"milliseconds for {UNIT} examples, one thread", fontsize=9, color="#444444")
    ax.set_title("Where a step of tiny goes", loc="left", fontsize=11, pad=58)
    ax.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, fontsize=9,
        borderaxespad=0.1, handlelength=1, handleheight=1,
    )  # fmt: skip
    told = "; ".join(f"{arm} {sum(t.values()):.0f} ms" for arm, t in found.items())
    return Picture(figure, alt=f"Milliseconds for {UNIT} examples by kind of work: {told}.")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--warm", type=int, default=40)
    parser.add_argument("--examples", type=int, default=640)
    parser.add_argument("--picture", type=Path, default=Path(__file__).with_name("step.png"))
    parser.add_argument("--names", type=int, default=0, help="dearest operations shown of a group")
    options = parser.parse_args()

    examples = country_examples(options.examples, seed=0)
    found, slowed, behind = {}, {}, {}
    for arm, precision in (("TRL", "float32"), ("lab", fast_precision())):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            label = f"{'TRL’s defaults' if arm == 'TRL' else 'the lab’s'},\n{precision}"
            job = process.submit(measure, arm, precision, examples, options.warm, options.steps)
            found[label], slowed[label], behind[label] = job.result()
    print(
        f"milliseconds for {UNIT} examples, one thread, {options.steps} steps after {options.warm}"
    )
    labels = {label: label.replace("\n", " ") for label in found}
    print(f"  {'':<36}" + "".join(f"{label:>26}" for label in labels.values()))
    for group in NAMES:
        print(f"  {group:<36}" + "".join(f"{times[group]:26.1f}" for times in found.values()))
        for label in found if options.names else ():
            ours = Counter({n: t for (g, n), t in behind[label].items() if g == group})
            for name, took in ours.most_common(options.names):
                print(f"      {labels[label]:<28}{took:7.2f}  {name}")
    print(f"  {'all':<36}" + "".join(f"{sum(times.values()):26.1f}" for times in found.values()))
    print(f"  {'slowed by the profiler':<36}" + "".join(f"{n:26.2f}" for n in slowed.values()))
    draw(found).save(options.picture)


if __name__ == "__main__":
    main()
