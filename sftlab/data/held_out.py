"""Hold out some rows of a file to measure on, so that none of them was learned from.

    rows      a  a' b  c  c" d  e  f ...     a' repeats a, c" nearly does
    groups    1  1  2  3  3  4  5  6 ...     a group stands on one side
    held out            x  x        x

Rows are one group when they ask the same, say nearly the same, or share the value of a column.
Where that would make one group of most rows, because all are of one wording, those that are only
nearly alike are kept apart, and it is said.
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from operator import itemgetter

from sftlab.data.duplicates import exact_duplicates, near_duplicates
from sftlab.data.leakage import leaks
from sftlab.data.parts import Key, Row, checked, normalise, part_of, values_of
from sftlab.data.splits import split

FEWEST = 8
"""Groups below which none is held out: two rows at most would be left to measure on."""
LEAST, SHARE, LARGEST, MOST = 20, 0.10, 0.25, 500
"""A tenth of the rows is held out, but 20 where that is no more than a quarter, and at most 500."""
NEAR = 0.8
"""Jaccard index from which two rows count as nearly the same."""
WORDS = 8
"""Words in a row that two rows may share by chance."""


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Where each row stands, by its index, and what was found on the way."""

    train: list[int]
    """Rows to learn from, ascending."""
    held_out: list[int]
    """Rows to measure on, ascending; empty where there are too few groups."""
    groups: int
    """Number of groups."""
    repeats: int
    """Rows that say what an earlier one says, but for case and white space."""
    near: int
    """Further rows that nearly do."""
    near_together: bool
    """Whether those stand on one side."""
    overlaps: int
    """Held-out rows that share `WORDS` words in a row with one that is learned from."""
    notes: tuple[str, ...] = ()
    """What one should know of the split."""


def hold_out(rows: Iterable[Row], *, group: Key | None = None) -> HeldOut:
    """Choose the rows to hold out. The same rows give the same choice.

    Args:
        rows: with messages.
        group: name or function of what must not cross, such as the customer a row is about.

    Raises:
        RowsError: there is no row, or one has no value of `group`.
    """
    rows = checked(rows)
    near = near_duplicates(rows, threshold=NEAR)
    repeats = exact_duplicates(rows, normalised=True)
    same = [one.rows for one in repeats]
    if group is not None:
        same += _alike(values_of(rows, group))
    asked = _alike([normalise(part_of(row, "prompt")) for row in rows])
    loose = _joined(len(rows), same)
    joined = strict = _joined(len(rows), [*same, *asked, *(one.rows for one in near)])
    notes, held = [], []
    if not _fine(joined, loose):
        joined = _joined(len(rows), [*same, *asked])
        notes.append(
            "most rows are nearly alike, one wording with other words in it, so those stand on "
            "both sides: what is measured holds for questions of this very kind"
        )
    if not _fine(joined, loose):
        joined = loose
        notes.append(
            "most rows ask the same, so a held-out row may share its question with one that is "
            "learned from: what is measured is the answer to a question that was trained"
        )
    if (groups := len(set(joined))) < FEWEST:
        notes = [
            f"{groups} groups of rows are too few to hold any out ({FEWEST} are needed), so all "
            "are learned from, and nothing tells what the model does with other questions; add "
            "rows"
        ]
    else:
        share = min(max(SHARE, min(LARGEST, LEAST / len(rows))), MOST / len(rows))
        numbered = [{**row, "group": first} for row, first in zip(rows, joined, strict=True)]
        found = split(numbered, shares=(1 - share, share, 0), group=itemgetter("group"))
        held = found.indexes["validation"]
    learned = sorted(set(range(len(rows))) - set(held))
    exactly = sum(len(one.repeats) for one in repeats)
    return HeldOut(
        train=learned,
        held_out=held,
        groups=groups,
        repeats=exactly,
        near=max(0, sum(len(one.repeats) for one in near) - exactly),
        near_together=joined is strict,
        overlaps=_overlaps([rows[n] for n in learned], [rows[n] for n in held]) if held else 0,
        notes=tuple(notes),
    )


def _fine(joined: list[int], loose: list[int]) -> bool:
    """Whether there are groups enough, and none of them swallows most of the rows.

    One that the rows' own repeats or the learner's column make so large may.
    """
    largest, allowed = (Counter(one).most_common(1)[0][1] for one in (joined, loose))
    return len(set(joined)) >= FEWEST and largest <= max(allowed, len(joined) // 2)


def _overlaps(train: list[Row], held: list[Row]) -> int:
    return int(leaks(train, held, kinds=["ngram"], size=WORDS)["test"].nunique())


def _alike(values: Sequence[Hashable]) -> list[tuple[int, ...]]:
    """The indexes of equal values, where there are several."""
    where: dict[Hashable, list[int]] = {}
    for index, value in enumerate(values):
        where.setdefault(value, []).append(index)
    return [tuple(found) for found in where.values() if len(found) > 1]


def _joined(count: int, alike: Iterable[Sequence[int]]) -> list[int]:
    """For each row the first one that it is alike with, over any number of others."""
    first = list(range(count))

    def root(index: int) -> int:
        while first[index] != index:
            first[index] = first[first[index]]
            index = first[index]
        return index

    for some in alike:
        for other in some[1:]:
            a, b = sorted((root(some[0]), root(other)))
            first[b] = a
    return [root(index) for index in range(count)]
