"""What a learner commits to: predictions before a run and, after opting in, the file of progress.

    predict("B3", 0.1, 0.4)    an 80% interval; kept in this kernel
    record("B3", estimate)     settle() enters what was measured; the claim's card shows both

`sftlab progress on` makes a file named `on` in the folder of progress. While it is there, settled
predictions and attempts at exercises are appended to progress.jsonl beside it, a JSON object a
line: no text of an answer and no name. Nothing is sent anywhere.
"""

import math
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import EllipsisType
from typing import Annotated

import platformdirs
from pydantic import BaseModel, Field, TypeAdapter

from sftlab.course.rules import UNITS, ClaimsError, Part, claims, in_unit
from sftlab.measure import share

# Files of a class come from others: no control character of theirs reaches a terminal.
Name = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f-\x9f]{0,100}$")]


class Line(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """A line of the file; one of another version, which has other keys, can't be read."""

    time: Name = Field(default_factory=lambda: datetime.now(UTC).isoformat())


class Attempt(Line, frozen=True):
    """A checked answer to an exercise; `misconception` is a key of the exercise's diagnoses."""

    exercise: Name
    verdict: Name
    misconception: Name
    seconds: Annotated[float, Field(ge=0)]


class Prediction(Line, frozen=True):
    """An 80% interval for a part of a claim, in its unit; `measured` once the claim is recorded."""

    claim: Name
    part: Name
    lesson: Name
    low: float
    high: float
    measured: float | None = None

    @property
    def miss(self) -> float:
        """How far the measured value lies outside the interval; 0 inside."""
        return max(self.low - self.measured, self.measured - self.high, 0.0)

    def __repr__(self) -> str:
        unit = next(part.unit for part in claims()[self.claim].rule if part.name == self.part)
        ends = f"{in_unit(self.low, unit)} to {in_unit(self.high, unit)}"
        return f"Recorded for {self.claim}, {self.part}: {ends}, with 80% probability."

    _repr_markdown_ = __repr__


LINE = TypeAdapter(Attempt | Prediction)
MADE: dict[tuple[str, str], Prediction] = {}  # claim and part -> the prediction of this kernel
MEASURED: set[str] = set()  # the claims recorded in this kernel


def progress_folder() -> Path:
    """The folder of progress; `SFTLAB_PROGRESS` overrides the platform's own."""
    return Path(os.environ.get("SFTLAB_PROGRESS") or platformdirs.user_data_dir("sftlab"))


def keep(line: Line) -> None:
    """Append a line if the learner has opted in. A full disk loses it; no lesson fails."""
    with suppress(OSError, ValueError):
        if (progress_folder() / "on").exists():
            with (progress_folder() / "progress.jsonl").open("ab+") as file:
                file.seek(max(file.tell() - 1, 0))
                gap = b"" if file.read(1) in (b"", b"\n") else b"\n"  # after a line without end
                file.write(gap + line.model_dump_json().encode() + b"\n")


def read_lines(path: Path) -> tuple[list[Line], list[int]]:
    """The lines of a file, and the numbers of those that this version can't read."""
    found, damaged = [], []
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        try:
            found += [LINE.validate_json(line)] if line.strip() else []
        except ValueError:
            damaged.append(number)
    return found, damaged


def predict(
    claim_id: str,
    low: float | EllipsisType = ...,
    high: float | EllipsisType = ...,
    part: str | None = None,
) -> Prediction | None:
    """Record an interval that you expect to hold the measured value with 80% probability.

    It comes before the run; the claim's card then marks and scores it. `low` and `high` are in the
    unit of the claim: 60% is 0.6, 34 points are 0.34. With both `...`, as in the lessons, nothing
    is recorded. `part` is a part of the claim's rule, by default the first.

    ClaimsError: no such claim or part, no such interval, or the claim was measured already.
    """
    if claim_id not in claims():
        raise ClaimsError(f"no claim {claim_id!r} in data/claims.toml; there are {[*claims()]}")
    units = {one.name: one.unit for one in claims()[claim_id].rule}
    if (name := part or next(iter(units))) not in units:
        raise ClaimsError(f"{claim_id} has no part {part!r}; its parts are {[*units]}")
    if low is high is ...:
        return None
    where, (lowest, highest) = f"{claim_id}, part {name!r}", UNITS[units[name]]
    if ... in (low, high):
        raise ClaimsError(f"{where}: give both low and high, or leave both as ...")
    numbers = all(isinstance(end, int | float) and math.isfinite(end) for end in (low, high))
    if not (numbers and lowest <= low <= high <= highest):
        raise ClaimsError(
            f"{where}, unit {units[name]}: low and high must be numbers from {lowest:g} to "
            f"{highest:g} (60% is 0.6), low not above high; got {low!r} and {high!r}"
        )
    made, before = {"low": low, "high": high}, MADE.get((claim_id, name))
    if claim_id not in MEASURED:
        made |= {"claim": claim_id, "part": name, "lesson": claims()[claim_id].notebook}
        before = MADE[claim_id, name] = Prediction(**made)
    elif before is None or before.model_dump(include={"low", "high"}) != made:
        raise ClaimsError(
            f"{where}: the claim was measured in this kernel already, so nothing is predicted; "
            "restart the kernel, and predict before the run"
        )
    return before


def settle(claim_id: str, values: Mapping[str, float]) -> None:
    """Enter what was measured for each part; the first measurement in a kernel counts."""
    for key, made in MADE.items():
        if key[0] == claim_id and claim_id not in MEASURED:
            MADE[key] = made.model_copy(update={"measured": float(values[key[1]])})
            keep(MADE[key])
    MEASURED.add(claim_id)


def predicted(claim_id: str, part: Part, value: float) -> tuple[tuple[float, ...], str]:
    """The ends of the predicted interval and what came of it, for a card; empty without one.

    The interval score is width + 2 / alpha x miss, alpha = 0.2 (Gneiting and Raftery 2007, eq. 43).
    """
    if not (made := MADE.get((claim_id, part.name))):
        return (), ""
    width, miss = made.high - made.low, made.model_copy(update={"measured": value}).miss
    low, high, measured = (in_unit(one, part.unit) for one in (made.low, made.high, value))
    unit = "difference of shares" if part.unit == "share" else part.unit
    score, wide, far = (in_unit(x, unit).lstrip("+") for x in (width + 10 * miss, width, miss))
    place = f"lies {far} {'below' if value < made.low else 'above'}" if miss else "lies in"
    return (made.low, made.high), (
        f"Your 80% interval for {part.name} (dashed box): {low} to {high}. The measured {measured} "
        f"{place} it. Its width is {wide}, its interval score {score}: the width plus ten times "
        "the distance by which it misses, so smaller is better."
    )


def measured_predictions(lines: Iterable[Line]) -> list[Prediction]:
    """Predictions with a measured value: the first for each part, after which it is known."""
    made = [one for one in lines if isinstance(one, Prediction) and one.measured is not None]
    return [*{(one.claim, one.part): one for one in reversed(made)}.values()]


def my_predictions() -> list[Prediction]:
    """The measured ones of this kernel and, where they were kept, of the lessons before."""
    lines = []
    with suppress(OSError):  # nothing is kept
        lines, _ = read_lines(progress_folder() / "progress.jsonl")
    return measured_predictions([*lines, *MADE.values()])


def calibration(made: Iterable[Prediction]) -> str:
    """How often 80% intervals held the measured value, as a sentence."""
    if not (held := [not one.miss for one in made]):
        return "No prediction was measured yet."
    found = share(held)
    low, high = found.interval
    reading = "too narrow" if high < 0.8 else "too wide" if low > 0.8 else "compatible with 80%"
    said = f"{found.hits} of {found.items} intervals of 80% held the measured value"
    return f"{said}: {found}, {reading}."
