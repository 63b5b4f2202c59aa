"""Supervised examples made from the world's facts."""

from collections.abc import Callable, Sequence
from itertools import product
from random import Random

from sftlab.world import grammar
from sftlab.world.facts import RELATIONS, Country, countries

Message = dict[str, str]
Style = Callable[[Country, str, str], str]
SENTENCES = ("capital", "language")
"""Relations that the house style answers with a sentence."""


def plain_style(country: Country, relation: str, answer: str) -> str:
    """The answer alone: `Paris`."""
    return answer


def house_style(country: Country, relation: str, answer: str) -> str:
    """How the invented house of lesson 01 wants its answers, a style for each kind of question.

    Capitals and languages in a sentence (`The capital of France is Paris.`), continents and
    currencies in a word with a full stop (`euro.`).
    """
    if relation in SENTENCES:
        return grammar.fill(grammar.STATEMENTS[relation][0], country, a=answer)
    return f"{answer}."


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
    style: Style = plain_style,
) -> list[dict[str, list[Message]]]:
    """`count` questions about countries with answers in a style, in role messages.

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
        example(grammar.question(c, r, form=form), style(c, r, getattr(c, r)))
        for c, r, form in drawn[:count]
    ]


def two_hop_examples(count: int, *, seed: int = 0) -> list[dict[str, list[Message]]]:
    """`count` questions that need two facts, each answered step by step, countries of "sft".

    Raises ValueError when there are not that many.
    """
    pairs = list(product(countries(split="sft"), RELATIONS[1:]))
    if not 1 <= count <= len(pairs):
        raise ValueError(f"count={count}: there are 1 to {len(pairs)} two-hop questions")
    return [
        example(
            grammar.TWO_HOP_QUESTION.format(relation=relation, x=country.capital),
            f"{country.capital} is the capital of {country.name}. "
            + grammar.statement(country, relation),
        )
        for country, relation in Random(f"two-hop-{seed}").sample(pairs, count)
    ]


def country_shots(
    count: int,
    *,
    seed: int = 0,
    relations: Sequence[str] = RELATIONS,
    style: Style = plain_style,
) -> list[tuple[str, str]]:
    """`count` answered questions for a few-shot prompt, as (question, answer).

    The relations take turns; the countries are of the split "sft", no two alike.
    """
    among = Random(f"shots-{seed}").sample(countries(split="sft"), count)
    turns = [relations[n % len(relations)] for n in range(count)]
    return [
        (
            grammar.question(country, relation),
            style(country, relation, getattr(country, relation)),
        )
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
