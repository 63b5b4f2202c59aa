"""Examples whose questions come after a passage: long prompts, short answers."""

from random import Random

from sftlab.world import grammar
from sftlab.world.examples import Message, country_examples, example
from sftlab.world.facts import RELATIONS, countries


def passage_examples(
    count: int, *, seed: int = 0, sentences: int = 8
) -> list[dict[str, list[Message]]]:
    """The examples of `country_examples`, each question behind a passage of true sentences.

        The currency of Ecuador is the dollar. Fiji is a country in Oceania. ...
        In Italy, what language do people speak?

    A passage has 0 to `sentences` sentences, each number equally likely, about any countries of
    the split "sft".

    Raises ValueError when `sentences` is negative, or as `country_examples` does.
    """
    if sentences < 0:
        raise ValueError(f"sentences={sentences}; give 0 or more")
    rng, among = Random(f"passages-{seed}"), countries(split="sft")
    rows = []
    for row in country_examples(count, seed=seed):
        question, answer = (message["content"] for message in row["messages"])
        told = [
            grammar.statement(rng.choice(among), rng.choice(RELATIONS))
            for _ in range(rng.randint(0, sentences))
        ]
        rows.append(example(" ".join([*told, question]), answer))
    return rows
