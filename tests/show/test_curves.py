import pandas as pd

from sftlab.measure import mean
from sftlab.show.curves import plot_learning, plot_losses


def scores(share):
    rows = [(f"c{c}", s, c / 20 < share) for c in range(20) for s in range(3)]
    return mean(pd.DataFrame(rows, columns=["country", "seed", "right"]))


def test_a_learning_curve_tells_its_points_and_its_line():
    picture = plot_learning(
        {15: scores(0.1), 60: scores(0.5)}, title="More examples", line=("prompt", scores(0.8))
    )
    assert picture.alt == "More examples: 15 examples 10%; 60 examples 50%; prompt 80%."
    (ax,) = picture.figure.axes
    assert "four times" in ax.get_xlabel()
    assert len(ax.collections) == 2
    assert all(len(dots.get_offsets()) == 3 for dots in ax.collections)


def test_losses_show_each_seed_and_tell_where_the_mean_is_least():
    frame = pd.DataFrame(
        [
            {"seed": seed, "epoch": epoch, "kind": kind, "loss": loss + seed}
            for kind, losses in {"training": (3, 2, 1), "validation": (4, 2, 3)}.items()
            for epoch, loss in enumerate(losses, start=1)
            for seed in (0, 1)
        ]
    )
    picture = plot_losses(frame, title="Two losses")
    assert (
        "validation 4.50 at the first epoch, least 2.50 at epoch 2, 3.50 at the last" in picture.alt
    )
    assert len(picture.figure.axes[0].lines) == 2 * 3 + 1  # and where the mean is least


def test_losses_of_many_kinds_have_no_line_and_their_names_above():
    frame = pd.DataFrame(
        [
            {"seed": 0, "epoch": epoch, "kind": kind, "loss": 1.0}
            for kind in ("full", "LoRA", "head")
            for epoch in (1, 2)
        ]
    )
    (ax,) = plot_losses(frame, title="Three").figure.axes
    assert len(ax.lines) == 3 * 2
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["full", "LoRA", "head"]
