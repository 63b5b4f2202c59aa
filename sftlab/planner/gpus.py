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

from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import NamedTuple

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
    """Operations a second, dense, in bfloat16 with sums in float32 (float16 where it has no
    bfloat16); bytes of memory, as sold; where the figures are from."""

    peak: float
    memory: float
    source: str


# Data sheets often print the doubled figure "with sparsity"; these are the dense ones.
GPUS = {
    "t4": Gpu(65e12, 16e9, "NVIDIA T4 data sheet (float16; no bfloat16)"),
    "rtx-3060-12gb": Gpu(
        25.5e12,
        12e9,
        "the GA102 white paper's figure for the RTX 3090, scaled to 28 "
        "multiprocessors at 1.78 GHz, of NVIDIA's page on the RTX 3060",
    ),
    "rtx-3090": Gpu(71e12, 24e9, "NVIDIA Ampere GA102 white paper"),
    "rtx-4090": Gpu(165.2e12, 24e9, "NVIDIA Ada GPU architecture white paper"),
    "a10": Gpu(125e12, 24e9, "NVIDIA A10 data sheet"),
    "l4": Gpu(121e12, 24e9, "NVIDIA L4 data sheet, half of the sparse figure"),
    "l40s": Gpu(362e12, 48e9, "NVIDIA L40S data sheet"),
    "a100-40gb": Gpu(312e12, 40e9, "NVIDIA A100 data sheet"),
    "a100-80gb": Gpu(312e12, 80e9, "NVIDIA A100 data sheet"),
    "h100": Gpu(989e12, 80e9, "NVIDIA H100 SXM data sheet, half of sparse"),
    "h200": Gpu(989e12, 141e9, "NVIDIA H200 SXM data sheet, half of sparse"),
}


class Speed(NamedTuple):
    """Tokens trained on in a second, padding included; operations a token; where it is from."""

    tokens_per_second: float
    operations: float
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
    """A GPU of the table by name.

    Raises:
        PlanError: it is not in the table; the message lists those that are.
    """
    if name.lower() not in GPUS:
        raise PlanError(
            f"gpu is {name!r}; choose one of {', '.join(GPUS)}, or give the tokens a second "
            "(throughput) and its memory"
        )
    return GPUS[name.lower()]


def speed(plan: Memory, *, gpu: str | None = None, throughput: float | None = None) -> Speed:
    """Tokens a second: as given, by a GPU's peak, or by a matrix multiplication timed here.

    Raises:
        PlanError: an unknown GPU, a throughput that is not above zero, or float32 on a GPU, for
            which the table has no figure.
    """
    operations = operations_per_token(plan)
    if throughput is not None:
        if not throughput > 0:
            raise PlanError(f"throughput is {throughput!r}; give tokens a second, above zero")
        return Speed(throughput, operations, "as given")
    if gpu is not None:
        found = find_gpu(gpu)
        if not plan.step.bf16:
            raise PlanError(
                "the table of GPUs has peaks of bfloat16: choose bfloat16, or give the tokens a "
                "second (throughput)"
            )
        share, peak = UTILISATION, found.peak
        source = f"{share:.0%} of {peak / 1e12:g} TFLOP/s ({found.source})"
    else:
        device = plan.step.device
        share, peak = ON_CPU if device == "cpu" else UTILISATION, matrix_speed(device)
        source = (
            f"{share:.0%} of {peak / 1e9:.0f} GFLOP/s, a float32 matrix multiplication timed "
            "on this machine now"
        )
    return Speed(share * peak / operations, operations, f"estimate: {source}")


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


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a case took: bytes that torch's allocator had given out at most (peak), that it had
    taken from the GPU (reserved: it keeps what is given back, in pieces that don't always fit
    again), that the driver held (outside); and its speed, padding included."""

    peak_bytes: int
    reserved_bytes: int
    outside_bytes: int
    tokens_per_second: float


def on_gpus(folder: Path = DATA / "gpus") -> list[tuple[str, Case, Measured]]:
    """(GPU, case, what it took) of all that `benchmarks/gpu/memory.py` measured and wrote down: it
    trained models of published sizes with random weights for a few steps."""
    return [row for file in sorted(folder.glob("*.csv")) for row in read_measured(file)]


def read_measured(file: Path) -> list[tuple[str, Case, Measured]]:
    """The same of one file."""
    rows = pd.read_csv(file).to_dict("records")
    return [
        (
            row["gpu"],
            Case(**{field.name: row[field.name] for field in fields(Case)}),
            Measured(**{field.name: row[field.name] for field in fields(Measured)}),
        )
        for row in rows
    ]
