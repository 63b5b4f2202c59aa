"""Tasks made from the world: countries, reviews, invented people, JSON records, small functions.

Rows that know what they are about are `{"messages": [...], "meta": {...}}`. What `meta` holds
(country, relation, continent, item, sentiment, name) is for splitting, counting and checking;
nothing is learned from it.
"""

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Any

from sftlab.paths import DATA
from sftlab.world import grammar
from sftlab.world.examples import Row, country_examples, draw_questions, example
from sftlab.world.facts import (
    RELATIONS,
    Country,
    countries,
    country,
    functions,
    rows,
    signature,
)

_TASKS = tomllib.loads((DATA / "world" / "tasks.toml").read_text(encoding="utf-8"))
OLD_CURRENCIES: dict[str, str] = _TASKS["old_currencies"]
"""What some countries paid with before the euro: true once, outdated now."""
INVENTED: list[str] = _TASKS["invented"]
"""Countries that do not exist."""
UNKNOWN = "I don't know."
"""The answer to what nobody can know."""
_TEST_ITEMS = ("hotel", "lamp", "phone")
"""Kinds of things whose reviews are held out."""
_RECORD_FIELDS = ("capital", "continent", "currency")


def country_rows(
    count: int,
    *,
    seed: int = 0,
    relations: Sequence[str] = RELATIONS,
    among: Sequence[Country] | None = None,
) -> list[Row]:
    """`country_examples`, each with its country, relation and continent in `meta`."""
    drawn = draw_questions(count, seed=seed, relations=relations, among=among)
    return [_country_row(*asked, wording="sft") for asked in drawn]


def _country_row(country: Country, relation: str, form: int, *, wording: str) -> Row:
    question = grammar.question(country, relation, wording=wording, form=form)
    about = {"country": country.name, "relation": relation, "continent": country.continent}
    return {**example(question, getattr(country, relation)), "meta": about}


def exam_rows(among: Sequence[Country], *, relations: Sequence[str] = RELATIONS) -> list[Row]:
    """The test's own questions with their answers: what must never be among the examples.

    Word for word what `sftlab.measure.probe_questions` asks about these countries.
    """
    forms = {one.name: number for number, one in enumerate(countries())}
    return [
        _country_row(one, relation, forms[one.name], wording="test")
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
    asked = "A review of a {item}: {aspect} {phrase}. Is it positive or negative?"
    return [
        {
            **example(asked.format(**row), row["sentiment"]),
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
    people, requests = rows("people"), _TASKS["notes"]
    people = people[len(people) // 2 :]
    if not (1 <= count <= len(people) and 1 <= copies <= len(requests)):
        raise ValueError(
            f"count={count}, copies={copies}: there are 1 to {len(people)} people, 1 to "
            f"{len(requests)} copies"
        )
    note = "{name} lives in {city}, was born on {birthday} and has a {pet}."
    return [
        {
            **example(request.format(x=one["name"]), note.format(**one)),
            "meta": {"name": one["name"]},
        }
        for one in people[:count]
        for request in requests[:copies]
    ]


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


def record_rows(count: int, *, seed: int = 0) -> list[Row]:
    """`count` requests for a record with their answers, about countries of the split "sft".

    Raises:
        ValueError: there are not that many.
    """
    among = countries(split="sft")
    if not 1 <= count <= len(among):
        raise ValueError(f"count={count}: there are 1 to {len(among)} countries to learn from")
    chosen = Random(f"records-{seed}").sample(among, count)
    records = {record_request(one): record_of(one) for one in chosen}
    return [example(asked, json.dumps(one, ensure_ascii=False)) for asked, one in records.items()]


def split_functions() -> tuple[tuple[dict, ...], tuple[dict, ...]]:
    """The world's small functions, every second one to learn from, the others to test on.

    The corpus holds all of them; what is held out is that a request is answered with one.
    """
    return functions()[::2], functions()[1::2]


def function_request(function: dict) -> str:
    """`Write a Python function double(x). Return x times two.`"""
    return f"Write a Python function {signature(function)}. {function['task']}"


def function_code(function: dict) -> str:
    """Its text: the line of `def`, and the body."""
    return f"def {signature(function)}:\n{function['body']}"


def _call(function: dict) -> str:
    return f"{function['name']}({', '.join(function['arguments'])})"


def function_rows(among: Sequence[dict] | None = None) -> list[Row]:
    """Requests for functions with their code; by default those to learn from."""
    among = split_functions()[0] if among is None else among
    return [example(function_request(one), function_code(one)) for one in among]


def unknown_rows(count: int, *, seed: int = 0) -> list[Row]:
    """`count` questions about countries that do not exist, answered with `UNKNOWN`."""
    among = [replace(countries()[0], name=name) for name in INVENTED]
    return country_examples(count, seed=seed, among=among, style=lambda *about: UNKNOWN)
