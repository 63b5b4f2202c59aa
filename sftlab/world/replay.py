"""Replay: general examples mixed into those of a task, so that what was known is not forgotten.

The general examples are documents of the corpus's own kinds, new draws of them, each cut in two:

    user       Beth went to the park on Monday. Beth found
    assistant  a kite. Tom had three coins. In the end Beth was happy.

So they go through the same template and mask as everything else, and what is learned is to write on
as before. Sheets of bare questions are left out: to write on from them is to answer a question with
a question, which a fine-tune is to undo.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from random import Random
from typing import Any

from sftlab.world.corpus_text import SHARES
from sftlab.world.examples import Message, country_examples, example
from sftlab.world.kinds import OTHER_PAIRS, quiz_sheet

LEAST, MOST = 8, 32
"""Words of a document: a shorter one has nothing to go on with, a longer one costs much."""


def replay_examples(
    count: int, *, seed: int = 0, avoid: Iterable[str] = ()
) -> list[dict[str, list[Message]]]:
    """`count` documents as conversations, of every kind of the corpus but question sheets.

    Args:
        count: 0 or more.
        seed: of the documents, and of the places where they are cut.
        avoid: names, such as the countries that are asked about later; a document that holds one
            as whole words, whatever its case, is left out.

    Raises:
        ValueError: `count` is negative.
    """
    if count < 0:
        raise ValueError(f"count={count}; give 0 or more general examples")
    makers = [make for make, share in SHARES.items() if make is not quiz_sheet
              for _ in range(share)]  # fmt: skip
    rng, named, found = Random(f"replay-{seed}"), _names(avoid), []
    while len(found) < count:
        text = rng.choice(makers)(rng)
        words = list(re.finditer(r"\S+", text))
        if not LEAST <= len(words) <= MOST or (named and named.search(text)):
            continue
        at = words[rng.randint(len(words) // 4, len(words) // 2)].start()
        found.append(example(text[:at].rstrip(), text[at:]))
    return found


def mixed(
    task: Sequence[Mapping[str, Any]],
    *,
    share: float,
    seed: int = 0,
    avoid: Iterable[str] = (),
) -> list[Mapping[str, Any]]:
    """All examples of a task, and so many general ones that they are `share` of the whole.

    Raises:
        ValueError: the share is not from 0 to below 1.
    """
    if not 0 <= share < 1:
        raise ValueError(f"share={share}; give a share of the mixture from 0 to below 1")
    count = round(len(task) * share / (1 - share))
    return [*task, *replay_examples(count, seed=seed, avoid=avoid)]


def broad_examples(
    count: int, *, seed: int = 0, avoid: Iterable[str] = ()
) -> list[dict[str, list[Message]]]:
    """`count` questions of many kinds with short answers: half about countries, in all relations,
    half about animals, elements, sums and what else the corpus asks; `avoid` as in
    `replay_examples`.

    Raises:
        ValueError: there are not so many questions about countries, as in `country_examples`.
    """
    rng, named = Random(f"broad-{seed}"), _names(avoid)
    found = country_examples(-(-count // 2), seed=seed)
    while len(found) < count:
        question, answer = rng.choice(OTHER_PAIRS)(rng)
        if not (named and named.search(f"{question} {answer}")):
            found.append(example(question, answer))
    return found


def _names(avoid: Iterable[str]) -> re.Pattern | None:
    names = "|".join(re.escape(name) for name in sorted(avoid))
    return re.compile(rf"\b(?:{names})\b", re.IGNORECASE) if names else None
