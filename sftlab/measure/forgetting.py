"""The forgetting meter: a frozen battery of old skills, read off a model without generating.

    skill      items  about                        a prompt, and what has to follow
    facts      64     16 countries x 4 relations   The capital of France is | Paris
    few-shot   16     16 other countries           Q: ... A: ... Q: ... A: | an answer
    stories    16     stories never seen           a story, and a question about it | an answer
    counting   16     runs and sums                3 4 5 6 7 | 8 9 10
    nature     32     16 animals and elements      The symbol of neon is | Ne
    corpus     16     documents never seen         the loss on all of the text

As long as every token of an answer is the likeliest after those before it, greedy generation writes
the same: so `right` is what generation would give, at the price of one forward pass.

The items were drawn once from `_SEED` and never change: readings compare only on the same items. No
country is of the split "sft", so no example about countries names one; `subjects` is for keeping
texts that are mixed into the training apart from the items too. Facts, few-shot and nature are true
of the world, so they can be asked of any model; the others belong to the corpus of our base models.
"""

from collections.abc import Mapping
from functools import cache
from itertools import pairwise
from random import Random
from typing import NamedTuple

import pandas as pd

from sftlab.measure.generation import few_shot, with_bos
from sftlab.measure.likelihood import row_logits, target_losses
from sftlab.world import (
    RELATIONS,
    countries,
    country,
    country_shots,
    grammar,
    held_out_documents,
    rows,
    scene,
)

_SEED = "sftlab-meter-1"
_EACH = 16
"""Things that each skill is about, so that all skills count alike."""
_LONGEST = 128
"""Tokens of a document; the rest is not read."""
SKILLS = ("facts", "few-shot", "stories", "counting", "nature", "corpus")
WORLDLY = ("facts", "few-shot", "nature")
"""Skills that any model may have."""


class Item(NamedTuple):
    """One prompt whose continuation is known: `item` is what it is about, such as France."""

    skill: str
    relation: str
    """What is asked within the skill, such as capital; empty for documents."""
    item: str
    prompt: str
    """The text before the answer; empty for documents."""
    answers: tuple[str, ...]
    """All right answers, the expected one first; of a document its text."""


def items(*, known_corpus: bool = True) -> tuple[Item, ...]:
    """All items in a fixed order; without the known corpus those of `WORLDLY` alone."""
    return tuple(one for one in _all_items() if known_corpus or one.skill in WORLDLY)


@cache
def _all_items() -> list[Item]:
    """All items in the order of `SKILLS`."""
    found, half = [], _EACH // 2

    def add(skill: str, relation: str, item: str, prompt: str, *answers: str) -> None:
        found.append(Item(skill, relation, item, prompt, answers))

    known = [one for one in countries(split="held_out") if one.group != "unseen"]
    drawn = Random(f"{_SEED}-countries").sample(
        [one for one in known if one.name != "France"], 2 * _EACH - 1
    )
    for one in sorted([country("France"), *drawn[: _EACH - 1]], key=lambda one: one.name):
        for relation in RELATIONS:
            add("facts", relation, one.name, grammar.cloze(one, relation), *one.answers(relation))
    shots = country_shots(4, seed=0)
    for n, one in enumerate(sorted(drawn[_EACH - 1 :], key=lambda one: one.name)):
        relation = RELATIONS[n % len(RELATIONS)]
        prompt = few_shot(shots, grammar.question(one, relation))
        add("few-shot", relation, one.name, prompt, *one.answers(relation))

    rng = Random(f"{_SEED}-stories")
    for n in range(_EACH):
        text, (where, _, how, who) = scene(rng)  # of numbers the base is never sure
        question, answer = (where, how, who)[n % 3]
        relation = question.split()[0].lower()
        add("stories", relation, f"story {n}", f"{text}\n\nQ: {question}\nA:", answer)

    rng = Random(f"{_SEED}-counting")
    for start in rng.sample(range(20), half):
        numbers = [str(n) for n in range(start, start + 8)]
        prompt, answer = " ".join(numbers[:5]), " ".join(numbers[5:])
        add("counting", "run", f"run from {start}", prompt, answer)
    for a, b in rng.sample([(a, b) for a in range(10) for b in range(10)], half):
        c, d = rng.randrange(10), rng.randrange(10)
        prompt = f"{c} + {d} = {c + d}\n{a} + {b} ="
        add("counting", "sum", f"{a} + {b}", prompt, str(a + b))

    rng = Random(f"{_SEED}-nature")
    for row in rng.sample(rows("animals"), half):
        name = row["animal"]
        add("nature", "kind", name, f"The {name} is a kind of", row["kind"])
        add("nature", "food", name, f"The {name} eats", row["food"])
    # The lighter elements come up often in the corpus; others are known too badly to lose.
    for row in rng.sample(rows("elements")[:30], half):
        name = row["element"]
        add("nature", "symbol", name, f"The symbol of {name} is", row["symbol"])
        add("nature", "number", name, f"The atomic number of {name} is", row["number"])

    for n, text in enumerate(held_out_documents(_EACH)):
        add("corpus", "", f"document {n}", "", text)
    return found


