import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, t

from sftlab.measure import Estimate, Share, computed, difference, equivalent, mean, share


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_of_a_share_is_the_exact_binomial(case):
    exact = binomtest(*case).proportion_ci(method="exact")
    assert Share(*case).interval == pytest.approx((exact.low, exact.high), abs=1e-9)


def test_a_share_reads_as_a_sentence_needs_it():
    assert str(share([True] * 8 + [False] * 2)) == "80% (44% to 97%)"
    # Rounded to whole percents, these would read as none and all.
    assert str(Share(1, 400)).startswith("0.2%")
    assert str(Share(399, 400)).startswith("99.8%")


def runs(*, seeds=3, entities=20, share=0.8, start=0):
    """A frame of answers: seeds x entities x four items."""
    rng = np.random.default_rng(start)
    return pd.DataFrame(
        {"seed": seed, "country": f"c{e:02}", "right": bool(rng.random() < share)}
        for seed in range(seeds)
        for e in range(entities)
        for _ in range(4)
    )


def test_the_mean_of_a_frame_its_counts_and_several_comparisons():
    frame = runs()
    found = mean(frame)
    assert found.value == pytest.approx(frame["right"].mean())
    assert found.by_seed == pytest.approx(frame.groupby("seed")["right"].mean().tolist())
    assert (found.seeds, found.items, found.entities) == (3, 80, 20)
    assert found.low < found.inner[0] < found.value < found.inner[1] < found.high
    assert (found.method, found.unit) == ("logit t", "share")
    assert str(found) == f"{found.value:.0%} ({found.low:.0%} to {found.high:.0%})"
    ten = mean(frame, comparisons=10)
    assert ten.level == pytest.approx(0.995)
    assert ten.low < found.low < found.high < ten.high
    # Each of k parts at 1 - 0.05 / k, which is what k comparisons ask of all.
    assert found.among(1) == (found.low, found.high)
    for k in range(2, 6):
        several = mean(frame, comparisons=k)
        assert found.among(k) == (several.low, several.high)


