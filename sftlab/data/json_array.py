"""Rows of a JSON document, one at a time: the document is never held as a whole.

[ {row}, {row}, ... ]          an array
{"version": 1, "data": [ {row}, {row}, ... ]}        an object with one array of rows
{"messages": [...]}            one row

         taken              window              not read yet
~~~~~~~~~~~~~~~~~~~~~|=====================|~~~~~~~~~~~~~~~~~~~~
                     at
"""

import codecs
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, BinaryIO

from sftlab.data.json_text import Reader, explain, needs_more
from sftlab.data.problems import Problem, shown
from sftlab.data.rows import LONGEST, too_long
from sftlab.data.shapes import SHAPES

CHUNK = 2**16
_BLANK = " \t\r\n"
_COLUMNS = {name for columns in SHAPES.values() for names in columns for name in names}


class Broken(Exception):
    """The document can't be followed any further; `problem` tells why."""

    def __init__(self, problem: Problem, line: int):
        super().__init__(problem.what)
        self.problem, self.line = problem, line


class Window:
    """A part of a text file, moved along; bytes that are not UTF-8 become lone surrogates."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self._decode = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape").decode
        self._ended = False
        self.text, self.at, self.line = "", 0, 1
        self.reader = Reader()
        self.beside: tuple[str, ...] = ()

    def _more(self) -> bool:
        """Read on, twice as far each time, so that a long value costs no more than its length."""
        if self._ended:
            return False
        if len(self.text) - self.at > LONGEST:
            raise Broken(too_long(), self.line)
        data = self._file.read(max(CHUNK, len(self.text) - self.at))
        self._ended = not data
        self.text = self.text[self.at :] + self._decode(data, self._ended)
        self.at = 0
        return not self._ended

    def take(self, end: int) -> None:
        """Move on to `end`."""
        self.line += self.text.count("\n", self.at, end)
        self.at = end

    def peek(self) -> str:
        """The next character that is not blank; nothing at the end."""
        while True:
            end = self.at
            while end < len(self.text) and self.text[end] in _BLANK:
                end += 1
            self.take(end)
            if end < len(self.text):
                return self.text[end]
            if not self._more():
                return ""

    def opens_rows(self) -> bool:
        """Whether an array comes next whose first element is an object."""
        if self.peek() != "[":
            return False
        while not (rest := self.text[self.at + 1 :].lstrip(_BLANK)[:1]) and self._more():
            pass
        return rest == "{"

    def value(self) -> tuple[Any, str]:
        """The next value and its text; the window stands behind it then."""
        if not self.peek():
            raise self._broken("the JSON ends before it is complete", "complete the file")
        while True:
            try:
                value, end = self.reader.decode(self.text, self.at)
            except json.JSONDecodeError as error:
                if needs_more(error, self.text) and self._more():
                    continue
                began = f"in what begins on line {self.line}"
                problem = replace(explain(error, self.text[: error.pos + 60]), field=began)
                line = self.line + self.text.count("\n", self.at, error.pos)
                raise Broken(problem, line) from None
            except RecursionError as error:
                raise Broken(explain(error, self.text[self.at :]), self.line) from None
            # A number that touches the window's end may go on behind it.
            if end < len(self.text) or not self._more():
                text = self.text[self.at : end]
                self.take(end)
                return value, text

    def expect(self, marks: str) -> str:
        """Move over the next character, which must be one of `marks`."""
        found = self.peek()
        if not found:
            raise self._broken("the JSON ends before it is complete", "complete the file")
        if found not in marks:
            raise self._broken("not JSON", f"one of {' '.join(marks)} belongs here")
        self.take(self.at + 1)
        return found

    def _broken(self, what: str, remedy: str) -> Broken:
        near = shown(self.text[self.at : self.at + 50])
        return Broken(Problem(what=what, value=near, remedy=remedy), self.line)


def elements(window: Window) -> Iterator[tuple[int, Any, str]]:
    """The elements of the array that comes next: the line each begins on, itself and its text."""
    window.expect("[")
    if window.peek() == "]":
        window.expect("]")
        return
    while True:
        window.peek()
        line = window.line
        value, text = window.value()
        yield line, value, text
        if window.expect(",]") == "]":
            return


def rows(window: Window) -> Iterator[tuple[int, Any, str]]:
    """The rows of a document in one of the forms above, as `elements` gives them.

    Raises Broken where the document can't be followed.
    """
    if window.peek() == "[":
        yield from elements(window)
    else:
        yield from _of_object(window)
    if window.peek():
        raise window._broken(
            "text follows the document's end",
            "keep one array of rows, or write one row a line into a .jsonl file",
        )


def _of_object(window: Window) -> Iterator[tuple[int, Any, str]]:
    """The rows of the object's one array of objects; without one, the object itself as a row."""
    first, whole, problems, given = window.line, {}, [], None
    window.expect("{")
    ended = window.peek() == "}" and window.expect("}")
    while not ended:
        key, _ = window.value()
        if not isinstance(key, str):
            raise window._broken("not JSON", "a key stands in double quotes")
        if key == given or key in whole:
            raise window._broken("an object has the same key twice", f"keep one {shown(key)}")
        window.expect(":")
        if key not in _COLUMNS and not whole.keys() & _COLUMNS and window.opens_rows():
            if given is not None:
                raise window._broken(
                    "the object has more than one array of rows",
                    f"keep one a file: {shown(given)} is read already, {shown(key)} is not",
                )
            given = key
            yield from elements(window)
        else:
            whole[key], _ = window.value()
            problems += window.reader.problems
        ended = window.expect(",}") == "}"
    if given is None:
        window.reader.problems = problems
        yield first, whole, json.dumps(whole, ensure_ascii=False)
    window.beside = tuple(whole) if given is not None else ()
