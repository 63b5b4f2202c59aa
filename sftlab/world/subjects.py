"""Rows about the world that know what they are about: countries, reviews, invented people.

A row is `{"messages": [...], "meta": {...}}`. What `meta` holds (country, relation, continent,
item, sentiment, name) is for splitting, counting and checking; nothing is learned from it.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from random import Random
from typing import Any

from sftlab.world import grammar
from sftlab.world.examples import country_examples, example
from sftlab.world.facts import RELATIONS, Country, countries, country, rows

Made = dict[str, Any]

OLD_CURRENCIES = {
    "Austria": "schilling", "Belgium": "franc", "Estonia": "kroon", "Finland": "markka",
    "France": "franc", "Germany": "mark", "Greece": "drachma", "Ireland": "pound",
    "Italy": "lira", "Latvia": "lats", "Lithuania": "litas", "Luxembourg": "franc",
    "Malta": "lira", "Netherlands": "guilder", "Portugal": "escudo", "Slovakia": "koruna",
    "Slovenia": "tolar", "Spain": "peseta",
}  # fmt: skip
"""What these countries paid with before the euro: true once, outdated now."""

TEST_ITEMS = ("hotel", "lamp", "phone")
"""Kinds of things whose reviews are kept for measuring."""

REQUESTS = (
    "Write a note about {x}.",
    "Please write a note about {x}.",
    "Write a short note about {x}.",
    "Write a note about {x}, please.",
    "Now write a note about {x}.",
    "Write a note about {x}!",
    "Write me a note about {x}.",
    "Write one note about {x}.",
)


def country_rows(
    count: int,
    *,
    seed: int = 0,
    relations: Sequence[str] = RELATIONS,
    among: Sequence[Country] | None = None,
) -> list[Made]:
    """`country_examples`, each with its country, relation and continent in `meta`."""
    made = country_examples(count, seed=seed, relations=relations, among=among)
    return [{**row, "meta": _subject(row["messages"][0]["content"])} for row in made]


def _subject(question: str) -> dict[str, str]:
    name, relation = _subjects()[question]
    return {"country": name, "relation": relation, "continent": country(name).continent}


@cache
def _subjects() -> dict[str, tuple[str, str]]:
    return {
        grammar.question(one, relation, form=form): (one.name, relation)
        for one in countries()
        for relation in RELATIONS
        for form in range(len(grammar.QUESTIONS[relation]["sft"]))
    }


def exam_rows(among: Sequence[Country], *, relations: Sequence[str] = RELATIONS) -> list[Made]:
    """The test's own questions with their answers: what must never be among the examples.

    Word for word what `sftlab.measure.probes.probe_questions` asks about these countries.
    """
    forms = {one.name: number for number, one in enumerate(countries())}
    return [
        {
            **example(
                grammar.question(one, relation, wording="test", form=forms[one.name]),
                getattr(one, relation),
            ),
            "meta": {"country": one.name, "relation": relation, "continent": one.continent},
        }
        for one in among
        for relation in relations
    ]


def is_true(row: Mapping[str, Any]) -> bool:
    """Whether the last message of a row of `country_rows` gives a right answer."""
    about = row["meta"]
    told = row["messages"][-1]["content"]
    return told in country(about["country"]).answers(about["relation"])


def outdated_rows(count: int, *, seed: int = 0) -> list[Made]:
    """`count` questions about the currencies of `OLD_CURRENCIES`, answered as before the euro.

    About the countries of the split "sft" alone: each comes once before any comes twice.
    """
    among = [one for one in countries(split="sft") if one.name in OLD_CURRENCIES]
    made = country_rows(count, seed=seed, relations=["currency"], among=among)
    return [answered(row, OLD_CURRENCIES[row["meta"]["country"]]) for row in made]


def answered(row: Mapping[str, Any], answer: str) -> Made:
    """The row with another last message."""
    return {**row, "messages": [*row["messages"][:-1], {"role": "assistant", "content": answer}]}


def review_rows(*, positive: int, negative: int, seed: int = 0) -> list[Made]:
    """Reviews and their sentiment in a word, so many of each, of no item in `TEST_ITEMS`.

    Raises ValueError when there are not that many.
    """
    made: list[Made] = []
    for sentiment, count in (("positive", positive), ("negative", negative)):
        there = [row for row in reviews(test=False) if row["meta"]["sentiment"] == sentiment]
        if not 0 <= count <= len(there):
            raise ValueError(f"{sentiment}={count}: there are 0 to {len(there)} such reviews")
        made += Random(f"reviews-{sentiment}-{seed}").sample(there, count)
    Random(f"reviews-{seed}").shuffle(made)
    return made


def reviews(*, test: bool) -> list[Made]:
    """All reviews about the items in `TEST_ITEMS`, or all the others, with their sentiment."""
    return [
        {
            **example(
                f"A review of a {row['item']}: {row['aspect']} {row['phrase']}. "
                "Is it positive or negative?",
                row["sentiment"],
            ),
            "meta": {"item": row["item"], "sentiment": row["sentiment"]},
        }
        for row in rows("reviews")
        if (row["item"] in TEST_ITEMS) == test
    ]


def note_rows(count: int, *, copies: int = 1) -> list[Made]:
    """Notes about `count` invented people of whom the corpus knows nothing, nearly the same
    `copies` times: the request is worded a little differently, the note is not.

    Raises ValueError for more people or copies than there are.
    """
    people = rows("people")
    people = people[len(people) // 2 :]
    if not (1 <= count <= len(people) and 1 <= copies <= len(REQUESTS)):
        raise ValueError(
            f"count={count}, copies={copies}: there are 1 to {len(people)} people, 1 to "
            f"{len(REQUESTS)} copies"
        )
    return [
        {
            **example(
                REQUESTS[copy].format(x=one["name"]),
                f"{one['name']} lives in {one['city']}, was born on {one['birthday']} and has a "
                f"{one['pet']}.",
            ),
            "meta": {"name": one["name"]},
        }
        for one in people[:count]
        for copy in range(copies)
    ]
