"""The file of a learner who has opted in: attempts at exercises, predictions and what came of them.

    sftlab progress on            the folder gets a file named `on`
    an answer was checked   --Attempt-----+
    a claim was measured    --Prediction--+--keep()--> progress.jsonl --read_lines()--> a table

Each line is a JSON object. It holds no text of an answer and no name, and nothing is sent anywhere.
The folder is the platform's own for a user's data; `SFTLAB_PROGRESS` names another.
"""

import os
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from sftlab.course.rules import claims, in_unit
from sftlab.paths import check_writable

# Files of a class come from others: no line breaks and no control characters of a terminal.
Name = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f-\x9f]{0,100}$")]
Number = Annotated[float, Field(allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
ALPHA = 0.2
"""An interval of 80% misses with this probability."""


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


class Attempt(BaseModel):
    """One answer to an exercise that was checked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1  # of the format
    exercise: Name  # its id
    verdict: Name  # `right`, or what else the check said
    misconception: Name = ""  # the key of the diagnosis, where the check knew one
    seconds: Seconds = 0.0  # spent on this attempt
    time: Name = Field(default_factory=_now)


class Prediction(BaseModel):
    """An 80% interval for one part of a claim, in the unit of its rule."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    claim: Name
    part: Name
    lesson: Name
    low: Number
    high: Number
    measured: Number | None = None  # None until the claim is recorded
    time: Name = Field(default_factory=_now)

    @property
    def miss(self) -> float:
        """The distance from the interval to the measured value; 0 when it lies inside."""
        return max(self.low - self.measured, self.measured - self.high, 0.0)

    @property
    def score(self) -> float:
        """The interval score: width + 2 / alpha x miss, the smaller the better (Gneiting and
        Raftery 2007, equation 43)."""
        return self.high - self.low + 2 / ALPHA * self.miss

    def __repr__(self) -> str:
        unit = next(part.unit for part in claims()[self.claim].rule if part.name == self.part)
        ends = f"{in_unit(self.low, unit)} to {in_unit(self.high, unit)}"
        return f"Recorded for {self.claim}, {self.part}: with 80% probability {ends}."

    _repr_markdown_ = __repr__


LINE = TypeAdapter(Attempt | Prediction)


def progress_file() -> Path:
    """Where the lines are kept, whether or not they are there yet."""
    return Path(os.environ.get("SFTLAB_PROGRESS") or platformdirs.user_data_dir("sftlab")) / (
        "progress.jsonl"
    )


def progress_is_on() -> bool:
    """Whether the learner has opted in."""
    return os.path.isfile(progress_file().with_name("on"))


def turn_progress(on: bool) -> None:
    """Opt in or out; what is kept stays. PathError: the folder can't be written to."""
    mark = progress_file().with_name("on")
    if on:
        check_writable(mark.parent, remedy="set SFTLAB_PROGRESS in the environment to another")
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    else:
        mark.unlink(missing_ok=True)


def keep(line: Attempt | Prediction) -> None:
    """Append a line when the learner has opted in. A full disk loses it, and no lesson fails."""
    with suppress(OSError, ValueError):
        if progress_is_on():
            with progress_file().open("ab+") as file:
                # After a full disk the last line may have no end: only that one is lost.
                torn = file.tell() and file.seek(-1, os.SEEK_END) >= 0 and file.read(1) != b"\n"
                file.write(b"\n" * torn + line.model_dump_json().encode() + b"\n")


def read_lines(path: Path) -> tuple[list[Attempt | Prediction], list[int]]:
    """The lines of a file, and the numbers of those that this version can't read."""
    found, damaged = [], []
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if line.strip():
            try:
                found.append(LINE.validate_json(line))
            except ValueError:
                damaged.append(number)
    return found, damaged
