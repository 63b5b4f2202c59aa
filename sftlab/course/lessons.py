"""What can be known about a lesson before it runs: where it is, its title, its parameters."""

import ast
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftlab.paths import NOTEBOOKS


class LessonError(ValueError):
    """A lesson or a parameter that is not there, or a value of another type."""


@dataclass(frozen=True)
class Lesson:
    """A notebook as committed."""

    name: str  # the file's without `.ipynb`, such as `00_start_here`
    path: Path
    title: str  # text of its first heading; the name when it has none
    promise: str  # the first line under that heading; may be empty
    defaults: Mapping[str, Any]  # from the cell tagged `parameters`, in its order


def find_lessons(names: Sequence[str] = (), *, folder: Path = NOTEBOOKS) -> list[Lesson]:
    """The lessons called `names`, in that order; every lesson of `folder` when none is named.

    A name may be whole (`00_start_here`), only its number (`00`), or the path of any notebook.
    Raises `LessonError` with the names that exist.
    """
    known = {path.stem: path for path in sorted(folder.glob("*.ipynb"))}
    if not names and not known:
        raise LessonError(f"there is no notebook in {folder}; run this in a complete clone")
    paths = []
    for name in names or known:
        if name.endswith(".ipynb") and Path(name).is_file():
            paths.append(Path(name).resolve())
            continue
        stem = name.removesuffix(".ipynb")
        found = [stem] if stem in known else [k for k in known if k.split("_")[0] == stem]
        if len(found) != 1:
            raise LessonError(f"there is no lesson {name!r}; choose one of {', '.join(known)}")
        paths.append(known[found[0]])
    return [_read(path) for path in dict.fromkeys(paths)]


def choose_parameters(
    lessons: Sequence[Lesson], parameters: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Lesson name -> the ones of `parameters` which that lesson has.

    Several lessons may share a command line, so one that lacks a parameter runs without it; one
    that none of them has, or of another type, is a LessonError: papermill itself only warns.
    """
    exist = list(dict.fromkeys(name for lesson in lessons for name in lesson.defaults))
    for name, value in parameters.items():
        if name not in exist:
            known = ", ".join(exist) or "(none)"
            raise LessonError(f"unknown parameter {name!r}; there are: {known}")
        for lesson in lessons:
            default = lesson.defaults.get(name)
            kind = type(default)
            right = type(value) is kind or (kind is float and type(value) is int)
            if default is not None and not right:
                raise LessonError(
                    f"parameter {name!r} of {lesson.name} is {kind.__name__}, such as "
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
        raise LessonError(f"cannot read the parameter {text!r}; write name=value, such as seeds=3")
    literal = value.strip()
    if literal.lower() in ("true", "false", "none"):
        literal = literal.capitalize()
    try:
        return name.strip(), ast.literal_eval(literal)
    except (ValueError, SyntaxError):
        return name.strip(), value


def _read(path: Path) -> Lesson:
    defaults = {}
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        for cell in cells:
            if "parameters" in cell["metadata"].get("tags", []):
                for line in ast.parse("".join(cell["source"])).body:
                    if isinstance(line, ast.Assign):
                        defaults[line.targets[0].id] = ast.literal_eval(line.value)
    except (ValueError, KeyError, TypeError, SyntaxError) as error:
        said = f"cannot read {path} as a notebook: {error}; open and save it in JupyterLab"
        raise LessonError(said) from error
    text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    heading = re.search(r"^ *# (.+)\s*(.*)", text, re.MULTILINE)
    title, after = map(str.strip, heading.groups()) if heading else (path.stem, "")
    promise = "" if after.startswith("#") else after.strip("*_> ")
    return Lesson(name=path.stem, path=path, title=title, promise=promise, defaults=defaults)
