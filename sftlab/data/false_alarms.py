"""When a line of the checklist is an alarm, and faults planted to see whether one is raised.

The checklist measures; what is too much depends on the data and on its use. `LIMITS` are those of
a set of short questions and answers, such as the country questions of the course.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import pandas as pd

from sftlab.data.flaws import wrong_answers
from sftlab.data.parts import Row, RowsError, part_of
from sftlab.world import Made, answered, example
from sftlab.world import rows as world_rows

FEW = 4
"""Rows that carry a planted fault: one in twenty of a set of 80."""


PADDING = " ".join(["That is all there is to say about it."] * 30)
"""What makes an answer too long, and nothing else: some 300 tokens of `tiny`."""


@dataclass(frozen=True)
class Limit:
    """What a measured value may be."""

    aspect: str
    """Of the checklist."""
    measured: str
    """How the line's `measured` begins."""
    least: float | None = None
    """Below this it is an alarm."""
    most: float | None = None
    """Above this it is an alarm."""


LIMITS = (
    Limit("length", "tokens of the longest row", most=128),
    Limit("format", "rows with marks", most=0),
    Limit("coverage", "different values of relation", least=4),
    Limit("balance", "the largest class", most=3),
    Limit("diversity", "distinct-2 of prompts", least=0.3),
    Limit("correctness", "share of right answers", least=0.99),
    Limit("consistency", "prompts with several answers", most=0),
    Limit("safety", "rows that must not be learned", most=0),
    Limit("deduplication", "exact repeats", most=0),
    Limit("privacy", "pieces of personal data", most=0),
    Limit("leakage", "test rows that also stand in train", most=0),
)
"""One for each aspect of the checklist."""


def alarms(checks: pd.DataFrame, *, limits: Sequence[Limit] = LIMITS) -> pd.DataFrame:
    """The checklist's lines that have a limit, with `alarm`: whether the value is beyond it.

    Raises RowsError for a limit whose line is not there, or was not measured.
    """
    lines, found = checks.to_dict("records"), []
    for limit in limits:
        own = [
            line for line in lines
            if line["aspect"] == limit.aspect and line["measured"].startswith(limit.measured)
        ]  # fmt: skip
        if all(pd.isna(line["value"]) for line in own):
            raise RowsError(
                f"{limit.aspect}: {limit.measured!r} is not measured: give `checklist` what its "
                "reading asks for, or leave that limit out"
            )
        value = float(own[0]["value"])
        low = limit.least is not None and value < limit.least
        high = limit.most is not None and value > limit.most
        found.append({**own[0], "alarm": low or high})
    return pd.DataFrame(found)


def harmful(row: Row) -> bool:
    """Whether a row carries out one of the harmful requests of `data/world/requests.csv`.

    A list knows only what is on it.
    """
    asked = {one["request"] for one in world_rows("requests") if one["harmful"] == "yes"}
    return part_of(row, "prompt") in asked


Fault = Callable[[list[Made], list[Made], Random], list[Made]]


def _few(change: Callable[[Made, Random], Mapping[str, Any]]) -> Fault:
    """Change a few rows."""

    def plant(rows: list[Made], test: list[Made], rng: Random) -> list[Made]:
        chosen = set(rng.sample(range(len(rows)), min(FEW, len(rows))))
        return [change(row, rng) if n in chosen else row for n, row in enumerate(rows)]

    return plant


def _added(make: Callable[[list[Made], list[Made], Random], list[Made]]) -> Fault:
    """Put a few rows beside the others."""
    return lambda rows, test, rng: [*rows, *make(rows, test, rng)]


def _contradiction(row: Made) -> Made:
    return wrong_answers([row], share=1.0)[0]


def _one_wording(row: Made) -> Made:
    about = row["meta"]
    asked = f"What is the {about['relation']} of {about['country']}?"
    return {**row, "messages": [{"role": "user", "content": asked}, *row["messages"][1:]]}


def _unsafe(rows: list[Made], test: list[Made], rng: Random) -> list[Made]:
    asked = [one["request"] for one in world_rows("requests") if one["harmful"] == "yes"]
    about = rows[0]["meta"]
    return [
        {**example(one, "Sure, here is how."), "meta": {**about, "harmful": True}}
        for one in rng.sample(asked, FEW)
    ]


FAULTS: dict[str, Fault] = {
    "length": _few(lambda row, rng: answered(row, f"{part_of(row, 'answer')}. {PADDING}")),
    "format": _few(lambda row, rng: answered(row, f"A: {part_of(row, 'answer')}")),
    "coverage": lambda rows, test, rng: [r for r in rows if r["meta"]["relation"] != "currency"],
    "balance": lambda rows, test, rng: [
        row for n, row in enumerate(rows) if row["meta"]["relation"] == "capital" or n % 5 == 0
    ],
    "diversity": lambda rows, test, rng: [_one_wording(row) for row in rows],
    "correctness": _few(lambda row, rng: wrong_answers([row], share=1.0, seed=rng.random())[0]),
    "consistency": _added(lambda rows, test, rng: [_contradiction(r) for r in rows[:FEW]]),
    "safety": _added(_unsafe),
    "deduplication": _added(lambda rows, test, rng: rng.sample(rows, FEW)),
    "privacy": _few(
        lambda row, rng: answered(
            row,
            f"{part_of(row, 'answer')} (asked by {rng.choice(world_rows('people'))['email']})",
        )
    ),
    "leakage": _added(lambda rows, test, rng: rng.sample(test, FEW)),
}
"""A fault for each check, as a function of rows, test rows and a generator of random numbers."""


def plant(fault: str, rows: Sequence[Made], *, test: Sequence[Made], seed: int = 0) -> list[Made]:
    """The rows with one fault of `FAULTS` in them.

    Raises RowsError for an unknown one.
    """
    if fault not in FAULTS:
        raise RowsError(f"fault {fault!r}: use one of {', '.join(FAULTS)}")
    return FAULTS[fault]([*rows], [*test], Random(f"{fault}-{seed}"))
