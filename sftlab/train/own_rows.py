"""The rows of your own file once they are ready: what is used, what is masked, what is cut."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sftlab.chat import IGNORED, Diagnosis, Finding, label_rows
from sftlab.data import WORDS, HeldOut, Report
from sftlab.train.settings import Settings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Row = dict[str, Any]
FEW_STEPS = 30
"""Optimiser steps below which a training is short, whatever the data is."""


@dataclass(frozen=True, kw_only=True)
class Length:
    """One row as the model will see it."""

    tokens: int
    """Before anything is cut."""
    learned: int
    """Tokens with a label, after the cut."""
    lost: int
    """Tokens with a label that were cut off."""


@dataclass(frozen=True, kw_only=True)
class OwnData:
    """What `prepare` made of a file; `print` tells it."""

    file: str
    """The path as it was given."""
    sha256: str
    """Of the file's bytes."""
    report: Report
    """What the reader found, bad rows included."""
    diagnosis: Diagnosis
    """What the template doctor found."""
    settings: Settings
    """How to train, the profile's values filled in, max_length within what the model reads."""
    train: list[Row]
    """Rows to learn from: `messages` and `meta`."""
    held_out: list[Row]
    """Rows to measure on; empty where there are too few."""
    split: HeldOut
    """How they were chosen, and the repeats that were found."""
    lengths: list[Length]
    """Of the rows that are used, in the order of the file."""
    left_out: list[tuple[str, Row]] = field(default_factory=list)
    """Sound rows that are not used, each with the reason."""

    @property
    def used(self) -> int:
        """Rows that are learned from or measured on."""
        return len(self.train) + len(self.held_out)

    @property
    def cut(self) -> int:
        """Rows that lose the end of an answer to max_length."""
        return sum(one.lost > 0 for one in self.lengths)

    @property
    def tokens(self) -> int:
        """Tokens of one epoch, after the cut."""
        most = self.settings.max_length
        return sum(min(self.lengths[n].tokens, most) for n in self.split.train)

    @property
    def steps(self) -> int:
        """Optimiser steps of the training."""
        how = self.settings
        one = how.per_device_train_batch_size * how.gradient_accumulation_steps
        return math.ceil(math.ceil(len(self.train) / one) * how.num_train_epochs)

    @property
    def notes(self) -> list[str]:
        """What one should know before training on this."""
        told = list(self.split.notes)
        for one in self._problems():
            apart = " (rows counted without the bad ones)" if one.rows and self.report.bad else ""
            told.append(f"{one.what}{apart}: {one.remedy}")
        if self.steps < FEW_STEPS:
            told.append(
                f"{self.steps} steps of training are few: where the answers hardly change, take "
                "more epochs, or a smaller per_device_train_batch_size"
            )
        return told

    def reasons(self) -> Counter[str]:
        """How many sound rows were left out, by reason."""
        return Counter(why for why, _ in self.left_out)

    def _problems(self) -> list[Finding]:
        """What the doctor found and is still there: rows with an error were left out."""
        return [
            one
            for one in self.diagnosis.problems
            if one.level == "warning" or (one.level == "error" and not one.rows)
        ]

    def table(self) -> list[tuple[str, str]]:
        """What was found, a name and a line each."""
        tokens = sorted(one.tokens for one in self.lengths)
        learned = sum(one.learned for one in self.lengths)
        held = len(self.held_out)
        levels = Counter(one.level for one in self._problems())
        doctor = ", ".join(f"{n} {level}{'s' * (n != 1)}" for level, n in levels.items())
        shown = {
            "rows": f"{self.report.rows:,} in {self.file}: {self.used:,} used, "
            f"{self.report.bad:,} bad, {len(self.left_out):,} left out",
            "left out": "; ".join(f"{n:,}: {why}" for why, n in self.reasons().most_common()),
            "shapes": ", ".join(f"{name} {n:,}" for name, n in self.report.shapes.most_common()),
            "template": f"{self.diagnosis.template}; the doctor found "
            + (doctor or "nothing wrong"),
            "repeats": f"{self.split.repeats:,} rows say what an earlier one says, "
            f"{self.split.near:,} nearly; all stay"
            + (", on one side of the split" if self.split.near_together and held else ""),
            "split": f"{len(self.train):,} rows to learn from, {held:,} held out",
            "overlap": f"{self.split.overlaps:,} of {held:,} held-out rows share {WORDS} words in "
            "a row with one that is learned from" if held else "",
            "length": f"the median row has {tokens[len(tokens) // 2]:,} tokens, the longest "
            f"{tokens[-1]:,}; max_length {self.settings.max_length:,} cuts {self.cut:,} rows",
            "learned": f"{learned:,} of {sum(tokens):,} tokens ({learned / sum(tokens):.0%}): the "
            "rest is masked",
        }  # fmt: skip
        return [(name, told) for name, told in shown.items() if told]

    def __str__(self) -> str:
        lines = [*self.table(), *(("note", note) for note in self.notes)]
        return "\n".join(f"{name:<9} {told}" for name, told in lines)


def measure_lengths(
    rows: Sequence[Row], tokenizer: "PreTrainedTokenizerBase", settings: Settings
) -> list[Length]:
    """What is learned of each row, by the very masks of the training."""
    if not rows:
        return []
    most, everything = settings.max_length, settings.supervised == "everything"
    found = []
    for one in label_rows(
        tokenizer, rows, turns="last" if settings.supervised == "last" else "all",
        end_of_turn=settings.end_of_turn, append_eos=settings.end_of_turn,
        on_empty="keep", on_full="keep",
    ):  # fmt: skip
        answers = sum(label != IGNORED for label in one.labels[:most])
        learned = min(len(one.ids), most) if everything and answers else answers
        found.append(Length(tokens=len(one.ids), learned=learned, lost=one.supervised - answers))
    return found
