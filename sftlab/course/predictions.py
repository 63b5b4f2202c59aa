"""Predictions before a run: 80% intervals for claims, what came of them, and how often they held.

predict("B3", 0.1, 0.4)     before the run; kept in this kernel
record("B3", estimate)      the measured value is entered: settle()
claim_card(...)             shows both
my_predictions()            those of this kernel, and the file's of a learner who opted in
"""

import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from types import EllipsisType

from sftlab.course.progress import (
    Attempt,
    Prediction,
    keep,
    progress_file,
    progress_is_on,
    read_lines,
)
from sftlab.course.rules import UNITS, ClaimsError, Part, claims, in_unit
from sftlab.measure import percent, share

MADE: dict[tuple[str, str], Prediction] = {}
"""Claim and part -> the prediction made in this kernel."""
MEASURED: set[str] = set()
"""The claims that were recorded in this kernel."""


class PredictionError(ValueError):
    """A prediction that can't be of its claim, or comes after the measurement."""


def predict(
    claim_id: str,
    low: float | EllipsisType = ...,
    high: float | EllipsisType = ...,
    part: str | None = None,
) -> Prediction | None:
    """Record an interval that you expect to hold the measured value with 80% probability.

    Call it before the cells that measure the claim; its card then shows the interval and scores it.
    With `...` for both ends, as a lesson has it, nothing is recorded.

    Args:
        low, high: in the unit of the claim: a share from 0 to 1, 34 points as 0.34.
        part: of the claim's rule; by default the first.

    Raises:
        ClaimsError: no such claim or part.
        PredictionError: the interval can't be of this claim, or the claim was measured already.
    """
    if claim_id not in claims():
        raise ClaimsError(f"no claim {claim_id!r} in data/claims.toml; there are {[*claims()]}")
    parts = {one.name: one for one in claims()[claim_id].rule}
    if (name := part or next(iter(parts))) not in parts:
        raise ClaimsError(f"{claim_id} has no part {part!r}; its parts are {[*parts]}")
    if low is ... and high is ...:
        return None
    where, (lowest, highest) = f"{claim_id}, part {name!r}", UNITS[parts[name].unit]
    for end, value in {"low": low, "high": high}.items():
        if value is ...:
            raise PredictionError(f"{where}: give {end} too, or leave both ends as ...")
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
        ):
            raise PredictionError(f"{where}: {end} must be a number, got {value!r}")
        if not lowest <= value <= highest:
            unit = parts[name].unit
            hint = f"; write 60 {'%' if unit == 'share' else 'points'} as 0.6" * ("share" in unit)
            bounds = f"{lowest:g} to {highest:g}" if highest < math.inf else f"{lowest:g} or more"
            raise PredictionError(f"{where}: a {unit} is {bounds}, got {end}={value:g}{hint}")
    if low > high:
        raise PredictionError(f"{where}: low={low:g} is above high={high:g}; exchange them")
    before = MADE.get((claim_id, name))
    if claim_id in MEASURED:
        if before and (before.low, before.high) == (low, high):
            return before
        raise PredictionError(
            f"{claim_id} was measured in this kernel already, so this is no prediction; restart the "
            "kernel to predict before the run, or put back what the cell had"
        )
    lesson = claims()[claim_id].notebook
    made = Prediction(claim=claim_id, part=name, lesson=lesson, low=low, high=high)
    MADE[claim_id, name] = made
    return made


def settle(claim_id: str, values: Mapping[str, float]) -> None:
    """Enter what was measured, part -> value; the first measurement of a kernel counts."""
    for name, value in values.items() if claim_id not in MEASURED else ():
        if made := MADE.get((claim_id, name)):
            MADE[claim_id, name] = made.model_copy(update={"measured": float(value)})
            keep(MADE[claim_id, name])
    MEASURED.add(claim_id)


def prediction_of(claim_id: str, part: str) -> Prediction | None:
    """The prediction made in this kernel, if there is one."""
    return MADE.get((claim_id, part))


def outcome(made: Prediction, part: Part, value: float) -> str:
    """What came of a prediction, for the card of its claim."""
    found = made.model_copy(update={"measured": value})
    low, high, measured = (in_unit(one, part.unit) for one in (made.low, made.high, value))
    width, miss, score = (
        in_unit(one, "difference of shares" if part.unit == "share" else part.unit).lstrip("+")
        for one in (made.high - made.low, found.miss, found.score)
    )
    side = "below" if value < made.low else "above"
    place = f"lies {miss} {side} it" if found.miss else "lies in it"
    return (
        f"Your 80% interval for {part.name} (dashed box): {low} to {high}. The measured {measured} "
        f"{place}. Its width is {width}, its interval score {score}: the width plus ten times the "
        "distance by which it misses, so smaller is better."
    )


def measured_predictions(lines: Iterable[Attempt | Prediction]) -> list[Prediction]:
    """The predictions whose claim was measured; of several for one part the first, since after it
    the value is known."""
    made: dict[tuple[str, str], Prediction] = {}
    for line in lines:
        if isinstance(line, Prediction) and line.measured is not None:
            made.setdefault((line.claim, line.part), line)
    return list(made.values())


def my_predictions() -> list[Prediction]:
    """The measured predictions of this kernel and, after opting in, of the lessons before."""
    before = []
    with suppress(OSError):
        before = read_lines(progress_file())[0] if progress_is_on() else []
    return measured_predictions([*before, *MADE.values()])


def calibration(made: Iterable[Prediction]) -> str:
    """How often 80% intervals held the measured value, in a sentence or two."""
    held = [not one.miss for one in made]
    if not held:
        return "No prediction was measured yet."
    found = share(held)
    low, high = found.interval
    reading = "that is compatible with 80%"
    if high < 0.8:
        reading = "the intervals are too narrow"
    elif low > 0.8:
        reading = "the intervals are too wide"
    ends = f"95% interval {percent(low)} to {percent(high)}"
    return f"{found.hits} of {found.items} intervals of 80% held the measured value ({ends}): {reading}."
