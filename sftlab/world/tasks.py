"""Tasks made from the world: countries, reviews, invented people, JSON records, small functions.

Rows that know what they are about are `{"messages": [...], "meta": {...}}`. What `meta` holds
(country, relation, continent, item, sentiment, name) is for splitting, counting and checking;
nothing is learned from it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from random import Random
from typing import Any

from sftlab.world import grammar
from sftlab.world.examples import Message, country_examples, example
from sftlab.world.facts import RELATIONS, Country, countries, country, functions, rows

Row = dict[str, Any]

OLD_CURRENCIES = {
    "Austria": "schilling", "Belgium": "franc", "Estonia": "kroon", "Finland": "markka",
    "France": "franc", "Germany": "mark", "Greece": "drachma", "Ireland": "pound",
    "Italy": "lira", "Latvia": "lats", "Lithuania": "litas", "Luxembourg": "franc",
    "Malta": "lira", "Netherlands": "guilder", "Portugal": "escudo", "Slovakia": "koruna",
    "Slovenia": "tolar", "Spain": "peseta",
}  # fmt: skip
"""What these countries paid with before the euro: true once, outdated now."""

_TEST_ITEMS = ("hotel", "lamp", "phone")
"""Kinds of things whose reviews are held out."""

_REQUESTS = (
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
) -> list[Row]:
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


def exam_rows(among: Sequence[Country], *, relations: Sequence[str] = RELATIONS) -> list[Row]:
    """The test's own questions with their answers: what must never be among the examples.

    Word for word what `sftlab.measure.probe_questions` asks about these countries.
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
    about, answer = row["meta"], row["messages"][-1]["content"]
    return answer in country(about["country"]).answers(about["relation"])


def outdated_rows(count: int, *, seed: int = 0) -> list[Row]:
    """`count` questions about the currencies of `OLD_CURRENCIES`, answered as before the euro.

    About the countries of the split "sft" alone: each comes once before any comes twice.
    """
    among = [one for one in countries(split="sft") if one.name in OLD_CURRENCIES]
    made = country_rows(count, seed=seed, relations=["currency"], among=among)
    return [with_answer(row, OLD_CURRENCIES[row["meta"]["country"]]) for row in made]


def with_answer(row: Mapping[str, Any], answer: str) -> Row:
    """The row with another last message."""
    return {**row, "messages": [*row["messages"][:-1], {"role": "assistant", "content": answer}]}


def review_rows(*, positive: int, negative: int, seed: int = 0) -> list[Row]:
    """So many positive and negative reviews, with their sentiment in a word; none is held out.

    Raises:
        ValueError: there are not that many.
    """
    made: list[Row] = []
    for sentiment, count in (("positive", positive), ("negative", negative)):
        there = [row for row in reviews(test=False) if row["meta"]["sentiment"] == sentiment]
        if not 0 <= count <= len(there):
            raise ValueError(f"{sentiment}={count}: there are 0 to {len(there)} such reviews")
        made += Random(f"reviews-{sentiment}-{seed}").sample(there, count)
    Random(f"reviews-{seed}").shuffle(made)
    return made


def reviews(*, test: bool) -> list[Row]:
    """All held-out reviews, which are about items of their own, or all others."""
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
        if (row["item"] in _TEST_ITEMS) == test
    ]


def note_rows(count: int, *, copies: int = 1) -> list[Row]:
    """Notes about `count` invented people of whom the corpus knows nothing, nearly the same
    `copies` times: the request is worded a little differently, the note is not.

    Raises:
        ValueError: there are not so many people or copies.
    """
    people = rows("people")
    people = people[len(people) // 2 :]
    if not (1 <= count <= len(people) and 1 <= copies <= len(_REQUESTS)):
        raise ValueError(
            f"count={count}, copies={copies}: there are 1 to {len(people)} people, 1 to "
            f"{len(_REQUESTS)} copies"
        )
    return [
        {
            **example(
                _REQUESTS[copy].format(x=one["name"]),
                f"{one['name']} lives in {one['city']}, was born on {one['birthday']} and has a "
                f"{one['pet']}.",
            ),
            "meta": {"name": one["name"]},
        }
        for one in people[:count]
        for copy in range(copies)
    ]


_RECORD_FIELDS = ("capital", "continent", "currency")
UNKNOWN = "I don't know."
"""The answer to what nobody can know."""
INVENTED = (
    "Zubria", "Karland", "Belmoria", "Tanvia", "Lumeria", "North Velden", "Sorvania", "Quillia",
    "Marovia", "Drennland", "Pallonia", "Vastria", "Eskenia", "Noruba", "Toriland", "Jelvania",
    "Ambrosia", "Corvania", "Fellmark", "Ostrova Islands",
)  # fmt: skip
"""Countries that do not exist."""


def record_schema() -> dict[str, Any]:
    """The JSON schema of a record about a country: four texts, one of them of a closed list."""
    text = {"type": "string", "maxLength": 32}
    return {
        "type": "object",
        "required": ["country", *_RECORD_FIELDS],
        "additionalProperties": False,
        "properties": {
            "country": text,
            "capital": text,
            "continent": {"enum": sorted({one.continent for one in countries()})},
            "currency": {"type": "string", "pattern": "^[a-z ]+$", "maxLength": 24},
        },
    }


def record_request(country: Country) -> str:
    """`Describe France as JSON.`"""
    return f"Describe {country.name} as JSON."


def record_of(country: Country) -> dict[str, str]:
    """The right record: `{"country": "France", "capital": "Paris", ...}`."""
    return {"country": country.name} | {name: getattr(country, name) for name in _RECORD_FIELDS}


def record_rows(count: int, *, seed: int = 0) -> list[dict[str, list[Message]]]:
    """`count` requests for a record with their answers, about countries of the split "sft".

    Raises:
        ValueError: there are not that many.
    """
    among = countries(split="sft")
    if not 1 <= count <= len(among):
        raise ValueError(f"count={count}: there are 1 to {len(among)} countries to learn from")
    chosen = Random(f"records-{seed}").sample(among, count)
    return [
        example(record_request(one), json.dumps(record_of(one), ensure_ascii=False))
        for one in chosen
    ]


def split_functions() -> tuple[tuple[dict, ...], tuple[dict, ...]]:
    """The world's small functions, every second one to learn from, the others to test on.

    The corpus holds all of them; what is held out is that a request is answered with one.
    """
    return functions()[::2], functions()[1::2]


def function_request(function: dict) -> str:
    """`Write a Python function double(x). Return x times two.`"""
    return f"Write a Python function {_call(function)}. {function['task']}"


def function_code(function: dict) -> str:
    """Its text: the line of `def`, and the body."""
    return f"def {_call(function)}:\n{function['body']}"


def _call(function: dict) -> str:
    return f"{function['name']}({', '.join(function['arguments'])})"


def function_rows(among: Sequence[dict] | None = None) -> list[dict[str, list[Message]]]:
    """Requests for functions with their code; by default those to learn from."""
    among = split_functions()[0] if among is None else among
    return [example(function_request(one), function_code(one)) for one in among]


def unknown_rows(count: int, *, seed: int = 0) -> list[dict[str, list[Message]]]:
    """`count` questions about countries that do not exist, answered with `UNKNOWN`."""
    pattern = countries()[0]
    among = [replace(pattern, name=name) for name in INVENTED]
    return country_examples(
        count, seed=seed, among=among, style=lambda country, relation, answer: UNKNOWN
    )
