"""Flaws put into good rows on purpose, to measure what each costs and whether it is found.

Every function gives new rows; the same seed gives the same flaws. Rows are those of `country_rows`.
"""

from collections.abc import Sequence
from random import Random

from sftlab.data.rows import Row
from sftlab.world import countries, country, with_answer

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
    rng, made = Random(f"clutter-{seed}"), []
    for row in rows:
        asked, *rest = row["messages"]
        text = rng.choice(WRAPPINGS).format(q=asked["content"])
        text = text.lower() if rng.random() < 0.5 else text
        made.append({**row, "messages": [{**asked, "content": text}, *rest]})
    return made
