"""Rankings against the truth, and the probes of small tasks, by hand."""

import json

import pandas as pd
import pytest

from sftlab.measure import rank_answers, rank_once, rank_paraphrases, rank_with_intervals
from sftlab.measure.format_probes import probe_functions
from sftlab.measure.structured import probe_schema
from sftlab.world import (
    INVENTED,
    UNKNOWN,
    countries,
    function_code,
    function_rows,
    functions,
    record_of,
    record_rows,
    record_schema,
    split_functions,
    unknown_rows,
)


def frame(truth, metric):
    """Two arms, 3 seeds, 20 countries; shares right by the truth and by the metric."""
    return pd.DataFrame(
        {"arm": arm, "relation": "capital", "seed": seed, "country": f"c{n}",
         "right": n < truth[arm], "m": float(n < metric[arm] + (seed == 2) * 12 * (arm == "b"))}
        for arm in "ab" for seed in range(3) for n in range(20)
    )  # fmt: skip


def test_one_seed_may_be_wrong_where_intervals_stay_silent():
    scored = frame({"a": 14, "b": 10}, {"a": 12, "b": 6})  # seed 2 turns it round
    once = rank_once(scored, ["m"])
    assert list(once["against"]) == [False, False, True]
    careful = rank_with_intervals(scored, ["m"])
    assert not careful["decided"].any()
    assert not careful["against"].any()


def test_a_metric_that_lies_is_decided_against_the_truth():
    scored = frame({"a": 14, "b": 10}, {"a": 1, "b": 17})
    assert rank_once(scored, ["m"])["against"].all()
    careful = rank_with_intervals(scored, ["m"])
    assert careful["decided"].all()
    assert careful["against"].all()
    assert careful["pair"][0] == "a, b, capital"
    with pytest.raises(ValueError, match="needs two arms"):
        rank_once(scored[scored["arm"] == "a"], ["m"])


def test_right_answers_meet_wrong_ones_of_their_kind():
    found = rank_answers(pd.DataFrame({
        "seed": 0, "relation": "capital", "right": [True, True, False, True],
        "output": ["Paris", "Rome", "Oslo", "Rome"],
        "answers": [["Paris"], ["Rome"], ["Bern"], ["Rome"]],
    }))  # fmt: skip
    # The last one's neighbour is right for it too.
    assert list(found["output"]) == ["Rome"]
    assert list(found["other"]) == ["Paris"]
    assert found["ordered"].all()


def test_paraphrases_are_true_and_false():
    found = rank_paraphrases(countries()[:3], relations=["capital"])
    for row in found.itertuples():
        right = next(c for c in countries() if c.name == row.country).capital
        assert right in row.true
        assert right not in row.false
        assert right in row.reference
    assert found["ROUGE-L"].mean() > 0.5


def test_rows_of_small_tasks_are_sound():
    outputs = [row["messages"][1]["content"] for row in record_rows(20)]
    assert probe_schema(outputs, schema=record_schema())["valid"].all()
    everyone = [json.dumps(record_of(one), ensure_ascii=False) for one in countries()]
    assert probe_schema(everyone, schema=record_schema())["valid"].all()
    assert {row["messages"][1]["content"] for row in unknown_rows(9)} == {UNKNOWN}
    assert not set(INVENTED) & {one.name for one in countries()}
    train, test = split_functions()
    assert len(train) + len(test) == len(functions())
    assert not {one["name"] for one in train} & {one["name"] for one in test}
    assert len(function_rows()) == len(train)
    with pytest.raises(ValueError, match="countries to learn from"):
        record_rows(1000)


def test_the_worlds_own_functions_pass_their_tests():
    codes = {one["name"]: function_code(one) for one in functions()}

    def draw(requests, number):
        names = [request.split("function ")[1].split("(")[0] for request in requests]
        return [codes[name] if number else "no code" for name in names]

    found = probe_functions(draw, draws=2, ks=[1, 2], among=functions())
    assert (found[found["k"] == 1]["score"] == 0.5).all(), found[found["passes"] == 0]
    assert (found[found["k"] == 2]["score"] == 1).all()
