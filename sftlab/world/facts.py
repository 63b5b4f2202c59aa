"""The facts of the world that the base models are trained on, and how they are split.

Every fact is true of the real world, so the same questions can be put to a real model. The
countries come in three fixed groups:

    asked    the corpus states their facts and answers questions about them
    stated   the corpus states their facts in plain sentences and never answers a question
    unseen   the corpus never mentions them

and a fourth, returned only where it is asked for by name, is `invented`: no model can know them.
`split` says whether a country may appear in supervised examples ("sft") or is kept for
measuring ("held_out").
"""

import csv
import json
from dataclasses import dataclass
from functools import cache

from sftlab.paths import DATA

RELATIONS = ("capital", "continent", "language", "currency")
PLACES = (
    ("asked", "sft"),
    ("asked", "held_out"),
    ("stated", "held_out"),
    ("unseen", "held_out"),
)
"""The groups of real countries with their splits."""


@dataclass(frozen=True)
class Country:
    """One country, the right answers about it, and the group and split it belongs to."""

    name: str
    capital: str
    continent: str
    language: str
    currency: str
    aliases: dict[str, tuple[str, ...]]
    group: str
    split: str

    def answers(self, relation: str) -> tuple[str, ...]:
        """All right answers for one relation: the first one is the one the corpus uses."""
        return (getattr(self, relation), *self.aliases.get(relation, ()))


@cache  # the corpus asks for them once a document: read anew, they took two thirds of its time
def rows(name: str) -> tuple[dict[str, str], ...]:
    """The rows of `data/world/<name>.csv`: the same dicts each time, so only read them."""
    with (DATA / "world" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return tuple(csv.DictReader(file))


@cache
def _countries() -> tuple[Country, ...]:
    found, splits = [], {row["country"]: row for row in rows("splits")}
    if alone := {row["country"] for row in rows("countries")} ^ splits.keys():
        raise ValueError(
            f"{min(alone)!r} is in only one of countries.csv and splits.csv, data/world: a "
            "country needs its facts in the one, and its group and split in the other"
        )
    for row in rows("countries"):
        if missing := [relation for relation in RELATIONS if not row[relation]]:
            raise ValueError(f"data/world/countries.csv: {row['country']} lacks its {missing[0]}")
        # capital=The Hague;language=Frisian|Dutch
        pairs = (part.split("=", 1) for part in row["aliases"].split(";") if part)
        aliases = {relation.strip(): tuple(value.split("|")) for relation, value in pairs}
        stated = {**row, **splits[row["country"]], "aliases": aliases}
        if (stated["group"], stated["split"]) not in PLACES:
            raise ValueError(
                f"data/world/splits.csv: {row['country']} is {stated['group']}, {stated['split']}; "
                f"allowed are {'; '.join(map(', '.join, PLACES))}"
            )
        found.append(Country(name=stated.pop("country"), **stated))
    return tuple(found)


@cache
def _invented() -> tuple[Country, ...]:
    kept = {"aliases": {}, "group": "invented", "split": "held_out"}
    return tuple(
        Country(name=row["country"], **kept, **{one: row[one] for one in RELATIONS})
        for row in rows("invented")
    )


def countries(*, group: str | None = None, split: str | None = None) -> tuple[Country, ...]:
    """The countries, in alphabetical order, all real ones or those of one group or split."""
    among = _invented() if group == "invented" else _countries()
    found = tuple(one for one in among if group in (None, one.group) and split in (None, one.split))
    if not found:
        named = f"group={group!r} and split={split!r}"
        raise ValueError(
            f"no country has {named}: groups are asked, stated, unseen, invented, and splits sft, "
            "held_out"
        )
    return found


@cache
def turns() -> dict[str, int]:
    """Country -> its number, by which the wordings of test questions take turns."""
    return {one.name: number for number, one in enumerate((*_countries(), *_invented()))}


def country(name: str) -> Country:
    """The country of that English name; KeyError when the world has none."""
    return {one.name: one for one in (*_countries(), *_invented())}[name]


@cache
def functions() -> tuple[dict, ...]:
    """The tiny Python functions: name, arguments, task, body, tests (arguments, expected)."""
    return tuple(json.loads((DATA / "world" / "functions.json").read_text(encoding="utf-8")))


def signature(function: dict) -> str:
    """`double(x)`"""
    return f"{function['name']}({', '.join(function['arguments'])})"


@cache
def story_words() -> dict[str, list[str]]:
    """The word lists of the story generator: names, places, objects, verbs, times ..."""
    return json.loads((DATA / "world" / "stories.json").read_text(encoding="utf-8"))
