"""The instructor's kit, made from the lessons and never kept.

    notebooks/ --> kit/student/     as they are; with README.md, recipes and, if given, the wheel
                   kit/solutions/   each exercise's stub replaced by its solution; quiz-answers.md
    docs/teaching.md, notebooks/, data/minutes.json, exercises --> kit/teaching.md
    kit/student.zip, kit/solutions.zip

`docs/teaching.md` is what a person writes. What the code knows stands behind the text of each
lesson in the kit's copy: minutes by section, exercises, and the mistakes that they recognize.
"""

import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sftlab.course import find_lessons, recorded_minutes
from sftlab.exercises import Exercise, exercises, quiz_questions
from sftlab.paths import NOTEBOOKS, RECIPES, folder_written_atomically
from sftlab.site.filling import fill

DOCS = NOTEBOOKS.parent / "docs"
CODE_LINE = 10  # words that take as long to read as a line of code
_LESSON = re.compile(r"^### ([0-9A]\d) .*?(?=^##|\Z)", re.MULTILINE | re.DOTALL)


def write_kit(out: Path, *, wheel: Path | None = None) -> Path:
    """Write the kit into the new folder `out`, which it returns.

    A `wheel` of the lab is put into both bundles; the first cell of a lesson installs it.
    ValueError: the wheel is not there, or this is no clone, which alone has docs.
    """
    if not (DOCS / "teaching.md").is_file():
        raise ValueError("docs/ is in a clone, not in a wheel; make the kit in one")
    if wheel and not (wheel.is_file() and wheel.suffix == ".whl"):
        raise ValueError(f"{wheel} is not a wheel; the help of `sftlab kit` says how to make one")
    with folder_written_atomically(out) as folder:
        for name in ("student", "solutions"):
            bundle = folder / name
            for here in (NOTEBOOKS, RECIPES):
                ignored = shutil.ignore_patterns(".*", "__pycache__")
                shutil.copytree(here, bundle / here.name, ignore=ignored)
            if wheel:
                shutil.copy(wheel, bundle / "notebooks")
            said = {"wheel": wheel.name if wheel else None, "solved": name == "solutions"}
            _write(bundle / "README.md", "bundle.md.jinja", **said)
        answers = {}
        for lesson in find_lessons():
            ours = exercises(lesson.name[:2])
            solve(folder / f"solutions/notebooks/{lesson.path.name}", ours)
            if ours:
                answers[lesson.title] = quiz_questions(lesson.name[:2])
        _write(folder / "solutions/quiz-answers.md", "quiz-answers.md.jinja", lessons=answers)
        (folder / "teaching.md").write_text(teaching(), encoding="utf-8")
        for name in ("student", "solutions"):
            shutil.make_archive(f"{folder / name}", "zip", folder, name)
    return out


def solve(path: Path, ours: list[Exercise]) -> None:
    """Replace the stub of each exercise in a notebook's file by its solution."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for one in ours:
        stub, solution = one.cells()[-1][1], one.cells(solved=True)[-1][1]
        cells = [cell for cell in notebook["cells"] if "".join(cell["source"]) == stub]
        if len(cells) != 1:
            raise ValueError(
                f"the cell of exercise {one.id} stands {len(cells)} times in {path.name}: the kit "
                "is made from the lessons as they come (`git checkout notebooks` brings them back)"
            )
        cells[0]["source"] = solution.splitlines(keepends=True)
    text = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8", newline="\n")


def teaching() -> str:
    """`docs/teaching.md`, with what the code knows behind the text of each lesson."""
    known = {lesson.name[:2]: lesson for lesson in find_lessons()}

    def with_tables(found: re.Match) -> str:
        if (lesson := known.get(found[1])) is None:
            return found[0]
        ours, minutes = exercises(found[1]), recorded_minutes(lesson.name)
        values = {"exercises": ours, "questions": len(quiz_questions(found[1])) if ours else 0}
        values |= {
            "study": lesson.study,
            "minutes": minutes,
            "machine": recorded_minutes("machine"),
        }
        made = fill("lesson.md.jinja", rows=by_section(lesson), **values)
        return f"{found[0].rstrip()}\n\n{made}\n"

    return _LESSON.sub(with_tables, (DOCS / "teaching.md").read_text(encoding="utf-8"))


def plan_of(number: str) -> str:
    """How to begin a lesson, what to discuss and what to skip, as `docs/teaching.md` has it."""
    path = DOCS / "teaching.md"
    plans = _LESSON.finditer(path.read_text(encoding="utf-8") if path.is_file() else "")
    return next((plan[0].partition("\n")[2] for plan in plans if plan[1] == number), "")


def by_section(lesson: Any) -> list[tuple[str, int, int, int]]:
    """Minutes of a lesson's sections: (title, core path, deeper, exercises).

    The lesson's study minutes are divided by words, where a line of code counts as ten; parts
    that are folded come on top at the same pace. Exercises have minutes of their own.
    """
    found = list(_sections(json.loads(lesson.path.read_text(encoding="utf-8"))["cells"]))
    ours = exercises(lesson.name[:2])
    pace = (lesson.study or 0) / sum(words["core"] for _, words in found)
    return [
        (
            title,
            *(round(pace * words[part]) for part in ("core", "deeper")),
            sum(exercise.minutes for exercise in ours if exercise.after == title),
        )
        for title, words in found
    ]


def _sections(cells: list[dict[str, Any]]) -> Iterator[tuple[str, Counter[str]]]:
    """What each `## ` heading opens, and before the first one the beginning: its title, and the
    words of its cells, `core` and `deeper`; exercises and set-up do not count."""
    title, words, deep = "Beginning", Counter(), 7  # level of the heading that folds what follows
    for cell in cells:
        tags, text = cell["metadata"].get("tags", []), "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            without_code = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
            for marks, heading in re.findall(r"^(##+) (.+)", without_code, re.MULTILINE):
                if len(marks) <= deep:
                    deep = len(marks) if "deep" in tags else 7
                if len(marks) == 2:
                    yield title, words
                    title, words = heading.strip(), Counter()
        if not {"exercise", "setup"} & set(tags):
            code = cell["cell_type"] == "code"
            spent = CODE_LINE * len(text.splitlines()) if code else len(text.split())
            words["deeper" if deep < 7 else "core"] += spent
    yield title, words


def _write(path: Path, template: str, **values: Any) -> None:
    path.write_text(fill(template, **values), encoding="utf-8", newline="\n")
