"""Flaws put into good rows on purpose, to measure what each costs and whether it is found.

Every function gives new rows; the same seed gives the same flaws. Rows are those of `country_rows`.
"""

from collections.abc import Sequence
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
    made = []
    for index, row in enumerate(rows):
        if index in chosen:
            place, relation = row["meta"]["country"], row["meta"]["relation"]
            others = {getattr(one, relation) for one in countries(split="sft")}
            wrong = others - set(country(place).answers(relation))
            row = with_answer(row, rng.choice(sorted(wrong)))
        made.append({**row})
    return made


def cluttered(rows: Sequence[Row], *, seed: int = 0) -> list[Row]:
    """Every prompt with something of `WRAPPINGS` around it, and half of them in small letters."""
    rng = Random(f"clutter-{seed}")
    return [_asked(row, rng.choice(WRAPPINGS), small=rng.random() < 0.5) for row in rows]


def in_formats(rows: Sequence[Row], *, seed: int = 0) -> list[Row]:
    """Each prompt in one of `FORMATS`, all of them alike often."""
    order = [FORMATS[n % len(FORMATS)] for n in range(len(rows))]
    Random(f"formats-{seed}").shuffle(order)
    return [_asked(row, form) for row, form in zip(rows, order, strict=True)]


def _asked(row: Row, form: str, *, small: bool = False) -> Row:
    question = form.format(q=row["messages"][0]["content"])
    asked = {"role": "user", "content": question.lower() if small else question}
    return {**row, "messages": [asked, *row["messages"][1:]]}
