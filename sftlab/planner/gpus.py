"""GPUs: how long a fine-tune will take on one, and what fine-tunes took on one that was measured.

Operations a token, for W weights in linear layers, L layers, queries of width q, length s and a
vocabulary V that a share u of the positions is scored on (Kaplan et al., arXiv 2001.08361, with the
causal half of attention):

    forward pass    2 W + 2 L q s + 2 u V h
    backward pass   twice that; once, where the base is frozen: weights then get no gradient; none
                    below the lowest layer that is trained
    checkpointing   2 W + 2 L q s again

A GPU does UTILISATION of its peak, a round figure between those measured with the lab's own steps
on an H100 (benchmarks/gpu). LoRA and QLoRA of 8 billion weights reached 31 to 37% with 8,192 tokens
or more a batch, 25 to 30% with 4,096, 15 to 21% with 2,048 and 6% with 512, where the GPU waits for
Python; int8 11 to 22%; 0.6 to 1.2 billion weights 9 to 31%. Large pretraining runs report 38-43%
(Llama 3, arXiv 2407.21783) and 46% (PaLM, arXiv 2204.02311).
"""

import tomllib
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from sftlab.machine import matrix_speed
from sftlab.paths import DATA
from sftlab.planner.architectures import find_architecture
from sftlab.planner.memory import Memory, PlanError, estimate

UTILISATION = 0.3
"""Share of a GPU's peak that training reaches (see above)."""
ON_CPU = 0.8
"""Share of the speed of a float32 matrix multiplication that the tiny model's fine-tune reached."""


class Gpu(NamedTuple):
    """Operations a second; bytes of memory; where they are from (see data/gpus/gpus.toml)."""

    peak: float
    memory: float
    source: str


_TABLE = tomllib.loads((DATA / "gpus" / "gpus.toml").read_text(encoding="utf-8"))
GPUS = {name: Gpu(**figures) for name, figures in _TABLE.items()}


class Speed(NamedTuple):
    """Tokens trained on in a second, padding included, and where the figure is from."""

    tokens_per_second: float
    source: str

    def hours(self, tokens: float) -> float:
        """Hours that so many tokens take."""
        return tokens / self.tokens_per_second / 3600


def operations_per_token(plan: Memory) -> float:
    """Operations of one trained token, by the formula above."""
    a, step = plan.architecture, plan.step
    layers = 2 * a.linear_weights + 2 * a.layers * a.queries * step.max_length
    head = 2 * step.supervised * a.head_weights
    backward = layers + head
    if step.method in ("full", "gradual"):
        backward *= 2
    elif step.method == "frozen":
        backward = 2 * layers * step.trained_layers / a.layers + (1 if a.tied else 2) * head
    elif step.method == "head":
        backward = layers + 2 * head if a.tied else head
    return layers + head + backward + (layers if step.gradient_checkpointing else 0)


def find_gpu(name: str) -> Gpu:
    """A GPU of the table by name; PlanError, which lists those that are there, for another."""
    if name.lower() not in GPUS:
        raise PlanError(f"gpu is {name!r}; choose one of {', '.join(GPUS)}")
    return GPUS[name.lower()]


def speed(plan: Memory, *, gpu: str | None = None) -> Speed:
    """Tokens a second, by a GPU's peak, or by a matrix multiplication timed on this machine.

    Raises PlanError for an unknown GPU, or float32 on one, for which the table has no figure.
    """
    share = ON_CPU if gpu is None and plan.step.device == "cpu" else UTILISATION
    if gpu is None:
        peak = matrix_speed(plan.step.device)
        shown = f"{peak / 1e9:.0f} GFLOP/s, a float32 matrix multiplication timed here now"
    else:
        peak, _, source = find_gpu(gpu)
        shown = f"{peak / 1e12:g} TFLOP/s ({source})"
        if not plan.step.bf16:
            raise PlanError("the table of GPUs has the peaks of bfloat16: plan with bf16")
    return Speed(share * peak / operations_per_token(plan), f"estimate: {share:.0%} of {shown}")


@dataclass(frozen=True)
class Case:
    """One way to train in bfloat16, with adapters of rank 16: `batch` rows, the longest of `length`
    tokens, the shortest of `shortest` of that, a label on the share `supervised` of a row's end."""

    model: str
    method: str
    batch: int
    length: int
    checkpointing: bool = False
    supervised: float = 1.0
    shortest: float = 1.0

    def __str__(self) -> str:
        more = ["checkpointing"] * self.checkpointing + ["padded"] * (self.shortest < 1)
        more += [f"supervised {self.supervised:g}"] * (self.supervised < 1)
        return " ".join([self.model, self.method, f"{self.batch} x {self.length}", *more])

    def plan(self) -> Memory:
        """What the planner says of it."""
        full = (1 + self.shortest) / 2  # share of the positions that is not padding
        return estimate(
            _sizes(self.model),
            method=self.method,
            per_device_train_batch_size=self.batch,
            max_length=self.length,
            gradient_checkpointing=self.checkpointing,
            device="cuda",
            supervised=self.supervised * full,
            padded=full < 1,
        )


_sizes = cache(find_architecture)


def on_gpus(*files: Path) -> list[tuple[str, Case, dict[str, Any]]]:
    """(GPU, case, what it took) of all that `benchmarks/gpu/memory.py` measured, or of some files.

    Bytes that torch's allocator had given out at most (peak_bytes), that it had taken from the GPU
    (reserved_bytes), that the driver held (outside_bytes); and tokens_per_second, with padding.
    """
    rows = pd.concat(map(pd.read_csv, files or sorted((DATA / "gpus").glob("*.csv"))))
    names = [field.name for field in fields(Case)]
    return [
        (row["gpu"], Case(**{name: row[name] for name in names}), row)
        for row in rows.to_dict("records")
    ]
