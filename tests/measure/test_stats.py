import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from sftlab.measure.stats import Share, share


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_is_what_its_tails_say(case):
    hits, items = case
    low, high = Share(hits, items).interval
    assert 0 <= low <= hits / items <= high <= 1
    # Exact: at either end, a result this extreme has a probability of 2.5%.
    if hits:
        assert binom.sf(hits - 1, items, low) == pytest.approx(0.025, abs=1e-4)
    if hits < items:
        assert binom.cdf(hits, items, high) == pytest.approx(0.025, abs=1e-4)


def test_a_share_reads_as_a_sentence_needs_it():
    assert str(share([True] * 8 + [False] * 2)) == "80% (44% to 97%)"
    assert Share(0, 20).value == 0
    # Rounded to whole percents, these would read as none and all.
    assert str(Share(1, 400)).startswith("0.2%")
    assert str(Share(399, 400)).startswith("99.8%")
    assert str(Share(20, 20)).startswith("100% ")


@pytest.mark.parametrize(("hits", "items"), [(0, 0), (3, 2), (-1, 4)])
def test_impossible_counts_are_refused(hits, items):
    with pytest.raises(ValueError, match=f"{hits} of {items}"):
        Share(hits, items)
