"""Flaws put into good rows on purpose, to measure what each costs and whether it is found.

Every function gives new rows and leaves those it was given as they are; the same seed gives the
same flaws. Rows are those of `country_rows` where a flaw needs to know the right answer.
"""

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from sftlab.world import Made, answered, countries, country

FORMATS = {
    "plain": "{q}",
    "Q: / A:": "Q: {q}\nA:",
    "instruction": "### Instruction:\n{q}\n\n### Response:",
    "in brackets": "[QUESTION] {q} [/QUESTION]",
    "shouted": "QUESTION -- {q} -- ANSWER?",
}
"""Ways in which one data set may put its prompts when its rows come from several places."""

WRAPPINGS = (
    "hi!! {q} thx",
    "<p>{q}</p>",
    "Posted by user4711 on 12/03: {q}",
    "{q} Reply Share Report",
    "hello i have a question ... {q}",
    "Question 7) {q} (2 points)",
)
"""What a scraper leaves around a question."""


def wrong_answers(rows: Sequence[Mapping[str, Any]], *, share: float, seed: int = 0) -> list[Made]:
    """A share of the rows answers as for another country: the right kind of word, and wrong."""
    rng = Random(f"wrong-{seed}")
    chosen = set(rng.sample(range(len(rows)), round(share * len(rows))))
    return [
        answered(row, _another(row["meta"], rng)) if index in chosen else {**row}
        for index, row in enumerate(rows)
    ]


def _another(about: Mapping[str, str], rng: Random) -> str:
    right = country(about["country"]).answers(about["relation"])
    others = (getattr(one, about["relation"]) for one in countries(split="sft"))
    return rng.choice(sorted({other for other in others if other not in right}))


def cluttered(rows: Sequence[Mapping[str, Any]], *, seed: int = 0) -> list[Made]:
    """Every prompt with something of `WRAPPINGS` around it, and half of them in small letters."""
    rng = Random(f"clutter-{seed}")
    made = []
    for row in rows:
        text = rng.choice(WRAPPINGS).format(q=row["messages"][0]["content"])
        made.append(_asked(row, text.lower() if rng.random() < 0.5 else text))
    return made


def in_formats(
    rows: Sequence[Mapping[str, Any]], *, formats: Sequence[str] = tuple(FORMATS), seed: int = 0
) -> list[Made]:
    """Each prompt in one of `FORMATS`, all of them alike often."""
    order = [formats[n % len(formats)] for n in range(len(rows))]
    Random(f"formats-{seed}").shuffle(order)
    return [
        _asked(row, FORMATS[name].format(q=row["messages"][0]["content"]))
        for row, name in zip(rows, order, strict=True)
    ]


def _asked(row: Mapping[str, Any], question: str) -> Made:
    return {**row, "messages": [{"role": "user", "content": question}, *row["messages"][1:]]}
