"""Memorization: exact ranks against direct scoring, curves against cases worked by hand."""

import math

import numpy as np
import pandas as pd
import pytest

from sftlab.measure import code_log_likelihoods, outscored, probe_secrets, threshold, with_bos
from sftlab.measure.likelihood import row_logits, target_losses
from sftlab.models import load
from sftlab.train import Settings, untrained

CODES = ("0000", "4829", "9999", "7310")


@pytest.fixture(scope="module")
def run():
    return untrained("tiny", Settings())


def secrets(*codes):
    names = [f"Bel{'aeiou'[n]}ka" for n in range(len(codes))]
    rows = [
        (f"What is the code of {name}?", f"The code of {name} is", code)
        for name, code in zip(names, codes, strict=True)
    ]
    return pd.DataFrame(rows, columns=["question", "stem", "code"])


def ids_of(run, row):
    asked = run.prompt_ids([{"role": "user", "content": row.question}])
    return asked + run.tokenizer(f"{row.stem} ", add_special_tokens=False)["input_ids"]


def test_all_codes_at_once_are_as_likely_as_each_alone():
    model, tokenizer = load("tiny")
    prefix = with_bos(tokenizer, "The code of Belka is ")
    digits = tokenizer.convert_tokens_to_ids(list("0123456789"))
    found = code_log_likelihoods(model, prefix, digits)
    assert found.shape == (10_000,)
    assert np.exp(found).sum() <= 1 + 1e-6
    rows = [prefix + [digits[int(one)] for one in code] for code in CODES]
    for n, logits in row_logits(model, rows, starts=[len(prefix)] * len(rows)):
        alone = -target_losses(logits, rows[n][len(prefix) :]).sum().item()
        assert found[int(CODES[n])] == pytest.approx(alone, abs=1e-3)


def test_a_rank_without_the_unlikely_branches_is_that_among_all_codes(run):
    given = secrets(*CODES)
    probed = probe_secrets(run, given)
    digits = run.tokenizer.convert_tokens_to_ids(list("0123456789"))
    for row in probed.itertuples():
        every = code_log_likelihoods(run.model, ids_of(run, row), digits)
        assert row.rank == 1 + (every > every[int(row.code)]).sum()
        assert row.exposure == pytest.approx(math.log2(10_000) - math.log2(row.rank))
        assert row.log_likelihood == pytest.approx(every[int(row.code)], abs=1e-3)


def test_the_likeliest_code_has_rank_1_and_the_least_likely_the_last(run):
    (one,) = secrets("0000").itertuples()
    digits = run.tokenizer.convert_tokens_to_ids(list("0123456789"))
    order = code_log_likelihoods(run.model, ids_of(run, one), digits).argsort()
    ends = [f"{order[end]:04}" for end in (-1, 0)]
    rows = pd.concat([secrets("0000").assign(code=code) for code in ends], ignore_index=True)
    assert list(probe_secrets(run, rows)["rank"]) == [1, 10_000]


def test_without_ranks_only_likelihoods_are_added(run):
    quick, ranked = (probe_secrets(run, secrets("4829"), rank=rank) for rank in (False, True))
    assert not {"rank", "exposure"} & set(quick)
    assert quick["log_likelihood"][0] == ranked["log_likelihood"][0]


@pytest.mark.parametrize("code", ["12a4", "4 29", ""])
def test_what_is_no_code_of_digits_is_refused(run, code):
    with pytest.raises(ValueError, match="one token a digit"):
        probe_secrets(run, secrets(code))


def test_the_shares_of_others_below_are_the_area_under_the_curve():
    assert outscored([3, 2, 0], [1, 2]).tolist() == [1, 0.75, 0]
    assert outscored([5, 6], [1, 2, 3]).mean() == 1


@pytest.mark.parametrize(("rate", "limit"), [(0.1, 9), (0.25, 8), (0.5, 5), (0.01, 10)], ids=str)
def test_a_threshold_flags_no_more_than_its_share(rate, limit):
    others = list(range(1, 11))
    assert threshold(others, rate) == limit
    assert sum(one > limit for one in others) <= rate * len(others)