def test_items_of_one_entity_count_as_one_and_those_of_many_as_many():
    outcomes = np.random.default_rng(0).random(200) < 0.7
    alike = {"country": np.arange(200) // 10, "right": np.repeat(outcomes[:20], 10)}
    apart = mean(pd.DataFrame({"country": range(200), "right": outcomes}))
    together = mean(pd.DataFrame(alike))
    assert (apart.low, apart.high) == pytest.approx(share(outcomes).interval, abs=0.01)
    assert together.high - together.low > 2.5 * (apart.high - apart.low)


def test_one_seed_is_over_entities_and_one_number_a_run_over_seeds():
    one = runs(seeds=1)
    assert mean(one) == mean(one.drop(columns="seed"))
    losses = pd.DataFrame({"seed": range(5), "value": [2.1, 2.4, 2.2, 2.0, 2.3]})
    found = mean(losses, value="value", entity=None)
    rates = mean(losses.assign(value=np.log(losses["value"])), value="value", entity=None)
    geometric = rates.map(math.exp)
    assert geometric.value == pytest.approx(2.1**0.2 * (2.4 * 2.2 * 2.0 * 2.3) ** 0.2)
    assert geometric.among(3) == pytest.approx(tuple(map(math.exp, rates.among(3))))
    classical = t.interval(0.95, 4, losses["value"].mean(), losses["value"].sem())
    assert (found.low, found.high) == pytest.approx(classical)
    assert (found.unit, str(found).split()[0]) == ("number", "2.2")


def test_one_number_of_one_seed_shows_nothing():
    losses = pd.DataFrame({"seed": [0], "value": [2.5]})
    found = difference(losses, losses.assign(value=2.0), value="value", entity=None)
    assert (found.low, found.high, found.method) == (-math.inf, math.inf, "no interval")
    assert str(found) == "0.5 (no interval, one seed)"
    assert found.map(math.exp).among(3) == (-math.inf, math.inf)


@pytest.mark.parametrize(("right", "value"), [(True, 1), (False, 0)])
def test_saturated_runs_have_the_exact_interval_over_entities(right, value):
    found = mean(runs(entities=50).assign(right=right))
    assert (found.value, found.method) == (value, "exact binomial")
    for level, ends in ((0.95, (found.low, found.high)), (0.9, found.inner)):
        exact = binomtest(50 * value, 50).proportion_ci(level, method="exact")
        assert ends == pytest.approx((exact.low, exact.high), abs=1e-12)


def test_few_answers_that_deviate_do_not_blow_up_the_interval():
    frame = runs(entities=50).assign(right=True)
    frame.loc[[0, 4], "right"] = False  # two countries, both in the first seed
    assert mean(frame).low > binomtest(48, 50).proportion_ci(method="exact").low - 1e-6


def test_constant_numbers_are_said_to_be_constant():
    found = mean(runs().assign(right=0.25))
    assert (found.low, found.value, found.high, found.method) == (0.25, 0.25, 0.25, "constant")
    losses = runs().assign(right=np.random.default_rng(0).random(240))
    same = difference(losses, losses)
    assert (same.low, same.high, same.method) == (0, 0, "constant")


def test_a_difference_pairs_seeds_and_entities():
    weak, strong = runs(share=0.5), runs(share=0.9, start=1)
    found = difference(strong, weak)
    assert found.value == pytest.approx(mean(strong).value - mean(weak).value)
    assert found.by_seed == pytest.approx(np.subtract(mean(strong).by_seed, mean(weak).by_seed))
    assert (found.seeds, found.items, found.entities) == (3, 80, 20)
    back = difference(weak, strong)
    assert (back.low, back.high) == pytest.approx((-found.high, -found.low))
    assert str(found).split()[1] == "points"
    with pytest.raises(ValueError, match=r"paired_seeds=False"):
        difference(runs(seeds=4), weak)
    assert difference(runs(seeds=4), weak, paired_seeds=False).seeds == 3
    with pytest.raises(ValueError, match="c00"):
        difference(strong, weak[weak["country"] != "c00"])


def test_what_arms_share_does_not_widen_their_difference():
    rng = np.random.default_rng(0)
    first = runs(seeds=5, entities=40)
    hard = np.tile(np.repeat(rng.normal(size=40), 4), 5)
    luck = np.repeat(rng.normal(size=5), 160)
    first["right"] = hard + luck + 0.01 * rng.normal(size=800)
    second = first.assign(right=first["right"] - 0.3 + 0.01 * rng.normal(size=800))
    paired = difference(first, second)
    unpaired = difference(first, second, paired_seeds=False)
    apart = difference(first, second.assign(country="other " + second["country"]))
    assert paired.high - paired.low < 0.01
    assert unpaired.high - unpaired.low > 1, "seeds that mean nothing do not cancel"
    assert apart.high - apart.low > 0.3, "other entities do not cancel"
    assert (apart.entities, apart.items) == (80, 320)


def test_an_arm_without_randomness_is_set_against_every_seed():
    tuned, prompt = runs(seeds=5, share=0.9), runs(seeds=1, share=0.5, start=1)
    found = difference(tuned, prompt)
    copies = difference(tuned, pd.concat([prompt.assign(seed=seed) for seed in range(5)]))
    assert found.seeds == len(found.by_seed) == 5
    assert found.value == pytest.approx(copies.value)
    assert found.low == pytest.approx(copies.low, abs=0.01)
    assert difference(prompt, tuned).by_seed == pytest.approx([-d for d in found.by_seed])


def test_with_a_saturated_arm_the_arms_intervals_are_combined():
    full, part = runs(entities=50).assign(right=True), runs(entities=50, share=0.6)
    found = difference(full, part)
    top, rest = mean(full), mean(part)
    assert found.method == "MOVER"
    below = np.hypot(1 - top.low, rest.high - rest.value)
    assert found.low == pytest.approx(found.value - below)
    assert found.high == pytest.approx(found.value + rest.value - rest.low)
    most = difference(full, full.assign(right=False))
    assert most.high == most.value == 1
    assert most.low < top.low
    same = difference(part, part)
    assert (same.value, same.method) == (0, "exact binomial")
    assert same.high == -same.low == pytest.approx(1 - 0.025 ** (1 / 50))


def test_sameness_needs_the_inner_interval_within_the_margins():
    rng = np.random.default_rng(0)
    losses = runs(seeds=5, entities=40).assign(right=rng.normal(size=800))
    close = difference(losses, losses.assign(right=losses["right"] + 0.01 * rng.normal(size=800)))
    edge = max(abs(end) for end in close.inner)
    assert equivalent(close, edge * 1.01)
    assert not equivalent(close, edge)
    assert edge < max(-close.low, close.high), "90%, not 95%"


def test_an_estimate_survives_json():
    found = difference(runs(share=0.9), runs(share=0.4, start=1))
    assert Estimate.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    # Rounded to whole points this difference would read as none.
    small = replace(found, value=0.004, low=-0.012, high=0.02)
    assert str(small) == "+0.4 points (-1 to +2)"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop(columns="country"), "no column 'country'"),
        (lambda f: f.iloc[:0], "no rows"),
        (lambda f: f.iloc[4:], r"\(0, c00\)"),
        (lambda f: f.assign(right=f["right"].astype(object).where(f.index != 85)), "seed 1"),
        (lambda f: f.assign(right="yes"), "'right' must hold finite numbers"),
        (lambda f: f.assign(right=np.where(f.index == 7, np.inf, 1.0)), "row 7"),
    ],
    ids=["column", "empty", "gap", "missing", "text", "infinite"],
)
def test_frames_that_cannot_be_averaged_are_refused_with_the_place(change, message):
    with pytest.raises(ValueError, match=message):
        mean(change(runs()))


def test_the_order_of_rows_and_the_types_of_columns_change_nothing():
    frame = runs()
    for same in (
        frame.sample(frac=1, random_state=0),
        frame.assign(right=frame["right"].astype(object)),
        frame.assign(right=frame["right"].astype("boolean")),
    ):
        assert mean(same) == mean(frame)
    # The order of categories pairs nothing.
    names = sorted(set(frame["country"]), reverse=True)
    turned = frame.assign(country=pd.Categorical(frame["country"], categories=[*names, "Togo"]))
    assert difference(turned, frame) == difference(frame, frame)


def test_a_computed_figure_reaches_as_far_as_its_formula_may_be_off():
    one = computed(12.0, factor=1.2)
    assert (one.value, one.low, one.high) == pytest.approx((12, 10, 14.4))
    assert one.among(5) == (one.low, one.high)
    assert (one.seeds, one.items, one.method) == (1, 1, "computed")
    several = computed(-0.5, 0.5)
    assert (several.value, several.low, several.high, several.items) == (0, -0.5, 0.5, 2)
