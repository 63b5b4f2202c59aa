"""Train, validation and test by group, so that an entity never crosses; and rows held out.

    rows      France France France  Ghana Ghana  Peru Peru Peru   ...
    group     |---- train -------|  |-- test -|  |---- train ---|

Scikit-learn's StratifiedGroupKFold makes folds of equal size, not shares of 70/15/15.
"""

import math
import tomllib
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from sftlab.data.overlap import exact_duplicates, leaks, near_duplicates
from sftlab.data.rows import Key, Row, RowsError, checked, normalise, part_of, values_of

NAMES = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True)
class Splits:
    """Three lists of rows, each in the order of the data, and how the shares came out."""

    train: list[Row]
    validation: list[Row]
    test: list[Row]
    indexes: dict[str, list[int]]  # where the rows of each split stood
    report: pd.DataFrame  # a line a split: rows, groups, requested, share
    strata: pd.DataFrame | None = None  # strata by splits, in rows


def split(
    rows: Iterable[Row],
    *,
    shares: Sequence[float] = (0.70, 0.15, 0.15),
    group: Key | None = None,
    stratify: Key | None = None,
    seed: int = 0,
) -> Splits:
    """Split rows into train, validation and test so that no group crosses.

    Groups are drawn at random, large ones first. Each goes to a split that still lacks rows: the
    one that lacks most of the group's strata. `shares` sum to 1; a share of 0 gives an empty split.
    `group` and `stratify` are names or functions; by default each row is a group.
    """
    rows, shares = checked(rows), tuple(shares)
    if len(shares) != 3 or min(shares) < 0 or not math.isclose(sum(shares), 1, abs_tol=1e-6):
        raise RowsError(f"shares={shares}: give train, validation and test, which sum to 1")
    group_of = list(range(len(rows))) if group is None else values_of(rows, group)
    stratum_of = ["all"] * len(rows) if stratify is None else values_of(rows, stratify)
    members = defaultdict(Counter)  # of each group, its rows by stratum
    for value, stratum in zip(group_of, stratum_of, strict=True):
        members[value][stratum] += 1
    if len(members) < (wanted := sum(share > 0 for share in shares)):
        remedy = "take a finer `group`, or give a split the share 0"
        raise RowsError(f"{len(members)} groups are too few for {wanted} splits: {remedy}")
    order = list(members)
    Random(f"split-{seed}").shuffle(order)
    order.sort(key=lambda value: -members[value].total())
    chosen = _assigned([members[value] for value in order], shares)
    split_of = dict(zip(order, chosen, strict=True))
    table = pd.DataFrame({"split": [split_of[value] for value in group_of]})
    indexes = {name: table.index[table["split"] == name].tolist() for name in NAMES}
    rows_and_groups = {"rows": table["split"].value_counts()}
    rows_and_groups["groups"] = pd.Series(chosen).value_counts()
    report = pd.DataFrame(rows_and_groups).reindex(pd.Index(NAMES, name="split"), fill_value=0)
    counts = Counter(zip(stratum_of, table["split"], strict=True))
    by_split = {stratum: [counts[stratum, name] for name in NAMES] for stratum in stratum_of}
    strata = pd.DataFrame.from_dict(by_split, orient="index", columns=list(NAMES))
    return Splits(
        **{name: [rows[index] for index in indexes[name]] for name in NAMES},
        indexes=indexes,
        report=report.assign(requested=shares, share=report["rows"] / len(rows)),
        strata=None if stratify is None else strata.rename_axis("stratum"),
    )


def largest_remainders(total: int, shares: Sequence[float]) -> list[int]:
    """Whole numbers that sum to `total`, each within one of its share (Hamilton's method)."""
    exact = [share * total for share in shares]
    whole = [math.floor(value + 1e-9) for value in exact]
    by_remainder = sorted(range(len(exact)), key=lambda n: (round(whole[n] - exact[n], 9), n))
    for n in by_remainder[: total - sum(whole)]:
        whole[n] += 1
    return whole


def _assigned(groups: list[Counter], shares: Sequence[float]) -> list[int]:
    """The split of each group, by name, in turn."""
    of_stratum = sum(groups, Counter())
    lacking = largest_remainders(of_stratum.total(), shares)
    stratum_lacks = [{s: share * n for s, n in of_stratum.items()} for share in shares]
    empty = {place for place, share in enumerate(shares) if share > 0}
    chosen = []
    for number, own in enumerate(groups):

        def need(place: int, own: Counter = own) -> tuple:
            lacks = sum(n * stratum_lacks[place][s] / of_stratum[s] for s, n in own.items())
            return round(lacks, 9), lacking[place], -place

        # The last groups are kept for the splits that would else have none.
        last = len(groups) - number <= len(empty)
        open_to = empty if last else {place for place in range(3) if lacking[place] > 0}
        best = max(open_to, key=need)
        chosen.append(NAMES[best])
        empty = empty - {best}
        lacking[best] -= own.total()
        for stratum, count in own.items():
            stratum_lacks[best][stratum] -= count
    return chosen


