"""What fine-tunes took on a card, to compare a plan with: `data/cards/`, a file a card.

`benchmarks/gpu/memory.py` trained models of published sizes with random weights for a few steps and
wrote it down. Nothing here is measured when it is read.
"""

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sftlab.paths import DATA
from sftlab.planner.architectures import Architecture, find_architecture
from sftlab.planner.memory import Memory, estimate

FOLDER = DATA / "cards"


@dataclass(frozen=True)
class Case:
    """One way to train: bfloat16 products, adapters of rank 16."""

    model: str
    """A built-in architecture."""
    method: str
    """One of `sftlab.profiles.METHODS`."""
    batch: int
    """Rows."""
    length: int
    """Tokens of the longest row."""
    checkpointing: bool = False
    """Whether layers are computed again on the way back."""
    supervised: float = 1.0
    """Share of a row's tokens with a label, at its end."""
    shortest: float = 1.0
    """Length of the shortest row over that of the longest; the others lie evenly between."""

    def __str__(self) -> str:
        more = [name for name, there in (
            ("checkpointing", self.checkpointing), (f"supervised {self.supervised:g}",
             self.supervised < 1), ("padded", self.shortest < 1)) if there]  # fmt: skip
        return " ".join([self.model, self.method, f"{self.batch} x {self.length}", *more])

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row."""
        short = self.length * self.shortest
        step = (self.length - short) / max(self.batch - 1, 1)
        return [int(self.length - step * n) for n in range(self.batch)]

    def plan(self) -> Memory:
        """What the planner says of it."""
        full = sum(self.lengths) / (self.batch * self.length)  # share that is no padding
        return estimate(
            _sizes(self.model), method=self.method, batch=self.batch,
            length=self.length, checkpointing=self.checkpointing, device="cuda",
            supervised=self.supervised * full, padded=full < 1,
        )  # fmt: skip


@cache
def _sizes(model: str) -> Architecture:
    # 17 cases of one model stand in one picture, and to build it each time cost 70 ms a case.
    return find_architecture(model)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a case took."""

    peak_bytes: int
    """The most that torch's allocator had given out."""
    reserved_bytes: int
    """The most that it had taken from the card: it keeps what is given back, in pieces that don't
    always fit again."""
    outside_bytes: int
    """What the card held besides: the driver's context and kernels."""
    tokens_per_second: float
    """Padding included."""


def on_cards(folder: Path = FOLDER) -> list[tuple[str, Case, Measured]]:
    """(card, case, what it took) of all that was written down."""
    return [row for file in sorted(folder.glob("*.csv")) for row in read(file)]


def read(file: Path) -> list[tuple[str, Case, Measured]]:
    """The same of one file.

    Raises:
        KeyError: the file lacks a column that the benchmark writes.
    """
    with file.open(encoding="utf-8", newline="") as stream:
        return [
            (
                row["card"],
                Case(row["model"], row["method"], int(row["batch"]), int(row["length"]),
                     row["checkpointing"] == "True", float(row["supervised"]),
                     float(row["shortest"])),
                Measured(peak_bytes=int(row["peak_bytes"]),
                         reserved_bytes=int(row["reserved_bytes"]),
                         outside_bytes=int(row["outside_bytes"]),
                         tokens_per_second=float(row["tokens_per_second"])),
            )
            for row in csv.DictReader(stream)
        ]  # fmt: skip
