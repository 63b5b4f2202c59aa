"""What attempts add up to, for one learner or a class: from files of `sftlab progress`."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

from sftlab.course import Attempt, calibration, keep, measured_predictions, read_lines
from sftlab.show import Report


def record_attempt(
    exercise: str, verdict: str, misconception: str = "", seconds: float = 0.0
) -> None:
    """Keep what a check of an exercise said, if the learner has opted in.

    `verdict` is "right", "solution shown" (no attempt), or what else was found; `misconception` a
    key of the exercise's `diagnoses`; `seconds` count from the first time that it was run.
    """
    line = {"exercise": exercise, "verdict": verdict, "misconception": misconception}
    keep(Attempt(**line, seconds=seconds))


def class_report(files: Sequence[Path], *, names: bool = False) -> Report:
    """Attempts, misconceptions and calibration of the learners whose files are given.

    Nobody is named, except by `names` with the stem of the file. Lines that can't be read are left
    out and named. ValueError: two files share a line, so they are of one learner.
    """
    exercises, owners = defaultdict(list), {}  # exercise -> the attempts of each learner at it
    damaged, predictions, learners = [], [], []
    for n, path in enumerate(files):
        lines, numbers = read_lines(path)
        damaged += [f"{path}, line {number}" for number in numbers]
        if shared := {owners.setdefault(line, n) for line in lines} - {n}:
            raise ValueError(f"{files[shared.pop()]} and {path} share lines; leave one of them out")
        tried = defaultdict(list)
        for line in lines:
            if isinstance(line, Attempt) and line.verdict != "solution shown":
                tried[line.exercise].append(line)
        for exercise, attempts in tried.items():
            exercises[exercise].append(attempts)
        predictions += (mine := measured_predictions(lines))
        held, count = sum(not one.miss for one in mine), sum(map(len, tried.values()))
        last = _right(tried.values(), -1)
        learners.append([path.stem, f"{count}", last, f"{held} of {len(mine)}"])
    return Report(
        "class.report",
        pictures={},
        title=f"Progress of {len(files)} learner{'s' * (len(files) != 1)}",
        exercises=[_row(*item) for item in sorted(exercises.items())],
        learners=sorted(learners) if names else [],
        calibration=calibration(predictions),
        damaged=damaged,
    )


def _right(of_learners: Iterable[list[Attempt]], place: int) -> str:
    """Of how many learners the first (0) or last (-1) attempt was right."""
    right = [attempts[place].verdict == "right" for attempts in of_learners]
    return f"{sum(right)} of {len(right)}"


def _row(id: str, of_learners: list[list[Attempt]]) -> dict[str, Any]:
    """One exercise: title, attempts, right at first and at last, seconds; its misconceptions."""
    from sftlab.exercises.definitions import ExerciseError, exercise  # which records attempts

    title, diagnoses = id, {}
    with suppress(ExerciseError):  # of another version
        title, diagnoses = f"{id} {exercise(id).title}", exercise(id).diagnoses
    shown = Counter(
        name for one in of_learners for name in {a.misconception: a for a in one} if name
    )
    said = [[id, f"{n}", diagnoses.get(name, name)] for name, n in shown.most_common(3)]
    count, seconds = sum(map(len, of_learners)), median(one[-1].seconds for one in of_learners)
    first, last = _right(of_learners, 0), _right(of_learners, -1)
    return {"cells": [title, f"{count}", first, last, f"{seconds:.0f}"], "misconceptions": said}
