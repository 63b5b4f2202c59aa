"""What of a test split is also in train: the same prompt, a run of words, the same entity.

A leaked test row measures memory. Three kinds, from the plainest to the one that is most often
missed:

    prompt   the test prompt is a train prompt, but for case and white space
    ngram    some neighbouring words are in both: a copy inside other words
    group    both are about the same entity, so that its facts were trained
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import groupby

import pandas as pd

from sftlab.data.rows import Key, Row, RowsError, checked, normalise, part_of, pieces, values_of

KINDS = ("prompt", "ngram", "group")
COLUMNS = ["test", "train", "kind", "share", "evidence"]
MOST = 1_000_000
"""Leaks that are listed at most: more means that the two splits share a class, not an entity."""


def leaks(
    train: Iterable[Row],
    test: Iterable[Row],
    *,
    size: int = 8,
    unit: str = "words",
    part: str = "conversation",
    common: int = 10,
    group: Key | None = None,
    kinds: Iterable[str] | None = None,
) -> pd.DataFrame:
    """Every pair of a test row and a train row of which the first leaks.

    Columns: test and train (indexes), kind (see `KINDS`), share (of the test row's n-grams that
    are in the train row; 1 for the other kinds) and evidence: the prompt, the longest shared run
    of n-grams, or the group.

    Args:
        size: length of an n-gram. A text with fewer words is one n-gram, whole.
        unit: what an n-gram is made of, "words" or "characters" (for languages without spaces).
        part: the text whose n-grams are compared, of `rows.PARTS`.
        common: an n-gram in more different train texts than this is a phrase of the language or
            of the template, not a copy, and does not count (Brown et al. 2020, appendix C, do so).
        group: name or function of the entity that a row is about; None leaves it out.
        kinds: which of `KINDS` to look for; by default all that can be.

    Raises RowsError for an empty split, an unknown kind, or more than `MOST` leaks.
    """
    train, test = checked(train, name="train"), checked(test, name="test")
    kinds = [k for k in KINDS if k != "group" or group is not None] if kinds is None else [*kinds]
    for kind in kinds:
        if kind not in KINDS:
            raise RowsError(f"kind {kind!r}: use some of {', '.join(KINDS)}")
    if "group" in kinds and group is None:
        raise RowsError("kind 'group': say which, with `group` (a name or a function)")
    found = []
    if "prompt" in kinds:
        prompts = [[normalise(part_of(row, "prompt")) for row in rows] for rows in (train, test)]
        found += _same(*prompts, "prompt")
    if "ngram" in kinds:
        texts = [[part_of(row, part) for row in rows] for rows in (train, test)]
        found += _shared_pieces(*texts, size=size, unit=unit, common=common)
    if "group" in kinds:
        groups = [values_of(train, group, name="train"), values_of(test, group, name="test")]
        found += _same(*groups, "group")
    return pd.DataFrame(found, columns=COLUMNS).sort_values(
        ["test", "kind", "share", "train"], ascending=[True, True, False, True], ignore_index=True
    )


def _same(train: list, test: list, kind: str) -> list[tuple]:
    where = defaultdict(list)
    for index, value in enumerate(train):
        where[value].append(index)
    count = sum(len(where[value]) for value in test if value in where)
    if count > MOST:
        raise RowsError(
            f"{count:,} pairs share a {kind}: {len(where)} different ones in {len(train):,} train "
            f"rows are too few to be entities (the limit is {MOST:,} pairs)"
        )
    return [
        (index, other, kind, 1.0, str(value))
        for index, value in enumerate(test)
        for other in where.get(value, ())
    ]


def _shared_pieces(
    train: list[str], test: list[str], *, size: int, unit: str, common: int
) -> Iterator[tuple]:
    """Short test texts are looked up whole, so train is cut into every length that they have."""
    cut = [pieces(text, size=size, unit=unit) for text in test]
    lengths = {len(own[0].split() if unit == "words" else own[0]) for own in cut} - {0}
    wanted = {piece for own in cut for piece in own if piece}
    copies, where = defaultdict(list), defaultdict(list)
    for index, text in enumerate(train):
        copies[normalise(text)].append(index)
    for text in copies:
        own = {piece for length in lengths for piece in pieces(text, size=length, unit=unit)}
        for piece in own & wanted:
            where[piece].append(text)
    for index, own in enumerate(cut):
        shared = defaultdict(list)
        for place, piece in enumerate(own):
            if len(where.get(piece, ())) <= common:
                for text in where.get(piece, ()):
                    shared[text].append(place)
        for text, places in shared.items():
            evidence = _longest_run(places, own, unit)
            for other in copies[text]:
                yield index, other, "ngram", len(places) / len(own), evidence


def _longest_run(places: list[int], own: list[str], unit: str) -> str:
    """The longest stretch of neighbouring n-grams, as the text that they cover."""
    runs = [[n for _, n in run] for _, run in groupby(enumerate(places), lambda p: p[1] - p[0])]
    first, *rest = max(runs, key=len)
    if unit == "words":
        return " ".join([own[first], *(own[place].rsplit(" ", 1)[-1] for place in rest)])
    return own[first] + "".join(own[place][-1] for place in rest)


def drop_leaks(
    rows: Iterable[Row], found: pd.DataFrame, *, split: str = "train"
) -> tuple[list[Row], pd.DataFrame]:
    """(rows without those that leak, the leaks for which they went).

    By default train rows go, so that the test stays what it was and scores can be compared; with
    split="test" the rows are those of the test split.
    """
    rows = checked(rows, name=split)
    gone = set(found[split])
    if gone and max(gone) >= len(rows):
        remedy = "give the rows that leaks() compared"
        raise RowsError(f"{split} row {max(gone)} of the leaks is not among the rows: {remedy}")
    return [row for index, row in enumerate(rows) if index not in gone], found
