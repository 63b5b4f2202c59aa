"""Your own file, made ready for training. Nothing is left out without being counted.

    FILE  ->  validate   ->  doctor, mask, length  ->  train     learned from
              bad rows       rows left out             held out  measured on

The split depends on the file alone, so that runs with other settings are measured on the same rows.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sftlab.chat import Finding, examine, find_template
from sftlab.data import RecordsError, Report, hold_out, read, validate
from sftlab.models import Profile, find_profile, load_tokenizer
from sftlab.planner import read_configuration
from sftlab.quiet import quiet_libraries
from sftlab.train.methods import added_refusal
from sftlab.train.own_rows import OwnData, Row, measure_lengths
from sftlab.train.settings import Settings, SettingsError
from sftlab.train.speech import teach_tokenizer

MASKED = "nothing of their answers is learned"
REASONS = {
    "rows-refused": "the template refuses them",
    "rows-hold-markers": "they hold a token that only the template may write",
    "rows-without-answer": "they have no answer to learn",
    "rows-masked": MASKED,
}
"""Why sound rows are left out, by the code of the doctor's finding."""


class DataFaults(RecordsError):
    """Rows that are wrong, or a file that is; `report` has all of it, counted."""

    def __init__(self, report: Report):
        self.report = report
        super().__init__(report.problems, total=report.problems_total)

    def __reduce__(self):
        return type(self), (self.report,)


class TrainingFaults(ValueError):
    """A template, or rows under it, that training would go wrong with; `findings` has them."""

    def __init__(self, findings: Sequence[Finding], *, advice: str):
        self.findings = tuple(findings)
        self.advice = advice
        told = [f"{one.what}: {one.remedy}" for one in self.findings]
        super().__init__("\n".join([*told, advice]))

    def __reduce__(self):
        return _faults, (self.findings, self.advice)


def _faults(findings: Sequence[Finding], advice: str) -> TrainingFaults:
    return TrainingFaults(findings, advice=advice)


def prepare(
    file: str | Path,
    *,
    profile: str | Path | Profile = "tiny",
    settings: Settings | None = None,
    skip_bad: bool = False,
    anyway: bool = False,
    group: str | None = None,
    **overrides: Any,
) -> OwnData:
    """Check a file, try the template on it, and split it; of the model only the tokenizer is read.

    Args:
        file: JSONL, JSON, CSV, TSV or Parquet, in any shape that `sftlab.data.read` reads.
        profile: the model to train.
        settings: how to train it.
        skip_bad: go on without rows that are wrong, or that nothing can be learned from.
        anyway: go on although the doctor found an error in the template.
        group: a column; rows with the same value of it stand on the same side of the split.
        **overrides: single settings by name.

    Raises:
        RecordsError: there is no such file, or its format is not known.
        DataFaults: rows are wrong, or none is good.
        TrainingFaults: the template, or rows under it, would make training fail or teach the wrong
            thing.
        RowsError: a row has no value of `group`.
        SettingsError, UnknownProfileError, ModelNotAvailableError: as for `finetune`.
    """
    profile = find_profile(profile)
    settings = (settings or Settings()).changed(**overrides).filled(profile)
    report = validate(file, limit=20)
    if report.broken or not report.good or (report.bad and not skip_bad):
        raise DataFaults(report)
    rows = list(read(file, bad="drop"))
    tokenizer = load_tokenizer(profile)
    added = teach_tokenizer(tokenizer, template=settings.template)
    if why := added_refusal(settings.method, added):
        raise SettingsError(why)
    limit = _limit(profile)
    settings = replace(settings, max_length=min(settings.max_length, limit or settings.max_length))
    # Asked of the very text that is trained on: a bos that the template lacked is in it by now.
    asked = replace(find_template(settings.template), text=tokenizer.chat_template)
    with quiet_libraries():
        diagnosis = examine(
            asked, tokenizer=tokenizer, conversations=rows, max_length=settings.max_length
        )
    errors = [finding for finding in diagnosis.findings if finding.level == "error"]
    if (wrong := [one for one in errors if not one.rows]) and not anyway:
        raise TrainingFaults(wrong, advice="nothing was trained: mend it, or add --anyway")
    refused = {row - 1: REASONS[one.code] for one in errors for row in one.rows}
    kept = [index for index in range(len(rows)) if index not in refused]
    lengths = measure_lengths([rows[index] for index in kept], tokenizer, settings)
    left = dict(zip(kept, lengths, strict=True))
    refused |= {index: MASKED for index, one in left.items() if not one.learned}
    if refused and (not skip_bad or len(refused) == len(rows)):
        found = [one for one in errors if one.rows] or [_masked(refused)]
        raise TrainingFaults(found, advice=_advice(refused, rows, settings, limit))
    used = [index for index in left if index not in refused]
    split = hold_out([rows[index] for index in used], group=group)
    return OwnData(
        file=str(file),
        sha256=file_hash(file),
        report=report,
        diagnosis=diagnosis,
        settings=settings,
        train=[rows[used[n]] for n in split.train],
        held_out=[rows[used[n]] for n in split.held_out],
        split=split,
        lengths=[left[index] for index in used],
        left_out=[(refused[index], rows[index]) for index in sorted(refused)],
    )


def file_hash(file: str | Path) -> str:
    """SHA-256 of a file's bytes, as hexadecimal text."""
    with Path(file).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _limit(profile: Profile) -> int | None:
    """Tokens that the model reads, where its configuration tells."""
    config = read_configuration(profile.source).get_text_config()
    return getattr(config, "max_position_embeddings", None)


def _masked(refused: dict[int, str]) -> Finding:
    """What the doctor would say, had it known that the last answer alone is learned."""
    first = min(refused)
    return Finding(
        level="error",
        code="rows-masked",
        what=f"{MASKED} of {len(refused):,} rows (the first is row {first + 1})",
        remedy="raise max_length, or shorten or drop them",
        rows=tuple(index + 1 for index in refused),
    )


def _advice(refused: dict[int, str], rows: list[Row], settings: Settings, limit: int | None) -> str:
    told = []
    if MASKED in refused.values():
        most = f", and the model reads {limit} at most" if limit else ""
        told.append(f"max_length is {settings.max_length}{most} (--set max_length=...)")
    if len(refused) == len(rows):
        told.append("no row is left to train on")
    else:
        told.append(
            f"to train without these {len(refused):,} of {len(rows):,} rows, add --skip-bad"
        )
    return "; ".join(told)