def subjects() -> tuple[str, ...]:
    """Names of the countries, animals and elements that the items are about."""
    return tuple(dict.fromkeys(one.item for one in items(known_corpus=False)))


def read_meter(model, tokenizer, *, known_corpus: bool = True) -> pd.DataFrame:
    """Read the forgetting meter off a model in evaluation mode, which stays as it is.

    `known_corpus` says whether it is one of our base models, or a fine-tune of one; any other model
    is asked for true facts alone. One row an item: skill, relation, item, prompt, expected, output
    (what the model writes, up to the first token that is not the expected answer's), right (missing
    for documents), nats (a token of the expected answer, or of the document).
    """
    asked = items(known_corpus=known_corpus)
    texts = [_ids(tokenizer, one, answer) for one in asked for answer in one.answers]
    ids, starts = zip(*texts, strict=True)
    judged = {
        n: _judged(tokenizer, *texts[n], logits)
        for n, logits in row_logits(model, ids, starts=starts)
    }
    each = iter(judged[n] for n in range(len(texts)))
    frame = []
    for one in asked:
        found = [next(each) for _ in one.answers]
        right, output, _ = next((answer for answer in found if answer[0]), found[0])
        told = one.answers[0], output, right
        frame.append((*one[:4], *(("", "", None) if one.skill == "corpus" else told), found[0][2]))
    columns = [*Item._fields[:4], "expected", "output", "right", "nats"]
    return pd.DataFrame(frame, columns=columns).astype({"right": "boolean"})


def _ids(tokenizer, one: Item, answer: str) -> tuple[list[int], int]:
    """Ids of prompt and answer, and the place where those of the answer begin."""
    if not one.prompt:
        return with_bos(tokenizer, answer)[:_LONGEST], 1
    prompt, whole = (with_bos(tokenizer, t) for t in (one.prompt, f"{one.prompt} {answer}"))
    # Where the answer changes how the end of the prompt is tokenized, that end belongs to it.
    pairs = enumerate(zip(prompt, whole, strict=False))
    start = next((n for n, (a, b) in pairs if a != b), min(len(prompt), len(whole) - 1))
    return whole, max(start, 1)


def _judged(tokenizer, ids: list[int], start: int, logits) -> tuple[bool, str, float]:
    """Whether the answer is what the model writes, what it writes, and the nats a token."""
    wanted, likeliest = ids[start:], logits.argmax(-1).tolist()
    nats = target_losses(logits, wanted).mean().item()
    same = [a == b for a, b in zip(likeliest, wanted, strict=False)]
    ends = same.index(False) if False in same else len(wanted)
    output = tokenizer.decode([*wanted[:ends], likeliest[ends]], skip_special_tokens=True)
    if ends < len(wanted):
        return False, output, nats
    # `8` is not the start of `80`, nor `Niger` that of `Nigeria`.
    answer = tokenizer.decode(wanted, skip_special_tokens=True)
    return not output[len(answer) : len(answer) + 1].isalnum(), answer, nats


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """One row a skill of a reading, or of several: share right and mean nats."""
    numbers = frame[["skill", "right", "nats"]].astype({"right": "Float64", "nats": "Float64"})
    found = numbers.groupby("skill", sort=False).mean()
    return found.loc[[skill for skill in SKILLS if skill in found.index]]


def onset(values: Mapping[float, float], *, limit: float) -> float:
    """The setting, such as a learning rate, at which the values first fall below the limit.

    value |--__            Between two measured settings it is read off a straight line over the
    limit |- - -\\- - -     logarithm of the setting.
          |    ^ \\__
          +---------- setting

    The smallest setting when even its value is below the limit (it began there or before), the
    largest when none is (there or after).
    """
    if not values or min(values) <= 0:
        raise ValueError(f"the settings are {list(values)}; give one or more, all above zero")
    points = sorted(values.items())
    if points[0][1] < limit:
        return points[0][0]
    for (setting, value), (next_setting, next_value) in pairwise(points):
        if next_value < limit:
            way = (value - limit) / (value - next_value)
            return setting * (next_setting / setting) ** way
    return points[-1][0]
