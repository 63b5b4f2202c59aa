"""Pictures of training: what they tell to those who cannot see them, and that they are drawn."""

from itertools import pairwise

import pandas as pd
import pytest

from sftlab.measure import mean
from sftlab.show.training import plot_against, plot_band, plot_layout, plot_steps


def share(*hits):
    rows = [
        {"seed": seed, "country": c, "right": c < n}
        for seed, n in enumerate(hits)
        for c in range(4)
    ]
    return mean(pd.DataFrame(rows))


def drawn(picture):
    return picture._repr_mimebundle_()[0]["image/png"][:4] == b"\x89PNG"


def test_band_tells_each_rate_of_each_series():
    series = {
        "right": {1e-4: share(1, 2), 1e-3: share(4, 3)},
        "known": {1e-4: share(4, 4), 1e-3: share(2, 2)},
    }
    picture = plot_band(series, title="A band", marked=[1e-3])
    assert picture.alt == (
        "A band: right at 0.0001 38%; right at 0.001 88%; known at 0.0001 100%; known at 0.001 50%."
    )
    assert drawn(picture)


def test_band_reaches_from_the_lowest_seed_to_the_highest():
    picture = plot_band({"right": {1e-4: share(1, 3), 1e-3: share(2, 4)}}, title="A band")
    (ax,) = picture.figure.axes
    heights = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (0.25, 1.0)


@pytest.mark.parametrize("logarithmic", [False, True])
def test_steps_have_a_line_for_each_seed_and_a_mean(logarithmic):
    frame = pd.DataFrame(
        {"arm": arm, "seed": seed, "step": step, "nats": 4.0 / step + seed}
        for arm in ("low", "high")
        for seed in (0, 1)
        for step in (1, 2, 4)
    )
    picture = plot_steps(frame, title="Losses", logarithmic=logarithmic)
    (ax,) = picture.figure.axes
    assert len(ax.lines) == 2 * 3
    assert list(ax.lines[2].get_ydata()) == [4.5, 2.5, 1.5]
    assert picture.alt == "Losses: low from 4.5 to 1.5; high from 4.5 to 1.5."
    assert drawn(picture)


def test_each_run_is_a_dot_in_each_panel():
    runs = pd.DataFrame(
        {"score": [0.2, 0.9, 0.5], "training": [2.0, 0.1, 0.01], "validation": [3.0, 0.5, 0.9],
         "group": ["rates", "rates", "epochs"]}
    )  # fmt: skip
    columns = {"training": "training loss", "validation": "validation loss"}
    picture = plot_against(runs, columns, title="Dots")
    panels = picture.figure.axes
    assert [sum(len(c.get_offsets()) for c in ax.collections) for ax in panels] == [3, 3]
    assert picture.alt == "Dots: 3 runs, 2 kinds."
    assert drawn(picture)


@pytest.mark.parametrize("losses", [(0.42, 6.1), (0.9, 1.1), (0.002, 5.0), (0.1, 4.9)])
def test_labels_of_losses_are_at_least_two_and_stand_apart(losses):
    runs = pd.DataFrame({"score": [0.2, 0.9], "loss": losses, "group": "rates"})
    picture = plot_against(runs, {"loss": "training loss", "score": "score"}, title="Dots")
    picture.figure.draw_without_rendering()
    axis = picture.figure.axes[0].xaxis
    low, high = axis.get_view_interval()
    labels = [*axis.get_majorticklabels(), *axis.get_minorticklabels()]
    boxes = [label.get_window_extent() for label in labels
             if label.get_text() and low <= label.get_position()[0] <= high]  # fmt: skip
    boxes.sort(key=lambda box: box.x0)
    assert all(one.x1 < other.x0 for one, other in pairwise(boxes))
    assert len(boxes) >= 2


def test_layout_counts_positions_and_padding():
    padded = [["read", "learned", "padding"], ["read", "read", "learned"]]
    packed = [["read", "learned", "read", "read", "learned"]]
    picture = plot_layout({"padded": padded, "packed": packed}, title="Two ways")
    assert picture.alt == (
        "Two ways: padded 6 positions, 1 of them padding; packed 5 positions, 0 of them padding."
    )
    assert drawn(picture)
