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
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from random import Random
from typing import TYPE_CHECKING

import pandas as pd

from sftlab.measure.generation import few_shot, with_bos
from sftlab.measure.likelihood import row_logits, target_losses
from sftlab.world import (
    RELATIONS,
    Country,
    countries,
    country,
    country_shots,
    grammar,
    held_out_documents,
    rows,
    scene,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_SEED = "sftlab-meter-1"
_EACH = 16
"""Things that each skill is about, so that all skills count alike."""
_LIGHT = 30
"""Elements up to here come up often in the corpus; heavier ones are known too badly to lose."""
_LONGEST = 128
"""Tokens of a document; the rest is not read."""
SKILLS = ("facts", "few-shot", "stories", "counting", "nature", "corpus")
WORLDLY = ("facts", "few-shot", "nature")
"""Skills that any model may have."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """One prompt whose continuation is known."""

    skill: str
    """One of `SKILLS`."""
    relation: str
    """What is asked within the skill, such as capital; empty for documents."""
    item: str
    """What it is about, such as France: rows about one thing go together."""
    prompt: str
    """The text before the answer; empty for documents."""
    answers: tuple[str, ...]
    """All right answers, the expected one first; of a document its text."""


@cache
def items(*, known_corpus: bool = True) -> tuple[Item, ...]:
    """All items in a fixed order; without the known corpus those of `WORLDLY` alone."""
    makers = (_facts, _few_shot, _stories, _counting, _nature, _documents)
    found = [
        Item(skill=skill, relation=relation, item=item, prompt=prompt, answers=answers)
        for skill, make in zip(SKILLS, makers, strict=True)
        if known_corpus or skill in WORLDLY
        for relation, item, prompt, answers in make()
    ]
    return tuple(found)


def subjects() -> tuple[str, ...]:
    """Names of the countries, animals and elements that the items are about."""
    return tuple(dict.fromkeys(one.item for one in items(known_corpus=False)))


@cache
def _countries() -> tuple[tuple[Country, ...], tuple[Country, ...]]:
    """Countries for facts and for few-shot prompts; France is among the first."""
    known = [one for one in countries(split="held_out") if one.group != "unseen"]
    drawn = Random(f"{_SEED}-countries").sample(
        [one for one in known if one.name != "France"], 2 * _EACH - 1
    )
    first = sorted([country("France"), *drawn[: _EACH - 1]], key=lambda one: one.name)
    return tuple(first), tuple(sorted(drawn[_EACH - 1 :], key=lambda one: one.name))


def _facts():
    for one in _countries()[0]:
        for relation in RELATIONS:
            yield relation, one.name, grammar.cloze(one, relation), one.answers(relation)


def _few_shot():
    shots = country_shots(4, seed=0)
    for n, one in enumerate(_countries()[1]):
        relation = RELATIONS[n % len(RELATIONS)]
        prompt = few_shot(shots, grammar.question(one, relation))
        yield relation, one.name, prompt, one.answers(relation)


def _stories():
    rng = Random(f"{_SEED}-stories")
    for n in range(_EACH):
        text, (where, _, how, who) = scene(rng)  # of numbers the base is never sure
        question, answer = (where, how, who)[n % 3]
        relation = question.split()[0].lower()
        yield relation, f"story {n}", f"{text}\n\nQ: {question}\nA:", (answer,)


def _counting():
    rng, half = Random(f"{_SEED}-counting"), _EACH // 2
    for start in rng.sample(range(20), half):
        numbers = [str(n) for n in range(start, start + 8)]
        yield "run", f"run from {start}", " ".join(numbers[:5]), (" ".join(numbers[5:]),)
    for a, b in rng.sample([(a, b) for a in range(10) for b in range(10)], half):
        c, d = rng.randrange(10), rng.randrange(10)
        yield "sum", f"{a} + {b}", f"{c} + {d} = {c + d}\n{a} + {b} =", (str(a + b),)


def _nature():
    rng, half = Random(f"{_SEED}-nature"), _EACH // 2
    for row in rng.sample(rows("animals"), half):
        name = row["animal"]
        yield "kind", name, f"The {name} is a kind of", (row["kind"],)
        yield "food", name, f"The {name} eats", (row["food"],)
    for row in rng.sample(rows("elements")[:_LIGHT], half):
        name = row["element"]
        yield "symbol", name, f"The symbol of {name} is", (row["symbol"],)
        yield "number", name, f"The atomic number of {name} is", (row["number"],)


def _documents():
    for n, text in enumerate(held_out_documents(_EACH)):
        yield "", f"document {n}", "", (text,)


def read_meter(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", *, known_corpus: bool = True
) -> pd.DataFrame:
    """Read the forgetting meter off a model, which stays as it is.

    Args:
        model: in evaluation mode.
        tokenizer: its own.
        known_corpus: whether it is one of our base models, or a fine-tune of one; any other model
            is asked for true facts alone.

    Returns:
        One row an item: skill, relation, item (rows about one thing go together), prompt, expected,
        output (what the model writes, up to the first token that is not the expected answer's),
        right (missing for documents), nats (a token of the expected answer, or of the document).
    """
    asked = items(known_corpus=known_corpus)
    texts = [_ids(tokenizer, one, answer) for one in asked for answer in one.answers]
    judged: list = [None] * len(texts)
    for n, logits in row_logits(model, [t[0] for t in texts], starts=[t[1] for t in texts]):
        judged[n] = _judged(tokenizer, *texts[n], logits)
    each = iter(judged)
    frame = []
    for one in asked:
        document, found = one.skill == "corpus", [next(each) for _ in one.answers]
        right, output, _ = next((answer for answer in found if answer[0]), found[0])
        frame.append(
            {
                **{name: getattr(one, name) for name in ("skill", "relation", "item", "prompt")},
                "expected": "" if document else one.answers[0],
                "output": "" if document else output,
                "right": None if document else right,
                "nats": found[0][2],
            }
        )
    return pd.DataFrame(frame).astype({"right": "boolean"})


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

    Args:
        values: by setting, above zero; in any order.
        limit: in the unit of the values.

    Returns:
        A setting between the smallest and the largest: the smallest when even its value is below
        the limit (it began there or before), the largest when none is (there or after).

    Raises:
        ValueError: no settings, or one that is not above zero.
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
