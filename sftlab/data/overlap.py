"""Texts that say the same: repeats within a data set, and test rows that also stand in train.

Texts are cut into overlapping pieces, and compared by what they share:

    row 0  "the capital of France"     pieces of 5 characters: {the c, he ca, ...}
    row 1  "the capital of Franc"      shares all of its own with row 0: 16 of 17, 0.94
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

import pandas as pd

from sftlab.data.rows import Key, Row, checked, normalise, part_of, pieces, values_of

PERMUTATIONS = 128
MISSED = 1e-3
"""Highest probability with which a pair exactly at the threshold may go unseen."""


@dataclass(frozen=True)
class Duplicate:
    """A row that repeats an earlier one."""

    row: int
    of: int  # the first row that says this: the one that is kept
    similarity: float  # exact Jaccard index of the two; 1.0 for exact duplicates


def exact_duplicates(rows: Iterable[Row]) -> list[Duplicate]:
    """Rows with the same text (and roles) as an earlier one, but for case and white space."""
    seen: dict[tuple, int] = {}
    found = []
    for index, row in enumerate(checked(rows)):
        roles = tuple(message["role"] for message in row["messages"])
        first = seen.setdefault((roles, normalise(part_of(row, "conversation"))), index)
        if first != index:
            found.append(Duplicate(index, first, 1.0))
    return found


def near_duplicates(rows: Iterable[Row], *, threshold: float = 0.8) -> list[Duplicate]:
    """Rows with a Jaccard index of at least `threshold` with an earlier one that is kept: MinHash
    (Broder 1997) proposes pairs, whose index is then computed exactly."""
    from datasketch import MinHash, MinHashLSH

    # Two rows of similarity s meet when all r hashes of one of b bands agree: with probability
    # 1 - (1 - s^r)^b. The longest bands that miss hardly any pair; datasketch wants two of them.
    sizes = range(1, PERMUTATIONS // 2 + 1)
    r = max(r for r in sizes if (1 - threshold**r) ** (PERMUTATIONS // r) <= MISSED)
    table = MinHashLSH(num_perm=PERMUTATIONS, params=(PERMUTATIONS // r, r))
    kept: dict[int, set[str]] = {}
    found = []
    for index, row in enumerate(checked(rows)):
        own = set(pieces(part_of(row, "conversation"), size=5, unit="characters"))
        sketch = MinHash(num_perm=PERMUTATIONS, seed=0)
        sketch.update_batch([piece.encode() for piece in own])
        similar = [(jaccard(own, kept[other]), -other) for other in table.query(sketch)]
        similarity, of = max(similar, default=(0.0, 0))
        if similarity >= threshold:
            found.append(Duplicate(index, -of, similarity))
        else:
            kept[index] = own
            table.insert(index, sketch, check_duplication=False)
    return found


def jaccard(one: set, other: set) -> float:
    """What two sets share, as a share of all that is in either; 1 for two empty ones."""
    either = len(one | other)
    return len(one & other) / either if either else 1.0


def drop_duplicates(
    rows: Iterable[Row], *, threshold: float | None = None
) -> tuple[list[Row], list[Duplicate]]:
    """(rows kept, what was dropped): exact duplicates, or near ones too from a `threshold` on."""
    rows = checked(rows)
    dropped = near_duplicates(rows, threshold=threshold) if threshold else exact_duplicates(rows)
    gone = {duplicate.row for duplicate in dropped}
    return [row for index, row in enumerate(rows) if index not in gone], dropped


KINDS = ("prompt", "ngram", "group")
"""The same prompt but for case and white space, words in a row, or the same entity."""
COMMON = 10
"""An n-gram in more different train texts is a phrase, no copy (Brown et al. 2020, appendix C)."""


def leaks(
    train: Iterable[Row],
    test: Iterable[Row],
    *,
    size: int = 8,
    part: str = "conversation",
    group: Key | None = None,
    kinds: Iterable[str] = KINDS,
) -> pd.DataFrame:
    """Every pair of a test row and a train row of which the first leaks: it measures memory.

    Columns: test and train (indexes), kind (of `KINDS`), share (of the test row's n-grams that are
    in the train row; 1 for the other kinds) and evidence: the prompt, longest run, or group.

    `size` is the words of an n-gram (a text with fewer is one, whole), `part` the text that is cut
    (of `rows.PARTS`), `group` the name or function of the entity that a row is about.
    """
    train, test = checked(train, name="train"), checked(test, name="test")
    kinds, found, sides = tuple(kinds), [], (train, test)
    if "prompt" in kinds:
        asked = ([normalise(part_of(row, "prompt")) for row in rows] for rows in sides)
        found += _same(*asked, "prompt")
    if "ngram" in kinds:
        texts = ([part_of(row, part) for row in rows] for rows in sides)
        found += _shared_pieces(*texts, size=size)
    if "group" in kinds and group is not None:
        found += _same(values_of(train, group), values_of(test, group, name="test"), "group")
    found.sort(key=lambda leak: (leak[0], leak[2], -leak[3], leak[1]))
    return pd.DataFrame(found, columns=["test", "train", "kind", "share", "evidence"])


def _same(train: list, test: list, kind: str) -> Iterator[tuple]:
    where = defaultdict(list)
    for index, value in enumerate(train):
        where[value].append(index)
    for index, value in enumerate(test):
        for other in where[value]:
            yield index, other, kind, 1.0, str(value)


def _shared_pieces(train: list[str], test: list[str], *, size: int) -> Iterator[tuple]:
    """Short test texts are looked up whole, so train is cut into every length that they have."""
    cut = [pieces(text, size=size) for text in test]
    lengths = {len(own[0].split()) for own in cut} - {0}
    wanted = {piece for own in cut for piece in own if piece}
    copies, where = defaultdict(list), defaultdict(list)
    for index, text in enumerate(train):
        copies[normalise(text)].append(index)
    for text in copies:
        own = {piece for length in lengths for piece in pieces(text, size=length)}
        for piece in own & wanted:
            where[piece].append(text)
    for index, own in enumerate(cut):
        shared = defaultdict(list)
        for place, piece in enumerate(own):
            if len(where[piece]) <= COMMON:
                for text in where[piece]:
                    shared[text].append(place)
        for text, places in shared.items():
            # The evidence is the text that the longest stretch of neighbouring n-grams covers.
            stretches = groupby(enumerate(places), lambda one: one[1] - one[0])
            first, *rest = max(([n for _, n in run] for _, run in stretches), key=len)
            evidence = " ".join([own[first], *(own[n].rsplit(" ", 1)[-1] for n in rest)])
            for other in copies[text]:
                yield index, other, "ngram", len(places) / len(own), evidence
