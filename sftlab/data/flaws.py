"""Flaws put into good rows on purpose, to measure what each costs and whether it is found.

Every function gives new rows; the same seed gives the same flaws. Rows are those of `country_rows`.
"""

from collections.abc import Mapping, Sequence
from random import Random

from sftlab.data.rows import Row
from sftlab.world import countries, country, with_answer

FORMATS = (
    "{q}",
    "Q: {q}\nA:",
    "### Instruction:\n{q}\n\n### Response:",
    "[QUESTION] {q} [/QUESTION]",
    "QUESTION -- {q} -- ANSWER?",
)
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


def wrong_answers(rows: Sequence[Row], *, share: float, seed: int = 0) -> list[Row]:
    """A share of the rows answers as for another country: the right kind of word, and wrong."""
    rng = Random(f"wrong-{seed}")
    chosen = set(rng.sample(range(len(rows)), round(share * len(rows))))
    return [
        with_answer(row, _another(row["meta"], rng)) if index in chosen else {**row}
        for index, row in enumerate(rows)
    ]


def _another(about: Mapping[str, str], rng: Random) -> str:
    right = country(about["country"]).answers(about["relation"])
    others = {getattr(one, about["relation"]) for one in countries(split="sft")}
    return rng.choice(sorted(others - set(right)))


def cluttered(rows: Sequence[Row], *, seed: int = 0) -> list[Row]:
    """Every prompt with something of `WRAPPINGS` around it, and half of them in small letters."""
    rng = Random(f"clutter-{seed}")
    made = []
    for row in rows:
        text = rng.choice(WRAPPINGS).format(q=row["messages"][0]["content"])
        made.append(_with_prompt(row, text.lower() if rng.random() < 0.5 else text))
    return made


def in_formats(rows: Sequence[Row], *, seed: int = 0) -> list[Row]:
    """Each prompt in one of `FORMATS`, all of them alike often."""
    order = [FORMATS[n % len(FORMATS)] for n in range(len(rows))]
    Random(f"formats-{seed}").shuffle(order)
    return [
        _with_prompt(row, form.format(q=row["messages"][0]["content"]))
        for row, form in zip(rows, order, strict=True)
    ]


def _with_prompt(row: Row, question: str) -> Row:
    return {**row, "messages": [{"role": "user", "content": question}, *row["messages"][1:]]}
