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

The items were drawn once, into `data/world/meter.jsonl`, and never change: readings compare only on
the same items. No country is of the split "sft", so no example about countries names one;
`subjects` keeps other texts of a training apart from the items too. Facts, few-shot and nature are
true of the world and can be asked of any model, the others belong to our base models' corpus.
"""

import json
from functools import cache
from typing import NamedTuple

import pandas as pd

from sftlab.measure.generation import with_bos
from sftlab.measure.likelihood import row_logits, target_losses
from sftlab.paths import DATA

_LONGEST = 128  # tokens of a document; the rest is not read
SKILLS = ("facts", "few-shot", "stories", "counting", "nature", "corpus")
WORLDLY = ("facts", "few-shot", "nature")
"""Skills that any model may have."""


class Item(NamedTuple):
    """One prompt whose continuation is known."""

    skill: str
    relation: str  # what is asked within the skill, such as capital; empty for documents
    item: str  # what it is about, such as France
    prompt: str  # the text before the answer; empty for documents
    answers: tuple[str, ...]  # all right ones, the expected one first; of a document its text


@cache
def items(*, known_corpus: bool = True) -> tuple[Item, ...]:
    """All items in the order of `SKILLS`; without the known corpus those of `WORLDLY` alone."""
    with (DATA / "world" / "meter.jsonl").open(encoding="utf-8") as lines:
        found = [Item(**row | {"answers": tuple(row["answers"])}) for row in map(json.loads, lines)]
    return tuple(one for one in found if known_corpus or one.skill in WORLDLY)


def subjects() -> tuple[str, ...]:
    """Names of the countries, animals and elements that the items are about."""
    return tuple(dict.fromkeys(one.item for one in items(known_corpus=False)))


def read_meter(model, tokenizer, *, known_corpus: bool = True) -> pd.DataFrame:
    """Read the forgetting meter off a model in evaluation mode, which stays as it is.

    `known_corpus` says whether it comes of one of our bases; any other model is asked for true
    facts alone. One row an item: skill, relation, item, prompt, expected, output (up to the first
    token that is not the expected answer's), right (missing for documents), nats (a token of the
    expected answer, or of the document).
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
        told = ("", "", None) if one.skill == "corpus" else (one.answers[0], output, right)
        frame.append((*one[:4], *told, found[0][2]))
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
