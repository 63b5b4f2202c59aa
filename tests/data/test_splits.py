from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftlab.data.rows import RowsError
from sftlab.data.splits import NAMES, largest_remainders, split
from sftlab.world import RELATIONS, countries, country_examples, example

SHARES = st.sampled_from([(0.7, 0.15, 0.15), (0.5, 0.3, 0.2), (0.98, 0.01, 0.01), (0.9, 0, 0.1)])


def rows_in(sizes):
    """Rows with meta: one group of each size, and a stratum that cuts across groups."""
    return [
        {**example(f"{group} {n}", "a"), "meta": {"group": f"g{group}", "kind": n % 2}}
        for group, size in enumerate(sizes)
        for n in range(size)
    ]


@st.composite
def data(draw):
    return rows_in(draw(st.lists(st.integers(1, 9), min_size=3, max_size=30)))


@given(data(), SHARES, st.integers(0, 5), st.sampled_from([None, "kind"]))
def test_a_group_never_crosses_and_every_row_is_there_once(rows, shares, seed, stratify):
    splits = split(rows, shares=shares, group="group", stratify=stratify, seed=seed)
    everywhere = [index for name in NAMES for index in splits.indexes[name]]
    assert sorted(everywhere) == list(range(len(rows)))
    for name in NAMES:
        assert getattr(splits, name) == [rows[index] for index in splits.indexes[name]]
        assert splits.indexes[name] == sorted(splits.indexes[name])
    groups = [{row["meta"]["group"] for row in getattr(splits, name)} for name in NAMES]
    assert sum(map(len, groups)) == len({row["meta"]["group"] for row in rows})
    again = split(rows, shares=shares, group="group", stratify=stratify, seed=seed)
    assert again.indexes == splits.indexes
    for name, share in zip(NAMES, shares, strict=True):
        assert bool(getattr(splits, name)) == bool(share)


@given(data(), SHARES, st.integers(0, 5), st.sampled_from([None, "kind"]))
def test_shares_are_off_by_less_than_the_largest_groups(rows, shares, seed, stratify):
    sizes = Counter(row["meta"]["group"] for row in rows)
    splits = split(rows, shares=shares, group="group", stratify=stratify, seed=seed)
    wanted = largest_remainders(len(rows), shares)
    over = [len(getattr(splits, name)) - n for name, n in zip(NAMES, wanted, strict=True)]
    # A split that is owed less than a row gets one group all the same.
    assert max(over) <= max(sizes.values())
    assert splits.report["rows"].tolist() == [len(getattr(splits, name)) for name in NAMES]
    assert splits.report["groups"].sum() == len(sizes)
    assert splits.report["share"].sum() == pytest.approx(1)


@given(st.integers(20, 300), st.integers(0, 3), st.sampled_from([1, 3, 40]))
def test_without_groups_the_shares_are_those_of_largest_remainders(count, seed, strata):
    splits = split(
        rows_in([1] * count), stratify=lambda row: int(row["meta"]["group"][1:]) % strata, seed=seed
    )
    sizes = [len(getattr(splits, name)) for name in NAMES]
    assert sizes == largest_remainders(count, (0.7, 0.15, 0.15))


@given(st.integers(0, 1000), SHARES)
def test_largest_remainders_sum_and_stay_within_one(total, shares):
    whole = largest_remainders(total, shares)
    assert sum(whole) == total
    assert all(abs(n - share * total) < 1 for n, share in zip(whole, shares, strict=True))
    assert all(n == 0 for n, share in zip(whole, shares, strict=True) if not share)


def test_strata_are_spread_alike():
    names = sorted((country.name for country in countries()), key=len, reverse=True)
    rows = country_examples(400)
    world = {country.name: country for country in countries()}

    def country(row):
        return next(name for name in names if name in row["messages"][0]["content"])

    def group(row):
        return world[country(row)].group

    def answer_kind(row):
        answer, own = row["messages"][1]["content"], world[country(row)]
        return next(r for r in RELATIONS if getattr(own, r) == answer)

    for stratify in (group, answer_kind):
        splits = split(rows, group=country, stratify=stratify)
        shares = splits.strata.div(splits.strata.sum(axis=1), axis=0)
        assert splits.strata.sum().tolist() == splits.report["rows"].tolist()
        assert (shares.sub([0.7, 0.15, 0.15], axis=1).abs() < 0.1).all(axis=None)


def test_a_large_group_finds_room_before_small_ones_take_it():
    for seed in range(5):
        splits = split(rows_in([30] + [1] * 70), shares=(0.3, 0.35, 0.35), group="group", seed=seed)
        assert splits.report["rows"].tolist() == [30, 35, 35]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shares": (0.7, 0.3)}, r"shares=\(0.7, 0.3\): give three"),
        ({"shares": (0.7, 0.15, 0.2)}, "sum to 1.05: they must sum to 1"),
        ({"shares": (1.2, -0.1, -0.1)}, "between 0 and 1"),
        ({"group": "kind"}, "2 groups for 3 splits"),
        ({"group": "country"}, r"rows\[0\] has no 'country', but 'group', 'kind'"),
        ({"stratify": "country"}, r"rows\[0\] has no 'country'"),
    ],
)
def test_errors_say_what_and_what_to_do(options, message):
    with pytest.raises(RowsError, match=message):
        split(rows_in([3, 3, 3]), **options)
    with pytest.raises(RowsError, match="the list is empty"):
        split([])
