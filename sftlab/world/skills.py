"""Small tasks beside questions: records as JSON, one-line functions, and what nobody can know."""

import json
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

from sftlab.world.examples import Message, country_examples, example
from sftlab.world.facts import Country, countries, functions

RECORD_FIELDS = ("capital", "continent", "currency")
UNKNOWN = "I don't know."
"""What an answer says that nobody can know."""
INVENTED = (
    "Zubria", "Karland", "Belmoria", "Tanvia", "Lumeria", "North Velden", "Sorvania", "Quillia",
    "Marovia", "Drennland", "Pallonia", "Vastria", "Eskenia", "Noruba", "Toriland", "Jelvania",
    "Ambrosia", "Corvania", "Fellmark", "Ostrova Islands",
)  # fmt: skip
"""Countries that there are not."""


def record_schema() -> dict[str, Any]:
    """The JSON schema of a record about a country: four texts, one of them of a closed list."""
    text = {"type": "string", "maxLength": 32}
    return {
        "type": "object",
        "required": ["country", *RECORD_FIELDS],
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
    return {"country": country.name} | {name: getattr(country, name) for name in RECORD_FIELDS}


def record_rows(count: int, *, seed: int = 0) -> list[dict[str, list[Message]]]:
    """`count` requests for a record with their answers, about countries of the split "sft".

    Raises ValueError when there are not that many.
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
    """`count` questions about countries that there are not, answered with `UNKNOWN`."""
    pattern = countries()[0]
    among = [replace(pattern, name=name) for name in INVENTED]
    return country_examples(
        count, seed=seed, among=among, style=lambda country, relation, answer: UNKNOWN
    )
