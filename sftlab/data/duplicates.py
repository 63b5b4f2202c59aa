"""Rows that say the same: exactly, or nearly by MinHash (Broder 1997) and exact Jaccard.

MinHash with locality-sensitive hashing only proposes pairs. Every similarity given is exact: the
Jaccard index of the two sets of pieces, |A and B| / |A or B|.

    row 0  "the capital of France"     pieces of 5 characters: {the c, he ca, ...}
    row 1  "the capital of Franc"      shares all of its own with row 0: 16 of 17, 0.94
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING

import pandas as pd

from sftlab.data.parts import Row, RowsError, checked, normalise, part_of, pieces

if TYPE_CHECKING:
    from datasketch import MinHash

PERMUTATIONS = 128
MISSED = 1e-3
"""Highest probability with which a pair exactly at the threshold may go unseen."""


@dataclass(frozen=True)
class Duplicate:
    """A row that repeats an earlier one."""

    row: int
    """Index of the repeating row."""
    of: int
    """Index of the first row that says this: the one that is kept."""
    similarity: float
    """Exact Jaccard index of the two; 1.0 for exact duplicates."""


@dataclass(frozen=True)
class Group:
    """A row and all later ones that repeat it, each compared with the first."""

    first: int
    """Index of the row that is kept."""
    repeats: tuple[Duplicate, ...]
    """The others, in the order of the data."""

    @property
    def rows(self) -> tuple[int, ...]:
        """Indexes of all rows of the group, ascending."""
        return (self.first, *(repeat.row for repeat in self.repeats))

    @property
    def similarity(self) -> float:
        """The lowest similarity between the first row and another."""
        return min(repeat.similarity for repeat in self.repeats)


def exact_duplicates(
    rows: Iterable[Row], *, part: str = "conversation", normalised: bool = False
) -> list[Group]:
    """Groups of rows whose `part` (see `parts.PARTS`) is the same text.

    Roles count in a whole conversation. `normalised` ignores case, white space and Unicode form.
    """
    seen: dict[tuple, int] = {}
    found = []
    for index, row in enumerate(checked(rows)):
        text = part_of(row, part)
        roles = tuple(m["role"] for m in row["messages"]) if part == "conversation" else ()
        first = seen.setdefault((roles, normalise(text) if normalised else text), index)
        if first != index:
            found.append(Duplicate(index, first, 1.0))
    return _groups(found)


def near_duplicates(
    rows: Iterable[Row],
    *,
    threshold: float = 0.8,
    part: str = "conversation",
    unit: str = "characters",
    size: int = 5,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> list[Group]:
    """Groups of rows whose `part` has a Jaccard index of at least `threshold` with their first.

    Each row joins the most similar of the firsts before it, or becomes a first. So every repeat
    is as similar as is said to the row that is kept; chains (A like B, B like C, A not like C) do
    not drop C for A. Case, white space and Unicode form do not count; in words, punctuation
    neither. Rows that differ in one short fact can be near: read the groups before you drop them.

    The bands of the hash table are set so that a pair at the threshold is missed with a
    probability of at most `MISSED`; the same seed gives the same groups.

    Raises RowsError for a threshold that is not above 0 and at most 1, or too low to search for.
    """
    from datasketch import MinHashLSH

    rows = checked(rows)
    table = MinHashLSH(num_perm=permutations, params=bands(threshold, permutations=permutations))
    firsts: dict[int, set[str]] = {}
    found = []
    for index, row in enumerate(rows):
        text = part_of(row, part)
        own = set(pieces(text, size=size, unit=unit))
        sketch = _sketch(text, size, unit, permutations, seed)
        similarity, of = max(
            (
                (jaccard(own, firsts[other]), -other)
                for other in table.query(sketch)
                if _may_reach(threshold, len(own), len(firsts[other]))
            ),
            default=(0.0, 0),
        )
        if similarity >= threshold:
            found.append(Duplicate(index, -of, similarity))
        else:
            firsts[index] = own
            table.insert(index, sketch, check_duplication=False)
    return _groups(found)


# Sets that differ in a few rows are searched one after another: in the 60 of the lesson on data
# five texts of six have been met before, and to sketch them anew took nearly half of the search.
@lru_cache(maxsize=1000)
def _sketch(text: str, size: int, unit: str, permutations: int, seed: int) -> "MinHash":
    """The MinHash of a text's pieces: the same object each time, so only read."""
    sketch = _empty_sketch(permutations, seed).copy()
    sketch.update_batch([p.encode() for p in set(pieces(text, size=size, unit=unit))])
    return sketch


