"""Supervised examples made from the world's facts."""

from collections.abc import Sequence
from itertools import product
from random import Random

from sftlab.world import grammar
from sftlab.world.facts import RELATIONS, Country, countries

Message = dict[str, str]


def example(question: str, answer: str) -> dict[str, list[Message]]:
    """One conversation of one turn, in the role-message format."""
    return {
        "messages": [
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ]
    }


def country_examples(
    count: int,
    *,
    seed: int = 0,
    relations: Sequence[str] = RELATIONS,
    among: Sequence[Country] | None = None,
) -> list[dict[str, list[Message]]]:
    """`count` questions about countries with short answers, in role messages.

    Drawn without repetition, wordings "sft" only, from the countries of the split "sft" unless
    `among` names others. Every (country, relation) pair comes once before any comes twice.

    Raises ValueError when there are not that many different questions.
    """
    among = countries(split="sft") if among is None else among
    rng = Random(f"examples-{seed}")
    queues = []
    for country, relation in product(among, relations):
        forms = list(range(len(grammar.QUESTIONS[relation]["sft"])))
        rng.shuffle(forms)
        queues.append([(country, relation, form) for form in forms])
    most = sum(map(len, queues))
    if not 1 <= count <= most:
        raise ValueError(
            f"count={count}: {len(among)} countries and {len(relations)} relations give 1 to "
            f"{most} different questions"
        )
    drawn = []
    while len(drawn) < count:
        rng.shuffle(queues)
        drawn += [queue.pop() for queue in queues if queue]
    return [
        example(grammar.question(c, r, form=form), getattr(c, r)) for c, r, form in drawn[:count]
    ]


def country_shots(
    count: int, *, seed: int = 0, relations: Sequence[str] = RELATIONS
) -> list[tuple[str, str]]:
    """`count` answered questions for a few-shot prompt, as (question, answer).

    The relations take turns; the countries are of the split "sft", no two alike.
    """
    among = Random(f"shots-{seed}").sample(countries(split="sft"), count)
    turns = [relations[n % len(relations)] for n in range(count)]
    return [
        (grammar.question(country, relation), getattr(country, relation))
        for country, relation in zip(among, turns, strict=True)
    ]


def every_question(about: Sequence[Country]) -> set[str]:
    """All questions about some countries, in every wording: to check that none is in a data set."""
    return {
        grammar.question(country, relation, wording=wording, form=form)
        for country, relation in product(about, RELATIONS)
        for wording, forms in grammar.QUESTIONS[relation].items()
        for form in range(len(forms))
    }
