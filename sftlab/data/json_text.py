"""JSON as the standard has it: duplicate keys and NaN are told, which Python's reader lets pass."""

import json
import math
import re
from typing import Any

from sftlab.data.problems import Problem, shown

ONE_LINE = "write each row with json.dumps on one line"
DEEP = "the nesting is too deep"


class Reader:
    """Decodes one value after the other; `problems` has what is wrong with the last of them.

    The standard library's decoder calls the hooks below; they note and go on, so that one
    slip in a row costs that row and no other.
    """

    def __init__(self):
        self.problems: list[Problem] = []
        decoder = json.JSONDecoder(
            object_pairs_hook=self._object,
            parse_constant=self._constant,
            parse_int=self._integer,
            parse_float=self._float,
        )
        self._raw_decode = decoder.raw_decode

    def decode(self, text: str, start: int = 0) -> tuple[Any, int]:
        """The value that begins at `start`, and where it ends.

        Raises json.JSONDecodeError or RecursionError.
        """
        self.problems = []
        return self._raw_decode(text, start)

    def decode_all(self, text: str) -> Any:
        """The one value that a text holds; `None` with `problems` when it holds none."""
        try:
            begin = len(text) - len(text.lstrip(" \t\r\n"))
            value, end = self.decode(text, begin)
            if rest := text[end:].strip(" \t\r\n"):
                self.problems.append(
                    Problem(
                        what="text follows the row's end",
                        field=f"column {text.index(rest, end) + 1}",
                        value=shown(rest),
                        remedy=ONE_LINE,
                    )
                )
            return value
        except (json.JSONDecodeError, RecursionError) as error:
            self.problems = [explain(error, text)]
            return None

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            seen: set[str] = set()
            twice = next(key for key, _ in pairs if key in seen or seen.add(key))
            self.problems.append(
                Problem(
                    what="an object has the same key twice",
                    field=shown(twice),
                    value=shown([value for key, value in pairs if key == twice]),
                    remedy="keep one of them: a reader would drop the others without a word",
                )
            )
        return made

    def _constant(self, name: str) -> None:
        self.problems.append(
            Problem(
                what="NaN and Infinity are no JSON",
                value=name,
                remedy="write null, or drop the key (pandas: df.to_json writes null)",
            )
        )

    def _integer(self, digits: str) -> int | None:
        if len(digits) < 19:
            return int(digits)
        number = int(digits) if len(digits) < 21 else 2**64
        if not -(2**63) <= number < 2**63:
            self._too_large(digits)
            return None
        return number

    def _float(self, digits: str) -> float | None:
        number = float(digits)
        if math.isfinite(number):
            return number
        self._too_large(digits)
        return None

    def _too_large(self, digits: str) -> None:
        remedy = "write it as a string: 64 bits do not hold it"
        self.problems.append(
            Problem(what="a number is too large", value=shown(digits), remedy=remedy)
        )


def explain(error: json.JSONDecodeError | RecursionError, text: str) -> Problem:
    """Why a text is no JSON, with the place in it."""
    if isinstance(error, RecursionError):
        return Problem(what=DEEP, value=shown(text[:61]), remedy="flatten or drop the row")
    near, field = text[max(0, error.pos - 20) : error.pos + 30], f"column {error.pos + 1}"
    if needs_more(error, text):
        return Problem(
            what="the JSON ends before it is complete",
            field=f"column {len(text.rstrip()) + 1}",
            value=shown(text.rstrip()[-60:]),
            remedy=f"the row is cut off or spread over lines: complete it, {ONE_LINE}",
        )
    said = "a raw control character stands in a string" if "control" in error.msg else "not JSON"
    remedies = {
        "a raw control character stands in a string": f"write it escaped: {ONE_LINE}",
        "not JSON": f"strings and keys stand in double quotes, true, false, null are small: "
        f"{ONE_LINE}",
    }
    value = f"{shown(near)}: {error.msg}"
    return Problem(what=said, field=field, value=value, remedy=remedies[said])


def needs_more(error: json.JSONDecodeError, text: str) -> bool:
    """Whether the text may be the beginning of something that is JSON.

    The decoder fails where the text ends, except within a string, where it tells the string's
    beginning, and within a word or an escape, where it tells theirs.
    """
    if error.msg.startswith("Unterminated string"):
        return True
    rest = text[error.pos :].rstrip()
    if len(rest) >= 12:
        return False
    begun = any(word.startswith(rest) for word in _WORDS) or _NUMBER_END.fullmatch(rest)
    return bool(begun) or (error.msg.startswith("Invalid \\") and '"' not in rest)


_WORDS = ("true", "false", "null", "NaN", "-Infinity", "Infinity")
_NUMBER_END = re.compile(r"\.|[eE][+-]?")
