"""Which mistake an answer shows, found by running it beside known wrong answers.

    drawn inputs --> learner's answer --> outcomes --+
                 --> solution ---------> outcomes ---+--> right, or where they differ:
                 --> wrong answer 1..k > outcomes ---+    the wrong answer with the same outcomes

No code is read: whatever a learner wrote, it is the mistake whose outputs it has.
"""

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, NamedTuple

NOT_ATTEMPTED, RIGHT, MISCONCEPTION = "not attempted", "right", "misconception"
MUTATES, RAISES, WRONG = "changes its input", "raises", "wrong"


class Outcome(NamedTuple):
    """What a function did with one input."""

    value: Any  # what it returned; None when it raised
    error: Exception | None = None
    changed: bool = False  # it changed one of its arguments


@dataclass(frozen=True)
class Verdict:
    """What `judge` found out about an answer."""

    kind: str  # one of the constants above
    misconception: str = ""  # name of the wrong answer that it agrees with
    partly: bool = False  # there it agrees only where the answer is wrong, or on some of that
    inputs: tuple = ()  # the smallest drawn arguments for which it is not right
    outcome: Outcome | None = None  # what the answer made of them


def run(function: Callable, inputs: tuple) -> Outcome:
    """Call a function on a copy of the arguments."""
    given = copy.deepcopy(inputs)
    try:
        value = function(*given)
        if isinstance(value, Iterator):  # a generator is as good as its list
            value = list(value)
    except Exception as error:
        return Outcome(None, error, not same(given, inputs))
    return Outcome(value, None, not same(given, inputs))


def plain(value: Any) -> Any:
    """Tensors, arrays, frames and tuples as lists, dicts and numbers of Python."""
    if hasattr(value, "to_dict"):  # a table or a column
        value = value.to_dict("list") if hasattr(value, "columns") else value.tolist()
    elif hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [plain(one) for one in value]
    return value


def same(left: Any, right: Any, tolerance: float = 1e-6) -> bool:
    """Whether two values are equal: numbers within a relative `tolerance`, sequences by element.

    True is not 1, NaN equals NaN. Values that can't be compared, such as generators of random
    numbers, count as equal when they have the same type.
    """
    left, right = plain(left), plain(right)
    if {type(left), type(right)} == {set, list}:  # `[0, 3]` is as good as `{0, 3}`
        left, right = sorted(left, key=repr), sorted(right, key=repr)
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, Real) and isinstance(right, Real):
        both_nan = left != left and right != right
        return both_nan or math.isclose(left, right, rel_tol=tolerance, abs_tol=1e-9)
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[k], right[k], tolerance) for k in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(
            same(one, other, tolerance) for one, other in zip(left, right, strict=True)
        )
    if type(left) is not type(right):
        return False
    by_identity = type(left).__eq__ is object.__eq__
    return True if by_identity else bool(left == right)


def agree(left: Outcome, right: Outcome, tolerance: float) -> bool:
    """Whether both returned the same, or raised the same type of exception."""
    if left.error or right.error:
        return type(left.error) is type(right.error)
    return same(left.value, right.value, tolerance)


def judge(
    answer: Callable,
    solution: Callable,
    wrong: Mapping[str, Callable],
    inputs: Sequence[tuple],
    *,
    tolerance: float = 1e-6,
) -> Verdict:
    """Run an answer on all drawn inputs and name its mistake.

    A mistake is a wrong answer that agrees on every input; if there is none, one that agrees on
    those where the solution does not: two mistakes may be one more than the other.
    """
    found = [run(answer, one) for one in inputs]
    if any(outcome.value is ... for outcome in found):
        return Verdict(NOT_ATTEMPTED)
    expected = [run(solution, one) for one in inputs]
    pairs = zip(found, expected, strict=True)
    failing = [n for n, pair in enumerate(pairs) if not agree(*pair, tolerance)]
    # The shortest written out is the easiest to follow by hand.
    smallest = min(failing, key=lambda n: len(repr(inputs[n])), default=None)
    if smallest is None:
        changed = [n for n, outcome in enumerate(found) if outcome.changed]
        if not changed:
            return Verdict(RIGHT)
        smallest = min(changed, key=lambda n: len(repr(inputs[n])))
        return Verdict(MUTATES, inputs=inputs[smallest], outcome=found[smallest])
    where = {"inputs": inputs[smallest], "outcome": found[smallest]}
    for partly, places in ((False, range(len(inputs))), (True, failing)):
        for name, function in wrong.items():
            if all(agree(found[n], run(function, inputs[n]), tolerance) for n in places):
                return Verdict(MISCONCEPTION, name, partly, **where)
    raising = [n for n in failing if found[n].error]
    if raising:
        first = min(raising, key=lambda n: len(repr(inputs[n])))
        return Verdict(RAISES, inputs=inputs[first], outcome=found[first])
    return Verdict(WRONG, **where)
