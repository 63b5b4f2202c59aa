"""What can be known about a lesson before it runs: where it is, its title, its parameters, and how
long it takes."""

import ast
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftlab.paths import DATA, NOTEBOOKS
from sftlab.planner import preflight

MINUTES = DATA / "minutes.json"
"""Minutes of each lesson as last recorded, and the machine with its speed."""


class LessonError(ValueError):
    """A lesson or a parameter that is not there, or a value of another type."""


@dataclass(frozen=True)
class Lesson:
    """A notebook as committed."""

    name: str  # the file's without `.ipynb`, such as `00_start_here`
    path: Path
    title: str  # text of its first heading
    promise: str  # the first line under that heading
    study: int | None  # minutes, which its first cell names
    defaults: Mapping[str, Any]  # from the cell tagged `parameters`, in its order


def find_lessons(names: Sequence[str] = (), *, folder: Path = NOTEBOOKS) -> list[Lesson]:
    """The lessons called `names`, in that order; every lesson of `folder` when none is named.

    A name may be whole (`00_start_here`) or only its number (`00`). Raises `LessonError` with the
    names that exist.
    """
    known = {path.stem: path for path in sorted(folder.glob("*.ipynb"))}
    found = {}
    for name in names or known:
        matching = [stem for stem in known if name in (stem, stem.split("_")[0])]
        if not matching:
            raise LessonError(f"there is no lesson {name!r}; choose one of {', '.join(known)}")
        found[matching[0]] = _read(known[matching[0]])
    return list(found.values())


def choose_parameters(
    lessons: Sequence[Lesson], parameters: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Lesson name -> the ones of `parameters` which that lesson has.

    Several lessons may share a command line, so one that lacks a parameter runs without it; one
    that none of them has, or of another type, is a LessonError: papermill itself only warns.
    """
    known = list(dict.fromkeys(name for lesson in lessons for name in lesson.defaults))
    if unknown := set(parameters) - set(known):
        raise LessonError(f"unknown parameter {', '.join(unknown)}; there are: {', '.join(known)}")
    for lesson in lessons:
        for name, value in parameters.items():
            default = lesson.defaults.get(name)
            kind = type(default)
            right = type(value) is kind or (kind is float and type(value) is int)
            right = right and abs(value if kind is float else 0) < math.inf  # JSON has no NaN
            if default is not None and not right:
                raise LessonError(
                    f"parameter {name!r} of {lesson.name} is {kind.__name__}, such as {default!r}; "
                    f"{value!r} is {type(value).__name__}"
                )
    return {
        lesson.name: {k: v for k, v in parameters.items() if k in lesson.defaults}
        for lesson in lessons
    }


def parse_parameter(text: str) -> tuple[str, Any]:
    """`"seeds=3"` -> `("seeds", 3)`; a value that is not a Python literal stays text."""
    name, equals, value = text.partition("=")
    if not equals:
        raise LessonError(f"cannot read the parameter {text!r}; write name=value, such as seeds=3")
    literal = value.capitalize() if value in ("true", "false", "none") else value
    try:
        return name.strip(), ast.literal_eval(literal)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return name.strip(), value


def _read(path: Path) -> Lesson:
    defaults = {}
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        for cell in cells:
            if "parameters" in cell["metadata"].get("tags", []):
                for line in ast.parse("".join(cell["source"])).body:
                    defaults[line.targets[0].id] = ast.literal_eval(line.value)
    except (ValueError, KeyError, TypeError, AttributeError, SyntaxError) as error:
        said = f"cannot read {path} as a lesson: {error}; mend it, or move it elsewhere"
        raise LessonError(said) from error
    text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    heading = re.search(r"^# (.+)\s*(.*)", text, re.MULTILINE)
    title, promise = heading.groups() if heading else (path.stem, "")
    study = re.search(r"\*\*Study time:\*\* about (\d+) minutes", text)
    return Lesson(
        name=path.stem,
        path=path,
        title=title,
        promise=promise.strip("*_> "),
        study=int(study[1]) if study else None,
        defaults=defaults,
    )


def time_line(lesson: str, speed: float | None, *, folder: Path = NOTEBOOKS) -> str:
    """Minutes to study a lesson and to run it where a model trains with `speed` tokens a second.

    The running time is the recorded one, scaled by the speed of the machine that recorded it.
    """
    parts, minutes = [], recorded_minutes(lesson)
    if (path := folder / f"{lesson}.ipynb").is_file() and (study := _read(path).study):
        parts.append(f"**{study} minutes** to study the core path")
    if minutes is None:
        parts.append("how long it runs has not been recorded")
    elif speed and (reference := recorded_minutes("tokens_per_second")):
        here = minutes * reference / speed
        shown = f"{here:.0f} minutes" if here >= 1.5 else "1 minute"
        parts.append(f"about **{shown}** to run all of it on this machine, as fast as it is now")
    else:
        machine = recorded_minutes("machine")
        parts.append(f"about **{minutes:.1f} minutes** to run all of it on {machine}")
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def recorded_minutes(name: str) -> Any:
    """Minutes of a lesson when the course was last recorded (`None`: it was not); `machine`, or its
    `tokens_per_second` with `tiny`."""
    return json.loads(MINUTES.read_text(encoding="utf-8")).get(name)


def record_minutes(results: Sequence[Any]) -> Path:
    """Write the minutes of a run's results, and how fast this machine is, to `MINUTES`."""
    minutes = json.loads(MINUTES.read_text(encoding="utf-8"))
    minutes |= {result.name: round(result.minutes, 2) for result in results}
    minutes["machine"] = f"{os.cpu_count()} cores"
    minutes["tokens_per_second"] = round(preflight("tiny").tokens_per_second)
    MINUTES.write_text(json.dumps(minutes, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return MINUTES