FEWEST = 8
"""Groups below which none is held out: two rows at most would be left to measure on."""
LEAST, SHARE, LARGEST, MOST = 20, 0.10, 0.25, 500
"""A tenth of the rows is held out, but 20 where that is no more than a quarter, and at most 500."""
WORDS = 8
"""Words in a row that two rows may share by chance."""
NOTES = tomllib.loads(Path(__file__).with_name("splits.toml").read_text(encoding="utf-8"))
"""What is said of a split."""


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Where each row stands, by its index, and what was found on the way."""

    train: list[int]  # rows to learn from, ascending
    held_out: list[int]  # rows to measure on, ascending; empty where there are too few groups
    repeats: int  # rows that say what an earlier one says, but for case and white space
    near: int  # further rows that nearly do
    # Held-out rows that share WORDS words in a row with one that is learned from, or, by a split of
    # their own, its prompt.
    overlaps: int
    notes: tuple[str, ...] = ()


def hold_out(rows: Iterable[Row], *, group: Key | None = None) -> HeldOut:
    """Choose rows to measure on, so that none of them was learned from; always the same ones.

    Rows are one group when they have the same prompt, say nearly the same, or share the value of
    `group`; where that would make one group of most rows, less is kept together, and a note says
    so. A split that the rows bring themselves (train or held_out, in `meta`) is taken.
    """
    rows = checked(rows)
    own = _own_split(rows, group)
    near, repeats = near_duplicates(rows), exact_duplicates(rows)
    same = [(one.of, one.row) for one in repeats]
    if group is not None:
        same += _alike(values_of(rows, group))
    prompts = _alike([normalise(part_of(row, "prompt")) for row in rows])
    loose = _joined(len(rows), same)
    ways = [  # each keeps less together than the one before
        (_joined(len(rows), [*same, *prompts, *((one.of, one.row) for one in near)]), None),
        (_joined(len(rows), [*same, *prompts]), NOTES["alike"]),
        (loose, NOTES["one_prompt"]),
    ]
    allowed = max(max(Counter(loose).values()), len(rows) // 2)
    notes, held, kinds = [], own, ["ngram"]
    for joined, note in [] if own else ways:
        notes += [note] if note else []
        if len(set(joined)) >= FEWEST and max(Counter(joined).values()) <= allowed:
            break
    if own:
        kinds = ["prompt", "ngram"]
    elif (groups := len(set(joined))) < FEWEST:
        notes = [NOTES["too_few"].format(groups=groups, needed=FEWEST)]
    else:
        share = min(max(SHARE, min(LARGEST, LEAST / len(rows))), MOST / len(rows))
        numbers = iter(joined)
        found = split(rows, shares=(1 - share, share, 0), group=lambda row: next(numbers))
        held = found.indexes["validation"]
    learned = sorted(set(range(len(rows))) - set(held))
    sides = ([rows[n] for n in learned], [rows[n] for n in held])
    overlaps = leaks(*sides, kinds=kinds, size=WORDS)["test"].nunique() if held else 0
    if own:
        notes = [NOTES["own"].format(train=len(learned), held=len(held), same=overlaps)]
    return HeldOut(
        train=learned,
        held_out=held,
        repeats=len(repeats),
        near=max(0, len(near) - len(repeats)),
        overlaps=overlaps,
        notes=tuple(notes),
    )


def _own_split(rows: Sequence[Row], group: Key | None) -> list[int]:
    """The rows that are held out by a split of their own; empty where all are of train, or none
    has one."""
    metas = [row.get("meta") for row in rows]
    splits = [meta.get("split") if isinstance(meta, Mapping) else None for meta in metas]
    held = [index for index, name in enumerate(splits) if name == "held_out"]
    odd = [index for index, name in enumerate(splits) if name not in ("train", "held_out")]
    wrong = None
    if any(splits) and odd:
        there = f"rows[{odd[0]}] has the split {splits[odd[0]]!r}, and others have one"
        wrong = f"{there}: give each row train or held_out (in a file also test), or none"
    elif len(held) == len(rows):
        wrong = "the column split leaves no row to learn from: give a file with rows of train, or "
        wrong += "remove the column"
    elif held and group is not None:
        wrong = "the rows bring a split of their own, which a group can't change: leave out group "
        wrong += "(--group), or remove the column split"
    if wrong:
        raise RowsError(wrong)
    return held


def _alike(values: Sequence[Hashable]) -> list[tuple[int, int]]:
    """Each index with the first one of the same value."""
    first: dict[Hashable, int] = {}
    return [(first.setdefault(value, index), index) for index, value in enumerate(values)]


def _joined(count: int, pairs: Sequence[tuple[int, int]]) -> list[int]:
    """For each row the number of its group: all that are alike with it, over any others."""
    one, other = zip(*pairs, strict=True) if pairs else ((), ())
    graph = coo_array(([True] * len(pairs), (one, other)), shape=(count, count))
    return connected_components(graph, directed=False)[1].tolist()
