"""Your own file, made ready for training. Nothing is left out without being counted.

    FILE  ->  validate   ->  doctor, mask, length  ->  train     learned from
              bad rows       rows left out             held out  measured on

The split depends on the file alone, so that runs with other settings are measured on the same rows.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from sftlab.chat import IGNORED, Diagnosis, Finding, examine, setup_tokenizer
from sftlab.data import HeldOut, RecordsError, Report, hold_out, read, validate
from sftlab.integrity import file_hash
from sftlab.machine import processes
from sftlab.models import load_tokenizer
from sftlab.planner import read_configuration
from sftlab.profiles import Profile, find_profile
from sftlab.quiet import quiet_libraries
from sftlab.train.examples import check_examples, masked
from sftlab.train.methods import check_targets
from sftlab.train.settings import Settings, check_added

Row = dict[str, Any]
FEW_STEPS = 30  # of the optimizer, below which a training is short, whatever the data is
MASKED = "nothing of their answers is learned"
# Why sound rows are left out, by the code of the doctor's finding.
REASONS = {
    "rows-refused": "the template refuses them",
    "rows-hold-markers": "they hold a token that only the template may write",
    "rows-without-answer": "they have no answer to learn",
    "rows-masked": MASKED,
    "rows-text-lost": "the template leaves out a text that is to be learned",
}


class DataFaults(RecordsError):
    """Rows that are wrong, or a file that is; `report` has all of it, counted."""

    def __init__(self, report: Report):
        self.report = report
        super().__init__(report.problems, total=report.problems_total)


class TrainingFaults(ValueError):
    """A template, or rows under it, that training would go wrong with; `findings` has them."""

    def __init__(self, findings: Sequence[Finding], *, advice: str):
        self.findings, self.advice = tuple(findings), advice
        super().__init__("\n".join([*(f"{one.what}: {one.remedy}" for one in findings), advice]))


class Length(NamedTuple):
    """One row as the model will see it."""

    tokens: int  # before anything is cut
    learned: int  # with a label, after the cut
    lost: int  # with a label that were cut off


@dataclass(frozen=True, kw_only=True)
class OwnData:
    """What `prepare` made of a file; `print` shows it."""

    file: str  # the path as it was given
    sha256: str  # of its bytes
    template: str  # its name, and why it is the one
    report: Report  # what the reader found, bad rows included
    diagnosis: Diagnosis  # what the template doctor found
    settings: Settings  # all filled in, max_length within what the model reads
    train: list[Row]  # to learn from: `messages`, `tools` where there are some, and `meta`
    held_out: list[Row]  # to measure on; empty where there are too few
    split: HeldOut  # how they were chosen, and the repeats that were found
    lengths: list[Length]  # of the rows that are used, in the order of the file
    left_out: list[tuple[str, Row]]  # sound rows that are not used, each with the reason
    meta: tuple[str, ...] = ()  # further columns that were to be carried along

    @property
    def cut(self) -> int:
        """Rows that lose the end of an answer to max_length."""
        return sum(one.lost > 0 for one in self.lengths)

    @property
    def tokens(self) -> int:
        """Tokens of one epoch, after the cut."""
        return sum(min(self.lengths[n].tokens, self.settings.max_length) for n in self.split.train)

    @property
    def steps(self) -> int:
        """Optimizer steps of the training."""
        how = self.settings
        if how.max_steps > 0:
            return how.max_steps
        one = how.per_device_train_batch_size * how.gradient_accumulation_steps
        one *= processes().num_processes
        return math.ceil(math.ceil(len(self.train) / one) * how.num_train_epochs)

    @property
    def notes(self) -> list[str]:
        """What one should know before training on this."""
        lines = list(self.split.notes)
        for one in self.diagnosis.problems:
            # Rows with an error were left out; an error of the template is there with --anyway.
            if one.level == "warning" or (one.level == "error" and not one.rows):
                lines.append(f"{one.what}: {one.remedy}")
        if self.steps < FEW_STEPS:
            lines.append(
                f"{self.steps} steps of training are few: where the answers hardly change, take "
                "more epochs (--epochs), or smaller batches (--set per_device_train_batch_size=4)"
            )
        return lines

    def reasons(self) -> Counter[str]:
        """How many sound rows were left out, by reason."""
        return Counter(why for why, _ in self.left_out)

    def table(self) -> list[tuple[str, str]]:
        """What was found, a name and a line each."""
        tokens = sorted(one.tokens for one in self.lengths)
        learned = sum(one.learned for one in self.lengths)
        report, split, left_out = self.report, self.split, len(self.left_out)
        counts = {"shapes": report.shapes, "used": report.used, "carried": report.meta}
        lines = {
            "rows": f"{report.rows:,} in {self.file}: {len(tokens):,} used, {report.bad:,} bad, "
            f"{left_out:,} left out",
            "left out": "; ".join(f"{n:,}: {why}" for why, n in self.reasons().most_common()),
            **{k: ", ".join(f"{o} {n:,}" for o, n in v.most_common()) for k, v in counts.items()},
            "template": self.template,
            "repeats": f"{split.repeats:,} rows say what an earlier one says, {split.near:,} "
            f"nearly; {split.overlaps:,} held-out rows share a passage with one that is learned",
            "split": f"{len(self.train):,} rows to learn from, {len(self.held_out):,} held out",
            "length": f"the median row has {tokens[len(tokens) // 2]:,} tokens, the longest "
            f"{tokens[-1]:,}; max_length {self.settings.max_length:,} cuts {self.cut:,} rows",
            "learned": f"{learned:,} of {sum(tokens):,} tokens; the rest is masked",
        }
        return [(name, line) for name, line in lines.items() if line]

    def __str__(self) -> str:
        lines = [*self.table(), *(("note", note) for note in self.notes)]
        return "\n".join(f"{name:<9} {line}" for name, line in lines)


def prepare(
    file: str | Path,
    *,
    profile: str | Path | Profile = "tiny",
    settings: Settings | None = None,
    skip_bad: bool = False,
    anyway: bool = False,
    group: str | None = None,
    meta: Sequence[str] = (),
    **overrides: Any,
) -> OwnData:
    """Check a file, try the template on it, and split it; of the model only the tokenizer is read.

    Args:
        skip_bad: go on without rows that are wrong, or that nothing can be learned from.
        anyway: go on although the doctor found an error in the template.
        group: a column; rows with the same value of it stand on the same side of the split.
        meta: further columns to carry along, from which nothing is learned.

    Raises RecordsError (DataFaults where rows are wrong), TrainingFaults where the template, or
    rows under it, would teach the wrong thing, and RowsError where a row has no value of `group`.
    """
    profile = find_profile(profile)
    asked = (settings or Settings()).changed(**overrides)
    settings = asked.filled(profile)
    report = validate(file, limit=20, meta=meta)
    if report.broken or not report.good or (report.bad and not skip_bad):
        raise DataFaults(report)
    rows = check_examples(read(file, bad="drop", meta=meta))
    tokenizer = load_tokenizer(profile)
    check_targets(profile, settings)
    check_added(settings.method, setup_tokenizer(tokenizer, template=settings.template))
    config = read_configuration(profile.source).get_text_config()
    limit = getattr(config, "max_position_embeddings", None)
    settings = replace(settings, max_length=min(settings.max_length, limit or settings.max_length))
    # The very text that is trained on: a bos that the template lacked is in it by now.
    template = settings.template_for(profile)
    name = "own" if settings.template == "own" else template.name  # no path of this machine
    why = "as asked" if asked.template else "the base brings none"
    why = "the model brings it" if name == "own" else why
    template = replace(template, name=name, text=tokenizer.chat_template)
    how = {name: getattr(settings, name) for name in ("max_length", "turns", "start")}
    with quiet_libraries():
        diagnosis = examine(template, tokenizer=tokenizer, conversations=rows, **how)
    errors = [finding for finding in diagnosis.findings if finding.level == "error"]
    if (wrong := [one for one in errors if not one.rows]) and not anyway:
        advice = "nothing was trained: mend it, or add --anyway (anyway=True)"
        raise TrainingFaults(wrong, advice=advice)
    refused = {row - 1: REASONS[one.code] for one in errors for row in one.rows}
    kept = [index for index in range(len(rows)) if index not in refused]
    lengths = dict(zip(kept, _lengths([rows[n] for n in kept], tokenizer, settings), strict=True))
    refused |= {index: MASKED for index, one in lengths.items() if not one.learned}
    used = [index for index in kept if index not in refused]
    if refused and not (used and skip_bad):
        first, remedy = min(refused), "no row is left to train on"
        remedy = "add --skip-bad (skip_bad=True) to train without them" if used else remedy
        raise TrainingFaults(
            [one for one in errors if one.rows],
            advice=f"{len(refused):,} of {len(rows):,} rows can't be learned from (the first is "
            f"row {first + 1}: {refused[first]}); max_length is {settings.max_length}; "
            f"{remedy}",
        )
    split = hold_out([rows[index] for index in used], group=group)
    return OwnData(
        file=str(file),
        sha256=file_hash(file),
        template=f"{name}: {why}",
        report=report,
        diagnosis=diagnosis,
        settings=settings,
        train=[rows[used[n]] for n in split.train],
        held_out=[rows[used[n]] for n in split.held_out],
        split=split,
        lengths=[lengths[index] for index in used],
        left_out=[(refused[index], rows[index]) for index in sorted(refused)],
        meta=tuple(meta),
    )


def _lengths(rows: Sequence[Row], tokenizer, settings: Settings) -> list[Length]:
    """What is learned of each row, by the very masks of the training."""
    most, found = settings.max_length, []
    for one in masked(rows, tokenizer, settings) if rows else ():
        answers = sum(label != IGNORED for label in one.labels[:most])
        everything = settings.turns == "everything" and answers
        learned = min(len(one.ids), most) if everything else answers
        found.append(Length(len(one.ids), learned, one.supervised - answers))
    return found