@cache
def _empty_sketch(permutations: int, seed: int) -> "MinHash":
    from datasketch import MinHash

    return MinHash(num_perm=permutations, seed=seed)


def _may_reach(threshold: float, one: int, other: int) -> bool:
    """Whether sets of these sizes can be that similar at all."""
    return min(one, other) >= threshold * max(one, other)


def jaccard(one: set, other: set) -> float:
    """What two sets share, as a share of all that is in either; 1 for two empty ones."""
    shared = len(one & other)
    either = len(one) + len(other) - shared
    return shared / either if either else 1.0


def bands(
    threshold: float, *, permutations: int = PERMUTATIONS, missed: float = MISSED
) -> tuple[int, int]:
    """(bands, rows of a band) of the hash table for pairs of a similarity s >= `threshold`.

    Two rows meet when all r hashes of one of b bands agree: with probability 1 - (1 - s^r)^b. The
    longest bands are taken that still miss a pair at the threshold at most with `missed`: longer
    bands propose fewer pairs in vain.
    """
    if not 0 < threshold <= 1:
        raise RowsError(f"threshold={threshold}: a similarity above 0 and at most 1 is wanted")
    for r in range(permutations // 2, 0, -1):  # datasketch wants two bands
        if (1 - threshold**r) ** (permutations // r) <= missed:
            return permutations // r, r
    raise RowsError(
        f"threshold={threshold}: {permutations} permutations miss more than {missed:.1%} of such "
        "pairs: raise the threshold or `permutations`"
    )


def _groups(found: list[Duplicate]) -> list[Group]:
    by_first: dict[int, list[Duplicate]] = {}
    for repeat in found:
        by_first.setdefault(repeat.of, []).append(repeat)
    return [Group(first, tuple(by_first[first])) for first in sorted(by_first)]


def drop_duplicates(
    rows: Iterable[Row],
    *,
    part: str = "conversation",
    normalised: bool = True,
    threshold: float | None = None,
    **near,
) -> tuple[list[Row], list[Duplicate]]:
    """(rows kept, what was dropped): the first of each group is kept, in the order of the data.

    Exact duplicates only, unless a `threshold` is given; then near ones too, with the keywords of
    `near_duplicates`. Each thing dropped names its row, the row that it repeats, and how exactly.
    """
    rows = checked(rows)
    if threshold is None and near:
        raise RowsError(f"{', '.join(near)}: only near-duplicates have that: give a threshold too")
    if threshold is None:
        groups = exact_duplicates(rows, part=part, normalised=normalised)
    else:
        groups = near_duplicates(rows, part=part, threshold=threshold, **near)
    dropped = sorted((d for group in groups for d in group.repeats), key=lambda d: d.row)
    gone = {duplicate.row for duplicate in dropped}
    return [row for index, row in enumerate(rows) if index not in gone], dropped


def group_table(
    rows: Iterable[Row], groups: Iterable[Group], *, part: str = "conversation"
) -> pd.DataFrame:
    """The groups to read: one line a row, with group, row, similarity (to the first) and text."""
    rows = checked(rows)
    return pd.DataFrame(
        [
            (number, row, similarity, part_of(rows[row], part))
            for number, group in enumerate(groups)
            for row, similarity in [
                (group.first, 1.0),
                *((repeat.row, repeat.similarity) for repeat in group.repeats),
            ]
        ],
        columns=["group", "row", "similarity", "text"],
    )
