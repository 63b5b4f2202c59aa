"""What an exercise is: one source for its cells, its checks, its hints and its solution.

    one = Exercise("05.1", "Labels of a conversation", after="1. ...", minutes=8, difficulty=1,
                   task="...", hints=("...", "...", "..."))

    @one.draw
    def inputs(random): ...             # the arguments of one call, from random.Random

    @one.stub
    def labels_of(ids, is_answer): ...  # what the learner finds; returns `...`

    @one.right
    def solved(ids, is_answer): ...

    @one.wrong("You shifted the labels. The model shifts them itself.")
    def shifted(ids, is_answer): ...

An exercise without a stub is a decision: the learner looks at `given()` and hands over a value.
"""

import importlib
import inspect
import re
import textwrap
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

from markupsafe import Markup, escape

from sftlab.exercises import checking
from sftlab.exercises.checking import Verdict
from sftlab.exercises.progress import record_attempt
from sftlab.show import Card

DIFFICULTY = {1: "easy", 2: "medium", 3: "hard"}


class ExerciseError(ValueError):
    """An exercise that does not exist, or an answer of the wrong kind."""


@dataclass(eq=False)
class Exercise:
    """An exercise; see the head of this file."""

    id: str  # lesson and number, such as "05.1"
    title: str
    after: str  # the `## ` heading of the section that it practises, without its marks
    minutes: int
    difficulty: int  # 1 to 3
    task: str  # what to do, in markdown
    hints: tuple[str, ...]  # one to three; the last may give the answer away
    expects: str = "..."  # of a decision: what the answer looks like, as a comment in its cell
    imports: str = ""  # import lines that its solution needs besides the lesson's
    draws: int = 40  # how many inputs are drawn
    tolerance: float = 1e-6  # relative, for numbers
    diagnoses: dict[str, str] = field(default_factory=dict)  # wrong answer -> what it shows

    def __post_init__(self) -> None:
        self.functions: dict[str, Callable] = {}  # draw, stub, right
        self.mistakes: dict[str, Callable] = {}  # name -> wrong answer
        self._hints = 0  # shown so far
        self._began: float | None = None
        self._last = Verdict(checking.NOT_ATTEMPTED)

    def draw(self, function: Callable) -> Callable:
        """Decorates the function that draws a tuple of arguments."""
        return self.functions.setdefault("draw", function)

    def stub(self, function: Callable) -> Callable:
        """Decorates what the learner finds; it returns `...`."""
        return self.functions.setdefault("stub", function)

    def right(self, function: Callable) -> Callable:
        """Decorates the right answer."""
        return self.functions.setdefault("right", function)

    def wrong(self, diagnosis: str) -> Callable[[Callable], Callable]:
        """Decorates a wrong answer; `diagnosis` says what is misunderstood, not what is right."""

        def decorate(function: Callable) -> Callable:
            self.diagnoses[function.__name__] = diagnosis
            return self.mistakes.setdefault(function.__name__, function)

        return decorate

    @property
    def is_decision(self) -> bool:
        """Whether the answer is a value instead of a function."""
        return "stub" not in self.functions

    def inputs(self) -> list[tuple]:
        """The drawn arguments, the same in each kernel; of a decision the one that is shown."""
        random = Random(f"exercise {self.id}")
        return [
            self.functions["draw"](random) for _ in range(1 if self.is_decision else self.draws)
        ]

    def given(self) -> Any:
        """What a decision is about: a table, or a text."""
        (shown,) = self.inputs()[0]
        return shown

    def judge(self, answer: Any) -> Verdict:
        """Run an answer beside the wrong ones. ExerciseError: it is no function."""
        if not self.is_decision and answer is not ... and not callable(answer):
            name = self.functions["stub"].__name__
            raise ExerciseError(
                f"this exercise checks a function, got {type(answer).__name__}; pass "
                f"{name} itself, without calling it"
            )
        function = (lambda *_: answer) if self.is_decision or answer is ... else answer
        solution, inputs = self.functions["right"], self.inputs()
        found = checking.judge(function, solution, self.mistakes, inputs, tolerance=self.tolerance)
        if found.kind == checking.WRONG and self.is_decision:
            right, shape = solution(*inputs[0]), self._elements
            if (missed := shape(right, answer)) is not None:
                # Two mistakes at once: the larger one that accounts for a part of what is wrong.
                wrong = {n: shape(right, one(*inputs[0])) for n, one in self.mistakes.items()}
                if parts := [name for name in wrong if wrong[name] and wrong[name] <= missed]:
                    name = max(parts, key=lambda name: len(wrong[name]))
                    known = {"kind": checking.MISCONCEPTION, "misconception": name}
                    return replace(found, **known, partly=True)
        return found

    @staticmethod
    def _elements(right: Any, value: Any) -> set | None:
        """What is in a set and not in the right one, or missing; of a list the entries that differ,
        each with its place. None: they can't be compared."""
        with suppress(TypeError):  # elements such as lists, which no set can hold
            if isinstance(right, set) and isinstance(value, set | list | tuple):
                return right ^ set(value)
            if isinstance(right, list) and len(right) == len(value):
                return set(enumerate(value)) - set(enumerate(right))
        return None

    def check(self, answer: Any) -> Card:
        """Say whether an answer is right, or which mistake it shows; never the right value."""
        self._began = self._began or time.monotonic()
        try:
            found = self._last = self.judge(answer)
        except ExerciseError as error:  # a card is read sooner than a traceback
            return self._card("not checked", f"{str(error)[0].upper()}{str(error)[1:]}.")
        seconds = time.monotonic() - self._began
        if found.kind != checking.NOT_ATTEMPTED:
            record_attempt(self.id, found.kind, found.misconception, seconds)
        folded = []
        if found.kind == checking.NOT_ATTEMPTED:  # a page without a kernel can show them too
            folded = [(f"Hint {n + 1}", marked(text)) for n, text in enumerate(self.hints)]
            folded.append(("A solution", Markup("<pre>{}</pre>").format(self._solved())))
        return self._card(found.kind, *self._said(found), folded=folded)

    def hint(self) -> Card:
        """The next hint, after those already shown. The third adds the answer for the input of the
        last failing check."""
        self._hints = min(self._hints + 1, len(self.hints))
        lines = [f"Hint {n + 1}: {text}" for n, text in enumerate(self.hints[: self._hints])]
        if self._hints == 3 and self._last.inputs and not self.is_decision:
            right = checking.run(self.functions["right"], self._last.inputs)
            lines.append(f"For `{self._call(self._last.inputs)}` the answer is `{right.value!r}`.")
        if self._hints == len(self.hints):
            lines.append(f'There are no more hints. `exercise("{self.id}").solution()` shows one.')
        return self._card("hint", *lines)

    def solution(self) -> Card:
        """One right answer, as code."""
        record_attempt(self.id, "solution shown")
        said = [] if self.is_decision else ["Others may be as good."]
        return self._card("solution", *said, code=self._solved())

    def _solved(self) -> str:
        """The code of the solution; of a decision with the answer."""
        function = self.functions["right"]
        if self.is_decision:
            return f"{_source(function, function.__name__)}\n\n# {self._answer()}"
        code = _source(function, self.functions["stub"].__name__)
        return f"{self.imports}\n\n\n{code}".strip()

    def _answer(self) -> str:
        """The right value of a decision, as Python writes it."""
        value = self.functions["right"](*self.inputs()[0])
        if isinstance(value, set):
            return f"{{{', '.join(map(repr, sorted(value)))}}}"
        answer = checking.plain(value)
        return repr(tuple(answer) if isinstance(value, tuple) else answer)

    def cells(self, *, solved: bool = False) -> list[tuple[str, str]]:
        """(kind, source) of its cells: the task, the data of a decision, the stub; `solved`: with
        the right answer in place of the stub."""
        about = f"*{DIFFICULTY[self.difficulty].capitalize()}, about {self.minutes} minutes.*"
        heading = f"### Exercise {self.id}: {self.title}"
        text = f"{heading}\n\n{about}\n\n{textwrap.dedent(self.task).strip()}"
        ask = f'exercise("{self.id}")'
        if self.is_decision:
            found = self._answer() if solved else f"...  # {self.expects}"
            code = f"my_answer = {found}\n{ask}.check(my_answer)"
            return [("markdown", text), ("code", f"{ask}.given()"), ("code", code)]
        stub = self.functions["stub"]
        code = self._solved() if solved else _source(stub, stub.__name__)
        code = f"{code}\n\n\n{ask}.check({stub.__name__})"
        return [("markdown", text), ("code", code)]

    def _call(self, inputs: tuple) -> str:
        """The call that a learner can repeat."""
        return f"{self.functions['stub'].__name__}({', '.join(map(repr, inputs))})"

    def _said(self, found: Verdict) -> list[str]:
        """The lines of a check."""
        more = f'`exercise("{self.id}").hint()` gives a hint.'
        if found.kind == checking.NOT_ATTEMPTED:
            return [f"Not attempted yet: replace the `...`, then run this cell again. {more}"]
        if found.kind == checking.RIGHT:
            return ["Right."]
        if found.kind == checking.MISCONCEPTION:
            # Several mistakes may be wrong alike on a few inputs, so no more is said than is known.
            said = (
                "Part of what is wrong looks like"
                if self.is_decision
                else ("Where your answer is wrong, it does the same as")
            )
            where = [f"{said} this mistake:"] * found.partly
            return [*where, self.diagnoses[found.misconception], more]
        if self.is_decision:
            return [self._about_value(found.outcome.value), more]
        call = self._call(found.inputs)
        if found.kind == checking.MUTATES:
            said = "What it returns is right, but it changes its input: work on a copy."
            return [said, f"It happens in `{call}`."]
        if found.kind == checking.RAISES:
            error = found.outcome.error
            said = f"It raises {type(error).__name__}: {error}"
            return [said, f"The smallest input for which it does: `{call}`.", more]
        lines = [f"Not right yet. The smallest input for which it differs: `{call}`."]
        lines.append(f"It returns `{checking.plain(found.outcome.value)!r}`.")
        right = checking.run(self.functions["right"], found.inputs).value
        if found.outcome.value is None and right is not None:
            lines.append("Is a `return` missing?")
        if found.outcome.changed:
            lines.append("It also changes its input: work on a copy.")
        return [*lines, more]

    def _about_value(self, value: Any) -> str:
        """What is wrong with a decision that is none of the known mistakes."""
        right = self.functions["right"](*self.inputs()[0])
        wrong = self._elements(right, value)
        if isinstance(right, set) and wrong is not None:
            if set(value) > right:
                return "Not right: something that you name does not belong."
            return "Not right: something is missing" + (
                "." if set(value) < right else ", and something that you name does not belong."
            )
        said = (
            "Not right" if wrong is None else f"Not right: {len(wrong)} of {len(right)} are wrong"
        )
        return f"{said}, and it is no usual mistake alone. Asked for: {self.expects}."

    def _card(self, kind: str, *lines: str, code: str = "", folded: Sequence = ()) -> Card:
        """A message; `folded` are (title, markup) that only HTML shows."""
        title = f"{self.id} {self.title}"
        text = "\n".join([f"{title}: {kind}", *lines, *([code] if code else [])])
        shown = {"title": title, "kind": kind, "lines": [marked(line) for line in lines]}
        return Card("exercise.html", text=text, code=code, folded=folded, **shown)


def marked(text: str) -> Markup:
    """Text as HTML, with `code` and **bold**."""
    safe = re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text)))
    return Markup(re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", safe))


def _source(function: Callable, name: str) -> str:
    """The code of a function under another name, without decorators."""
    code = textwrap.dedent(inspect.getsource(function))
    code = code[re.search(r"^def ", code, flags=re.M).start() :].rstrip()
    return code.replace(f"def {function.__name__}(", f"def {name}(", 1)


def exercises(lesson: str) -> list[Exercise]:
    """The exercises of a lesson, such as "05", in their order; none where it has none."""
    name = f"lesson_{lesson}"
    if not (Path(__file__).with_name("lessons") / f"{name}.py").is_file():
        return []
    module = importlib.import_module(f"sftlab.exercises.lessons.{name}")
    return [one for one in vars(module).values() if isinstance(one, Exercise)]


def exercise(id: str) -> Exercise:
    """The exercise with this id, such as "05.1". ExerciseError: there is none."""
    there = {one.id: one for one in exercises(str(id).partition(".")[0])}
    if id not in there:
        known = ", ".join(there) or "05.1, the first of lesson 05, and so on"
        raise ExerciseError(f"there is no exercise {id!r}; there are {known}")
    return there[id]
