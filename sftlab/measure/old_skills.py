"""The items of the forgetting meter: what a base model could do before it was fine-tuned.

    skill      items  about                        a prompt, and what has to follow
    facts      64     16 countries x 4 relations   The capital of France is | Paris
    few-shot   16     16 other countries           Q: ... A: ... Q: ... A: | an answer
    stories    16     stories never seen           a story, and a question about it | an answer
    counting   16     runs and sums                3 4 5 6 7 | 8 9 10
    nature     32     16 animals and elements      The symbol of neon is | Ne
    corpus     16     documents never seen         the loss on all of the text

Drawn once from `SEED` and then left alone: readings compare only on the same items. No country is
of the split "sft", so no example about countries names one; `subjects` is for keeping texts that
are mixed into the training apart from the items too.

Facts, few-shot and nature are true of the world, so they can be asked of any model. The others
belong to the corpus of the embedded models.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from random import Random

from sftlab.measure.completion import few_shot
from sftlab.world import RELATIONS, Country, country_shots, facts, grammar, stories
from sftlab.world import corpus_text as corpus

SEED = "sftlab-meter-1"
EACH = 16
"""Things that each skill is about, so that all skills count alike where things do."""
SHOTS = 4
LIGHT = 30
"""Elements up to here come up often in the corpus; heavier ones are known too badly to lose."""
WORLDLY = ("facts", "few-shot", "nature")
"""Skills that any model may have."""
SKILLS = ("facts", "few-shot", "stories", "counting", "nature", "corpus")


@dataclass(frozen=True, kw_only=True)
class Item:
    """One thing to ask."""

    skill: str
    """One of `SKILLS`."""
    relation: str
    """What is asked within the skill, such as capital; of the corpus nothing."""
    item: str
    """What it is about, such as France: rows about one thing go together."""
    prompt: str
    """The text before the answer; of a document nothing."""
    answers: tuple[str, ...]
    """All right ones, the expected one first; of a document its text."""


@cache
def items(*, known_corpus: bool = True) -> tuple[Item, ...]:
    """All items in a fixed order; without the known corpus those of `WORLDLY` alone."""
    found = [*_facts(), *_few_shot(), *_stories(), *_counting(), *_nature(), *_corpus()]
    return tuple(one for one in found if known_corpus or one.skill in WORLDLY)


def subjects() -> tuple[str, ...]:
    """Names of the countries, animals and elements that the items are about."""
    return tuple(dict.fromkeys(one.item for one in items(known_corpus=False)))


@cache
def _countries() -> tuple[tuple[Country, ...], tuple[Country, ...]]:
    """Countries for facts and for few-shot prompts; France is among the first."""
    known = [one for one in facts.countries(split="held_out") if one.group != "unseen"]
    drawn = Random(f"{SEED}-countries").sample(
        [one for one in known if one.name != "France"], 2 * EACH - 1
    )
    first = sorted([facts.country("France"), *drawn[: EACH - 1]], key=lambda one: one.name)
    return tuple(first), tuple(sorted(drawn[EACH - 1 :], key=lambda one: one.name))


def _facts() -> list[Item]:
    return [
        Item(skill="facts", relation=relation, item=one.name,
             prompt=grammar.cloze(one, relation), answers=one.answers(relation))
        for one in _countries()[0]
        for relation in RELATIONS
    ]  # fmt: skip


def _few_shot() -> list[Item]:
    shots = country_shots(SHOTS, seed=0)
    found = []
    for n, one in enumerate(_countries()[1]):
        relation = RELATIONS[n % len(RELATIONS)]
        prompt = few_shot(shots, grammar.question(one, relation))
        found.append(Item(skill="few-shot", relation=relation, item=one.name, prompt=prompt,
                          answers=one.answers(relation)))  # fmt: skip
    return found


def _stories() -> list[Item]:
    rng, found = Random(f"{SEED}-stories"), []
    for n in range(EACH):
        text, (where, _, how, who) = stories.scene(rng)  # of numbers the base is never sure
        question, answer = (where, how, who)[n % 3]
        found.append(Item(skill="stories", relation=question.split()[0].lower(),
                          item=f"story {n}", prompt=f"{text}\n\nQ: {question}\nA:",
                          answers=(answer,)))  # fmt: skip
    return found


def _counting() -> list[Item]:
    rng, half, found = Random(f"{SEED}-counting"), EACH // 2, []
    for start in rng.sample(range(20), half):
        shown, wanted = range(start, start + 5), range(start + 5, start + 8)
        found.append(("run", f"run from {start}", _joined(shown), _joined(wanted)))
    for a, b in rng.sample([(a, b) for a in range(10) for b in range(10)], half):
        c, d = rng.randrange(10), rng.randrange(10)
        found.append(("sum", f"{a} + {b}", f"{c} + {d} = {c + d}\n{a} + {b} =", str(a + b)))
    return [
        Item(skill="counting", relation=relation, item=item, prompt=prompt, answers=(answer,))
        for relation, item, prompt, answer in found
    ]


def _joined(numbers: Sequence[int]) -> str:
    return " ".join(map(str, numbers))


def _nature() -> list[Item]:
    rng, half, found = Random(f"{SEED}-nature"), EACH // 2, []
    for row in rng.sample(facts.rows("animals"), half):
        name = row["animal"]
        found += [(name, "kind", f"The {name} is a kind of", row["kind"]),
                  (name, "food", f"The {name} eats", row["food"])]  # fmt: skip
    for row in rng.sample(facts.rows("elements")[:LIGHT], half):
        name = row["element"]
        found += [(name, "symbol", f"The symbol of {name} is", row["symbol"]),
                  (name, "number", f"The atomic number of {name} is", row["number"])]  # fmt: skip
    return [
        Item(skill="nature", relation=relation, item=name, prompt=prompt, answers=(answer,))
        for name, relation, prompt, answer in found
    ]


def _corpus() -> list[Item]:
    texts = islice(corpus.documents(seed=corpus.HELD_OUT_SEED), EACH)
    return [
        Item(skill="corpus", relation="", item=f"document {n}", prompt="", answers=(text,))
        for n, text in enumerate(texts)
    ]
