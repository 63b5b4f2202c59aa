import pytest

from sftlab.measure.onsets import onset


def test_between_two_settings_it_is_read_off_a_line_over_the_logarithm():
    assert onset({1.0: 1.0, 100.0: 0.0}, limit=0.5) == pytest.approx(10)
    assert onset({0.01: 0.2, 0.0001: 1.0, 0.001: 0.9}, limit=0.9) == pytest.approx(0.001)


def test_it_is_the_first_fall_that_counts():
    assert onset({1.0: 1.0, 10.0: 0.0, 100.0: 1.0, 1000.0: 0.0}, limit=0.99) < 10


@pytest.mark.parametrize(("limit", "found"), [(0.5, 8.0), (1.5, 1.0)])
def test_outside_the_measured_it_is_the_end(limit, found):
    assert onset({1.0: 1.0, 8.0: 0.9}, limit=limit) == found


@pytest.mark.parametrize("values", [{}, {0.0: 1.0}, {-1.0: 1.0, 2.0: 0.5}])
def test_settings_that_have_no_logarithm(values):
    with pytest.raises(ValueError, match="all above zero"):
        onset(values, limit=0.5)
