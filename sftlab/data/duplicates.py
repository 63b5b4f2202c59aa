"""Rows that say the same: exactly, or nearly by MinHash (Broder 1997) and exact Jaccard.

MinHash with locality-sensitive hashing only proposes pairs. Every similarity given is exact: the
Jaccard index of the two sets of pieces, |A and B| / |A or B|.

    row 0  "the capital of France"     pieces of 5 characters: {the c, he ca, ...}
    row 1  "the capital of Franc"      shares all of its own with row 0: 16 of 17, 0.94
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from sftlab.data.rows import Row, RowsError, checked, normalise, part_of, pieces

PERMUTATIONS = 128
MISSED = 1e-3
"""Highest probability with which a pair exactly at the threshold may go unseen."""
SIZE = 5
"""Characters of a piece."""


@dataclass(frozen=True)
class Duplicate:
    """A row that repeats an earlier one."""

    row: int
    of: int  # the first row that says this: the one that is kept
    similarity: float  # exact Jaccard index of the two; 1.0 for exact duplicates


def exact_duplicates(
    rows: Iterable[Row], *, part: str = "conversation", normalised: bool = False
) -> list[Duplicate]:
    """Rows whose `part` (see `rows.PARTS`) is the same text as that of an earlier one.

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
    return found


def near_duplicates(
    rows: Iterable[Row], *, threshold: float = 0.8, part: str = "conversation"
) -> list[Duplicate]:
    """Rows whose `part` has a Jaccard index of at least `threshold` with an earlier one.

    Each row repeats the most similar of the firsts before it, or becomes a first. So every repeat
    is as similar as is said to the row that is kept; chains (A like B, B like C, A not like C) do
    not drop C for A. Case, white space and Unicode form do not count. Rows that differ in one
    short fact can be near: read them before you drop them.

    Raises RowsError for a threshold that is not above 0 and at most 1, or too low to search for.
    """
    from datasketch import MinHashLSH

    rows = checked(rows)
    table = MinHashLSH(num_perm=PERMUTATIONS, params=bands(threshold))
    firsts: dict[int, set[str]] = {}
    found = []
    for index, row in enumerate(rows):
        own, sketch = _sketch(part_of(row, part))
        similar = [(jaccard(own, firsts[other]), -other) for other in table.query(sketch)]
        similarity, of = max(similar, default=(0.0, 0))
        if similarity >= threshold:
            found.append(Duplicate(index, -of, similarity))
        else:
            firsts[index] = own
            table.insert(index, sketch, check_duplication=False)
    return found


# Sets that differ in a few rows are searched one after another: in the 60 of the lesson on data
# five texts of six have been met before, and to sketch them anew took nearly half of the search.
@lru_cache(maxsize=1000)
def _sketch(text: str):
    """The pieces of a text and their MinHash, which are only read."""
    from datasketch import MinHash

    own = set(pieces(text, size=SIZE, unit="characters"))
    sketch = MinHash(num_perm=PERMUTATIONS, seed=0)
    sketch.update_batch([piece.encode() for piece in own])
    return own, sketch


def jaccard(one: set, other: set) -> float:
    """What two sets share, as a share of all that is in either; 1 for two empty ones."""
    shared = len(one & other)
    either = len(one) + len(other) - shared
    return shared / either if either else 1.0


def bands(threshold: float) -> tuple[int, int]:
    """(bands, rows of a band) of the hash table for pairs of a similarity s >= `threshold`.

    Two rows meet when all r hashes of one of b bands agree: with probability 1 - (1 - s^r)^b. The
    longest bands are taken that miss a pair at the threshold with at most `MISSED`: longer bands
    propose fewer pairs in vain.
    """
    if not 0 < threshold <= 1:
        raise RowsError(f"threshold={threshold}: give a similarity above 0 and at most 1")
    for r in range(PERMUTATIONS // 2, 0, -1):  # datasketch wants two bands
        if (1 - threshold**r) ** (PERMUTATIONS // r) <= MISSED:
            return PERMUTATIONS // r, r
    raise RowsError(f"threshold={threshold} is too low to search for: raise it")


def drop_duplicates(
    rows: Iterable[Row], *, threshold: float | None = None, part: str = "conversation"
) -> tuple[list[Row], list[Duplicate]]:
    """(rows kept, what was dropped): the first of each group is kept, in the order of the data.

    Exact duplicates only, but for case and white space, unless a `threshold` is given; then near
    ones too.
    """
    rows = checked(rows)
    if threshold is None:
        dropped = exact_duplicates(rows, part=part, normalised=True)
    else:
        dropped = near_duplicates(rows, part=part, threshold=threshold)
    gone = {duplicate.row for duplicate in dropped}
    return [row for index, row in enumerate(rows) if index not in gone], dropped
