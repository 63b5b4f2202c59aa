"""Train, validation and test by group, so that an entity never stands on both sides.

    rows      France France France  Ghana Ghana  Peru Peru Peru   ...
    group     |---- train -------|  |-- test -|  |---- train ---|

Scikit-learn's StratifiedGroupKFold makes folds of equal size; shares of 70/15/15 need the rule
below, which is a few lines.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from random import Random

import pandas as pd

from sftlab.data.parts import Key, Row, RowsError, checked, values_of

NAMES = ("train", "validation", "test")
SHARES = (0.70, 0.15, 0.15)


@dataclass(frozen=True, kw_only=True)
class Splits:
    """Three lists of rows, each in the order of the data, and what became of the shares."""

    train: list[Row]
    """Rows to learn from."""
    validation: list[Row]
    """Rows to watch during training, and to choose by."""
    test: list[Row]
    """Rows to look at once."""
    indexes: dict[str, list[int]] = field(repr=False)
    """Where the rows of each split stood in the data."""
    report: pd.DataFrame = field(repr=False)
    """One line a split: rows, groups, asked (share), share (as it came out)."""
    strata: pd.DataFrame | None = field(repr=False, default=None)
    """Rows of each value of `stratify` (lines) in each split (columns)."""


def split(
    rows: Iterable[Row],
    *,
    shares: Sequence[float] = SHARES,
    group: Key | None = None,
    stratify: Key | None = None,
    seed: int = 0,
) -> Splits:
    """Split rows into train, validation and test so that no group crosses.

    Groups are drawn in an order that depends on the seed alone, large ones first. Each goes to a
    split that still lacks rows: the one that lacks most of the group's strata. So a split has at
    most one group, less a row, more than its share, and rows without groups (or groups of one
    row) come out at the shares rounded by largest remainders. `report` says what came out.

    Args:
        shares: of train, validation and test; they sum to 1. A share of 0 gives an empty split.
        group: name or function of what must not cross, such as the country asked about. None:
            each row is a group of its own.
        stratify: name or function of what should be spread alike over the splits.
        seed: the same seed and rows give the same splits.

    Raises RowsError for shares that are not three that sum to 1, for fewer groups than splits
    with a share, and for a row without the group or the stratum.
    """
    rows = checked(rows)
    shares = _checked_shares(shares)
    group_of = list(range(len(rows))) if group is None else values_of(rows, group)
    stratum_of = ["all"] * len(rows) if stratify is None else values_of(rows, stratify)
    members = defaultdict(list)
    for index, value in enumerate(group_of):
        members[value].append(index)
    wanted = sum(share > 0 for share in shares)
    if len(members) < wanted:
        raise RowsError(
            f"{len(members)} groups for {wanted} splits: a group never crosses, so there must be "
            "at least as many groups as splits; take a finer `group`, or give a split the share 0"
        )
    order = list(members)
    Random(f"split-{seed}").shuffle(order)
    order.sort(key=lambda value: -len(members[value]))
    chosen = _assigned(
        [Counter(stratum_of[index] for index in members[value]) for value in order], shares
    )
    split_of = dict(zip(order, chosen, strict=True))
    places = [split_of[value] for value in group_of]
    indexes = {
        name: [index for index, at in enumerate(places) if at == place]
        for place, name in enumerate(NAMES)
    }
    return Splits(
        **{name: [rows[index] for index in indexes[name]] for name in NAMES},
        indexes=indexes,
        report=_report(indexes, chosen, shares),
        strata=None if stratify is None else _strata(stratum_of, places),
    )


def _checked_shares(shares: Sequence[float]) -> tuple[float, ...]:
    three = tuple(shares)
    if len(three) != 3 or any(not 0 <= share <= 1 for share in three):
        raise RowsError(f"shares={three}: give three between 0 and 1: train, validation, test")
    if not math.isclose(sum(three), 1, abs_tol=1e-6):
        raise RowsError(f"shares={three} sum to {sum(three):g}: they must sum to 1")
    return three


def largest_remainders(total: int, shares: Sequence[float]) -> list[int]:
    """Whole numbers that sum to `total`, each within one of its share (Hamilton's method)."""
    exact = [share * total for share in shares]
    whole = [math.floor(value + 1e-9) for value in exact]
    by_remainder = sorted(range(len(exact)), key=lambda n: (round(whole[n] - exact[n], 9), n))
    for n in by_remainder[: total - sum(whole)]:
        whole[n] += 1
    return whole


def _assigned(groups: list[Counter], shares: Sequence[float]) -> list[int]:
    """The split of each group, in turn."""
    of_stratum = sum(groups, Counter())
    lacking = largest_remainders(of_stratum.total(), shares)
    stratum_lacks = [{s: share * n for s, n in of_stratum.items()} for share in shares]
    empty = {place for place, share in enumerate(shares) if share > 0}
    chosen = []
    for number, own in enumerate(groups):
        # The last groups are kept for the splits that would else have none.
        if len(groups) - number <= len(empty):
            open_to = empty
        else:
            open_to = {place for place in range(len(shares)) if lacking[place] > 0}
        best = max(
            sorted(open_to),
            key=lambda place, own=own: (
                round(sum(n * stratum_lacks[place][s] / of_stratum[s] for s, n in own.items()), 9),
                lacking[place],
            ),
        )
        chosen.append(best)
        empty = empty - {best}
        lacking[best] -= own.total()
        for stratum, count in own.items():
            stratum_lacks[best][stratum] -= count
    return chosen


def _report(indexes: dict[str, list[int]], chosen: list[int], shares) -> pd.DataFrame:
    total = sum(map(len, indexes.values()))
    return pd.DataFrame(
        {
            "rows": [len(indexes[name]) for name in NAMES],
            "groups": [chosen.count(place) for place in range(len(NAMES))],
            "asked": shares,
            "share": [len(indexes[name]) / total for name in NAMES],
        },
        index=pd.Index(NAMES, name="split"),
    )


def _strata(stratum_of: list, places: list[int]) -> pd.DataFrame:
    counts = Counter(zip(stratum_of, places, strict=True))
    values = list(dict.fromkeys(stratum_of))
    return pd.DataFrame(
        [[counts[value, place] for place in range(len(NAMES))] for value in values],
        index=pd.Index(values, name="stratum"),
        columns=list(NAMES),
    )
