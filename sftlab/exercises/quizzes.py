"""Quizzes: questions with options, each option with its own feedback.

An option is an HTML `details` element, which needs no kernel and no script: it opens by a click or
the keyboard, and of the options of one question one is open at a time. Where styles are left out,
as in an output that JupyterLab does not trust, the options still open.
"""

import tomllib
from itertools import count
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, StringConstraints

from sftlab.exercises.definitions import marked
from sftlab.show import Card

QUIZZES = Path(__file__).with_name("lessons")
_shown = count(1)  # the options of two quizzes on a page must not close one another
Text = Annotated[str, StringConstraints(strict=True, strip_whitespace=True, min_length=1)]


class QuizError(ValueError):
    """A mistake in a file of questions, or a lesson that has none."""


class Option(BaseModel, extra="forbid"):
    """One answer to choose, and what is said to who chooses it."""

    text: Text
    says: Text
    right: bool = False


class Question(BaseModel, extra="forbid"):
    """A question and its options."""

    ask: Text
    option: Annotated[list[Option], Field(min_length=2)]


def read_quiz(path: Path) -> list[Question]:
    """The questions of a TOML file; QuizError names the file, the question and the mistake."""
    found, where = [], path.name
    try:
        for row in tomllib.loads(path.read_text(encoding="utf-8"))["question"]:
            where = f"{path.name}, question {len(found) + 1}"
            found.append(Question.model_validate(row))
            if (right := sum(option.right for option in found[-1].option)) != 1:
                raise ValueError(f"{right} options have right = true; exactly one must")
    except (ValueError, KeyError) as error:
        raise QuizError(f"{where}: {error}") from None
    return found


def quiz_questions(lesson: str) -> list[Question]:
    """The questions of a lesson, such as `"05"`. QuizError: it has none, or a mistake."""
    path = QUIZZES / f"quiz_{lesson}.toml"
    if not path.is_file():
        there = sorted(file.stem.removeprefix("quiz_") for file in QUIZZES.glob("quiz_*.toml"))
        raise QuizError(f"no quiz for lesson {lesson!r}; there are {', '.join(there)}")
    return read_quiz(path)


def quiz(lesson: str) -> Card:
    """The questions of a lesson, such as `"05"`; an option that is chosen shows its feedback.

    The plain text has questions and options alone. QuizError: as in `quiz_questions`.
    """
    questions, lines = quiz_questions(lesson), []
    for number, question in enumerate(questions, start=1):
        lines += [f"{number}. {question.ask}", *(f"   - {one.text}" for one in question.option)]
    values = {"questions": questions, "lesson": lesson, "name": f"quiz-{lesson}-{next(_shown)}"}
    return Card("quiz.html", text="\n".join(lines), inline=marked, **values)
