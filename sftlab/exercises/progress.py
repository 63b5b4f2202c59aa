"""What attempts add up to, for one learner or a class: from files of `sftlab progress`."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median

from sftlab.course import Attempt, calibration, keep, measured_predictions, read_lines
from sftlab.show import Report

RIGHT = "right"
"""The verdict of a right answer; each other one counts as not right."""


def record_attempt(
    exercise: str, verdict: str, misconception: str = "", seconds: float = 0.0
) -> None:
    """Keep one checked answer, if the learner has opted in; never an error.

    Args:
        exercise: its id; an untouched stub is no attempt.
        verdict: "right", or what else the check said.
        misconception: the key of the diagnosis among the exercise's `diagnoses`.
        seconds: the time spent on this attempt.
    """
    line = {"exercise": exercise, "verdict": verdict, "misconception": misconception}
    keep(Attempt(**line, seconds=max(seconds, 0.0)))


def class_report(files: Sequence[Path], *, names: bool = False) -> Report:
    """Attempts, misconceptions and calibration of the learners whose files are given.

    Nobody is named, except by `names` with the stem of the file. Lines that this version can't read
    are left out, counted and named. ValueError: two files share lines, so they are of one learner.
    """
    exercises: dict[str, list[list[Attempt]]] = defaultdict(list)
    damaged, predictions, learners, owners = [], [], [], {}
    for path in files:
        lines, numbers = read_lines(path)
        damaged += [f"{path}, line {number}" for number in numbers]
        for line in lines:
            if (owner := owners.setdefault(line, path)) != path:
                raise ValueError(f"{path} and {owner} hold the same lines; leave one of them out")
        tried: dict[str, list[Attempt]] = defaultdict(list)
        for line in lines:
            if isinstance(line, Attempt):
                tried[line.exercise].append(line)
        for exercise, attempts in tried.items():
            exercises[exercise].append(attempts)
        mine = measured_predictions(lines)
        predictions += mine
        held = f"{sum(not one.miss for one in mine)} of {len(mine)}"
        count = sum(map(len, tried.values()))
        learners.append([path.stem, len(tried), count, _right(tried.values(), -1), held])
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
    right = [attempts[place].verdict == RIGHT for attempts in of_learners]
    return f"{sum(right)} of {len(right)}"


def _row(exercise: str, of_learners: list[list[Attempt]]) -> list[str]:
    """One exercise: title, attempts, right at first and at last, misconceptions, seconds."""
    from sftlab.exercises import find_exercise

    title, diagnoses = exercise, {}
    try:
        found = find_exercise(exercise)
        title, diagnoses = f"{exercise}: {found.title}", found.diagnoses
    except ValueError:  # of another version, or a damaged id
        pass
    shown = Counter(
        name for one in of_learners for name in {a.misconception for a in one if a.misconception}
    )
    said = [f"{n} × {diagnoses.get(name, name)}" for name, n in shown.most_common(3)]
    attempts = [one for of_learner in of_learners for one in of_learner]
    seconds = f"{median(one.seconds for one in attempts):.0f}"
    first, last = _right(of_learners, 0), _right(of_learners, -1)
    return [title, f"{len(attempts)}", first, last, "; ".join(said), seconds]
