import pandas as pd
import pytest

from sftlab.measure import mean
from sftlab.show.tradeoffs import percent_fine, plot_directions, plot_methods, plot_rates


def scores(share):
    rows = [(f"c{c}", s, c / 20 < share) for c in range(20) for s in range(3)]
    return mean(pd.DataFrame(rows, columns=["country", "seed", "right"]))


def test_methods_stand_in_the_order_of_what_they_train():
    found = {
        "full": {"right": scores(0.9), "kept": scores(0.5)},
        "LoRA": {"right": scores(0.8), "kept": scores(1.0)},
    }
    picture = plot_methods(found, trained={"full": 1.0, "LoRA": 0.094}, title="Methods")
    assert picture.alt == (
        "Methods: LoRA trained 9.4%; LoRA right 80%; LoRA kept 100%; full trained 100%; "
        "full right 90%; full kept 50%."
    )
    trained, right, kept = picture.figure.axes
    assert [label.get_text() for label in trained.get_yticklabels()] == ["LoRA", "full"]
    assert [bar.get_width() for bar in right.patches if bar.get_width() < 1] == [0.8, 0.9]
    assert all(len(dots.get_offsets()) == 3 for dots in kept.collections)


@pytest.mark.parametrize(
    ("share", "text"), [(0.00571, "0.57%"), (0.094, "9.4%"), (0.0999, "10%"), (1.0, "100%")]
)
def test_small_shares_keep_two_digits(share, text):
    assert percent_fine(share) == text


def test_rates_tell_each_curve_and_ring_its_best():
    curves = {
        "full": {1e-3: scores(0.9), 1e-2: scores(0.1)},
        "LoRA": {1e-3: scores(0.2), 1e-2: scores(0.8)},
    }
    picture = plot_rates(curves, title="Rates", axis="right", best={"full": 1e-3, "LoRA": 1e-2})
    assert picture.alt == (
        "Rates: full at 0.001 90%; full at 0.01 10%; LoRA at 0.001 20%; LoRA at 0.01 80%."
    )
    (ax,) = picture.figure.axes
    rings = [line for line in ax.lines if line.get_fillstyle() == "none"]
    assert [line.get_xdata()[0] for line in rings] == [1e-3, 1e-2]


def test_directions_tell_what_is_held_and_what_can_be_done_with_it():
    spectrum = pd.DataFrame(
        {"directions": [1, 2, 1, 2], "held": [0.5, 1, 0.7, 1], "random": [0.1, 1, 0.1, 1]}
    )
    picture = plot_directions(
        spectrum, title="Spectrum", scores={0: scores(0), 2: scores(0.9)}, marks=[1]
    )
    assert "of the change's squared norm, 1 directions 60%" in picture.alt
    assert "were the change noise, 1 directions 10%" in picture.alt
    assert "answered rightly, 0 directions 0%; answered rightly, 2 directions 90%" in picture.alt
    (ax,) = picture.figure.axes
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "1", "2"]
