"""Requests are split so that what a part calls new is in no training request."""

import pandas as pd

from sftlab.world import split_requests

ROWS = pd.DataFrame(split_requests())


def test_what_a_part_calls_new_is_in_no_training_request():
    train = ROWS[ROWS["part"] == "train"]
    words = {name: set(train[name]) for name in ("family", "verb", "owner", "thing")}
    held_out = {
        "new request": {"owner", "thing"},
        "new verb": {"owner", "thing", "verb"},
        "new family": {"family", "owner", "verb", "thing"},
    }
    assert set(ROWS["part"]) == {"train", *held_out}
    for part, new in held_out.items():
        rows = ROWS[ROWS["part"] == part]
        for name, known in words.items():
            assert rows[name].isin(known).any() == (name not in new), (part, name)


def test_twins_differ_in_the_verb_alone():
    for twin, rows in ROWS.groupby("twin"):
        assert sorted(rows["kind"]) == ["harmful", "harmless"], twin
        for name in ("family", "owner", "thing", "part", "pair"):
            assert rows[name].nunique() == 1, (twin, name)


def test_parts_are_of_equal_size_and_another_seed_draws_others():
    tests = ROWS[ROWS["part"] != "train"]
    assert tests.groupby(["part", "kind"])["pair"].nunique().eq(12).all()
    assert tests.groupby(["part", "kind"]).size().nunique() == 1
    assert split_requests(seed=0) == ROWS.to_dict("records")
    assert split_requests(seed=1) != split_requests(seed=0)
