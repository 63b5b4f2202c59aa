from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftlab.data.rows import RowsError
from sftlab.data.splits import NAMES, hold_out, split
from sftlab.world import country_rows, example

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
def test_a_group_never_crosses_rows_are_there_once_and_shares_near(rows, shares, seed, stratify):
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
    sizes = [len(getattr(splits, name)) for name in NAMES]
    largest = max(Counter(row["meta"]["group"] for row in rows).values())
    # A split that is owed less than a row gets one group all the same.
    assert all(n < share * len(rows) + 1 + largest for n, share in zip(sizes, shares, strict=True))
    assert splits.report["rows"].tolist() == sizes
    assert splits.report["groups"].tolist() == list(map(len, groups))
    assert splits.report["share"].sum() == pytest.approx(1)


def test_strata_are_spread_alike():
    splits = split(country_rows(400), group="country", stratify="continent")
    shares = splits.strata.div(splits.strata.sum(axis=1), axis=0)
    assert splits.strata.sum().tolist() == splits.report["rows"].tolist()
    big = splits.strata.sum(axis=1) > 40
    assert (shares[big].sub([0.7, 0.15, 0.15], axis=1).abs() < 0.1).all(axis=None)
    assert split(rows_in([1] * 23)).report["rows"].tolist() == [16, 4, 3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group": "kind"}, "2 groups are too few for 3 splits"),
        ({"group": "country"}, r"rows\[0\] has no 'country', but 'group', 'kind'"),
        ({"group": lambda row: [row["meta"]["kind"]]}, r"is \['?.*\], not one value"),
        ({"shares": (70, 15, 15)}, "which sum to 1"),
        ({"shares": (0.8, 0.2)}, "which sum to 1"),
    ],
)
def test_errors_say_what_and_what_to_do(options, message):
    with pytest.raises(RowsError, match=message):
        split(rows_in([3, 3, 3]), **options)
    with pytest.raises(RowsError, match="the list is empty"):
        split([])


def row(question, answer, **meta):
    return {**example(question, answer), "meta": meta}


def different(count):
    """Rows that have next to nothing in common."""
    return [row(f"{n * 7919:x} {n**3:x} {n * n:o} stands for?", f"{n**5:x}") for n in range(count)]


def side(found, index):
    assert (index in found.train) != (index in found.held_out)
    return index in found.held_out


@pytest.mark.parametrize(("rows", "held"), [(8, 2), (40, 10), (100, 20), (300, 30)])
def test_a_tenth_is_held_out_and_more_of_few_rows(rows, held):
    found = hold_out(different(rows))
    assert abs(len(found.held_out) - held) <= 1
    assert sorted(found.train + found.held_out) == list(range(rows))
    assert found.notes == ()
    assert found == hold_out(different(rows))


def test_rows_that_repeat_or_have_the_same_prompt_are_on_one_side():
    rows = different(30)
    twins = []
    for n in range(0, 30, 2):
        question, answer = (message["content"] for message in rows[n]["messages"])
        long = f" of {(n + 50) ** 60:x}"
        rows[n] = row(question + long, answer)
        near = row(question.replace("stands", "stood") + long, answer)
        other = row(question.upper() + long, "another answer altogether")
        for twin in (near, other, row(question + long, answer)):
            twins.append((n, len(rows)))
            rows.append(twin)
    found = hold_out(rows)
    assert found.repeats == 15
    assert found.near >= 15
    assert all(side(found, one) == side(found, other) for one, other in twins)
    assert len({side(found, one) for one, _ in twins}) == 2


def test_a_column_does_not_cross():
    rows = [{**one, "meta": {"customer": n % 10}} for n, one in enumerate(different(60))]
    found = hold_out(rows, group="customer")
    held = {rows[n]["meta"]["customer"] for n in found.held_out}
    assert held
    assert held.isdisjoint(rows[n]["meta"]["customer"] for n in found.train)
    with pytest.raises(RowsError, match="'city'"):
        hold_out(rows, group="city")


def with_split(*names):
    """Sixty rows that have these splits in turn."""
    turns = enumerate(different(60))
    return [{**one, "meta": {"split": names[n % len(names)]}} for n, one in turns]


def test_a_split_that_the_rows_bring_is_taken():
    rows = with_split("train", "train", "held_out")
    found = hold_out([*rows, {**rows[0], "meta": {"split": "held_out"}}])
    assert found.held_out == [*range(2, 60, 3), 60]
    assert found.train == [n for n in range(60) if n % 3 != 2]
    assert "40 rows to learn from, 21 held out, of which 1 share" in found.notes[0]
    assert found.overlaps == 1
    assert hold_out(with_split("train")) == hold_out(different(60))


@pytest.mark.parametrize(
    ("names", "group", "said"),
    [
        (
            ["train", None],
            None,
            r"rows\[1\] has the split None, .* give each row train or held_out",
        ),
        (["held_out"], None, r"no row to learn from: .* remove the column"),
        (["train", "held_out"], "split", r"leave out group \(--group\)"),
    ],
)
def test_a_split_that_can_not_be_taken_is_refused(names, group, said):
    with pytest.raises(RowsError, match=said):
        hold_out(with_split(*names), group=group)


WORDING = "Dear help desk, how do I send back the {} that I ordered from you last week?"
ANSWER = "Please write to us with the number of your order, and we will take back the {}."
GOODS = ["lamp", "desk", "kettle", "phone", "chair", "radio", "knife", "shelf", "rug", "clock"]


@pytest.mark.parametrize(
    ("rows", "held", "note"),
    [
        (different(7), {0}, "7 groups of rows are too few"),
        ([row("What?", "That.")] * 50, {0}, "1 groups"),
        ([row("A poem, please.", f"Poem {n}") for n in range(50)], {12, 13}, "same prompt"),
        ([row(WORDING.format(one), ANSWER.format(one)) for one in GOODS], {2, 3}, "nearly alike"),
    ],
)
def test_rows_too_few_or_too_alike_come_with_a_note(rows, held, note):
    found = hold_out(rows)
    assert len(found.held_out) in held
    assert sorted(found.train + found.held_out) == list(range(len(rows)))
    assert any(note in one for one in found.notes)
    if note == "nearly alike":
        assert found.overlaps == len(found.held_out)
