"""What can be known about a lesson before it runs: where it is, its title, its parameters."""

import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftlab.paths import NOTEBOOKS


class UnknownLessonError(ValueError):
    """A name that no notebook carries."""


class UnknownParameterError(ValueError):
    """A parameter that none of the chosen notebooks has, or a value of another type."""


@dataclass(frozen=True)
class Lesson:
    """A notebook as committed."""

    name: str
    """File name without `.ipynb`, such as `00_start_here`."""
    path: Path
    """The notebook file."""
    title: str
    """Text of its first heading; the name when it has none."""
    promise: str
    """The first paragraph under that heading; may be empty."""
    defaults: Mapping[str, Any]
    """Parameter -> default, from the cell tagged `parameters`, in its order."""


def find_lessons(names: Sequence[str] = (), *, folder: Path = NOTEBOOKS) -> list[Lesson]:
    """The lessons called `names`, in that order; every lesson of `folder` when none is named.

    A name may be whole (`00_start_here`), only its number (`00`), or the path of any notebook.
    Raises `UnknownLessonError` with the names that exist.
    """
    known = {path.stem: path for path in sorted(folder.glob("*.ipynb"))}
    if not names and not known:
        raise UnknownLessonError(f"there is no notebook in {folder}; run this in a complete clone")
    paths = []
    for name in names or list(known):
        if name.endswith(".ipynb") and Path(name).is_file():
            paths.append(Path(name).resolve())
            continue
        stem = name.removesuffix(".ipynb")
        matches = [stem] if stem in known else [k for k in known if k.split("_")[0] == stem]
        if len(matches) != 1:
            raise UnknownLessonError(
                f"there is no lesson {name!r}; choose one of {', '.join(known)}"
            )
        paths.append(known[matches[0]])
    return [_read(path) for path in dict.fromkeys(paths)]


def choose_parameters(
    lessons: Sequence[Lesson], parameters: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Lesson name -> the ones of `parameters` which that lesson has.

    Several lessons may share a command line, so one that lacks a parameter runs without it; a
    parameter that none of them has is refused, since papermill itself only warns and goes on.
    Raises `UnknownParameterError` naming the parameters that exist, or the type expected.
    """
    exist = list(dict.fromkeys(name for lesson in lessons for name in lesson.defaults))
    for name, value in parameters.items():
        if name not in exist:
            raise UnknownParameterError(
                f"unknown parameter {name!r}; there are: {', '.join(exist) or '(none)'}"
            )
        for lesson in lessons:
            default = lesson.defaults.get(name)
            if default is not None and not _fits(value, default):
                raise UnknownParameterError(
                    f"parameter {name!r} of {lesson.name} is {type(default).__name__}, such as "
                    f"{default!r}; {value!r} is {type(value).__name__}"
                )
    return {
        lesson.name: {k: v for k, v in parameters.items() if k in lesson.defaults}
        for lesson in lessons
    }


def parse_parameter(text: str) -> tuple[str, Any]:
    """`"seeds=3"` -> `("seeds", 3)`; a value that is not a Python literal stays text."""
    name, equals, value = text.partition("=")
    if not equals or not name.strip().isidentifier():
        raise UnknownParameterError(
            f"cannot read the parameter {text!r}; write name=value, such as seeds=3"
        )
    return name.strip(), _literal(value)


def _literal(text: str) -> Any:
    lowered = {"true": True, "false": False, "none": None}
    if text.strip().lower() in lowered:
        return lowered[text.strip().lower()]
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError):
        return text


def _fits(value: Any, default: Any) -> bool:
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    if isinstance(default, float):
        return isinstance(value, int | float)
    return isinstance(value, type(default))


def _read(path: Path) -> Lesson:
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        defaults = _defaults(cells)
    except (ValueError, KeyError, TypeError, SyntaxError) as error:
        raise UnknownLessonError(
            f"cannot read {path} as a notebook: {error}; open and save it in JupyterLab"
        ) from error
    lines = [
        line.strip()
        for cell in cells
        if cell["cell_type"] == "markdown"
        for line in "".join(cell["source"]).splitlines()
        if line.strip()
    ]
    first = next((i for i, line in enumerate(lines) if line.startswith("# ")), None)
    after = lines[first + 1] if first is not None and first + 1 < len(lines) else ""
    return Lesson(
        name=path.stem,
        path=path,
        title=lines[first].removeprefix("# ") if first is not None else path.stem,
        promise="" if after.startswith("#") else after.strip("*_> "),
        defaults=defaults,
    )


def _defaults(cells: list[dict[str, Any]]) -> dict[str, Any]:
    """The assignments of the cell tagged `parameters`; they must be literals."""
    found = {}
    for cell in cells:
        if "parameters" in cell["metadata"].get("tags", []):
            for line in ast.parse("".join(cell["source"])).body:
                if isinstance(line, ast.Assign):
                    found[line.targets[0].id] = ast.literal_eval(line.value)
    return found
