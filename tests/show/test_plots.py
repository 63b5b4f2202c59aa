"""Plots: what they say to those who cannot see them, and what they draw."""

import json

import pandas as pd
import pytest
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex

from sftlab.measure import Share
from sftlab.paths import DATA
from sftlab.planner import estimate
from sftlab.show import (
    COLOURS,
    GREY,
    plot_against,
    plot_card,
    plot_curves,
    plot_loss,
    plot_map,
    plot_memory,
    plot_meter,
    plot_pareto,
    plot_reactions,
    plot_runs,
    plot_shares,
)


def legend(picture):
    return [text.get_text() for text in picture.figure.axes[0].get_legend().get_texts()]


def texts(ax):
    return [text.get_text() for text in ax.texts]


def seeds(ax):
    """The places of all white dots."""
    found = [one for one in ax.collections if isinstance(one, PathCollection)]
    return [tuple(dot) for dots in found for dot in dots.get_offsets()]


def steps(count, loss=lambda n: 3 / n):
    return [{"step": n, "loss": loss(n), "learning_rate": 1e-3 / n} for n in range(1, count + 1)]


def test_shares_tell_each_bar_and_show_each_seed(tmp_path, share):
    rows = {
        "bare": {"base": Share(hits=1, items=10)},
        "house": {"base": share(5, 7), "x": share(20)},
    }
    picture = plot_shares(rows, title="Shares")
    assert picture.alt == "Shares: bare base 10%; house base 30%; house x 100%."
    (ax,) = picture.figure.axes
    assert [bar.get_width() for bar in ax.patches] == [0.1, 0.3, 1.0]
    assert sorted(x for x, _ in seeds(ax)) == [0.25, 0.35]
    assert len({text.get_position()[0] for text in ax.texts}) == 1, "numbers stand in a column"
    assert legend(picture) == ["base", "x"]
    picture.save(tmp_path / "a.png")
    data, options = picture._repr_mimebundle_()
    assert (tmp_path / "a.png").read_bytes() == data["image/png"]
    assert data["text/plain"] == picture.alt
    assert options == {"image/png": {"width": 720}}
    page = plot_shares({'<"a">': Share(hits=1, items=2)}, title="T").html
    assert page.startswith('<img alt="T: &lt;&quot;a&quot;&gt; 50%." src="data:image/png;base64,')


def test_a_name_has_one_colour_in_every_figure(share):
    blue, orange, green, *_, vermilion = COLOURS
    meant = {
        "base": GREY, "base, zero-shot": GREY, "base, 4-shot prompt": orange, "prompt": orange,
        "fine-tuned on 40 examples": blue, "fine-tuned": blue, "full": blue, "old skills": green,
        "wrong answers": vermilion, "invalid": vermilion,
    }  # fmt: skip
    for name, colour in meant.items():
        (ax,) = plot_shares({name: share(5)}, title="T").figure.axes
        (ax2,) = plot_shares({"row": {"else": share(5), name: share(5)}}, title="T").figure.axes
        assert to_hex(ax.patches[0].get_facecolor()) == colour.lower(), name
        assert to_hex(ax2.patches[1].get_facecolor()) == colour.lower(), name
    (ax,) = plot_shares({"": dict.fromkeys(meant, share(5))}, title="T").figure.axes
    assert len({bar.get_facecolor() for bar in ax.patches}) == len(meant), "none twice in a figure"


def test_a_legend_of_long_names_stays_inside_its_figure(share):
    names = [f"batches of 32, {n} epochs of all" for n in range(4)]
    figure = plot_shares({"row": dict.fromkeys(names, share(5))}, title="T").figure
    figure.canvas.draw()
    assert figure.axes[0].get_legend().get_window_extent().x1 <= figure.bbox.x1


def test_reactions_add_up():
    frame = pd.DataFrame({"reaction": ["answered"] * 3 + ["continued"]})
    picture = plot_reactions({"base": frame}, title="What")
    said = "base answered correctly 75%; base continued with a question 25%; base anything else 0%"
    assert picture.alt == f"What: {said}."
    assert sum(bar.get_width() for bar in picture.figure.axes[0].patches) == 1
    assert texts(picture.figure.axes[0]) == ["75%", "25%", ""]


def test_each_run_is_a_dot_in_each_panel():
    rows = {"score": [0.2, 0.9, 0.5], "a": [2.0, 0.1, 0.01], "b": [3.0, 0.5, 0.9]}
    runs = pd.DataFrame(rows | {"group": ["x", "x", "y"]})
    picture = plot_against(runs, {"a": "loss", "b": "other"}, title="Dots", threshold=1)
    assert [len(seeds(ax)) for ax in picture.figure.axes] == [3, 3], "a dot in each panel"
    assert picture.alt == "Dots: 3 runs; x 1.05, 1.75, correct 55%; y 0.01, 0.9, correct 50%."


def test_picture_of_the_base_model():
    card = json.loads((DATA / "models" / "tiny" / "card.json").read_text())
    assert "with a 4-shot prompt" in plot_card(card).alt


def test_curves_tell_each_place_ring_the_best_and_show_seeds(share):
    curves = {
        "full": {1e-3: share(18, 20), 1e-2: share(2, 2)},
        "base": {1e-3: share(4, 4), 1e-2: share(16, 16)},
    }
    picture = plot_curves(curves, title="Rates", x="rate", best={"full": 1e-3})
    assert picture.alt == (
        "Rates: full at 0.001 95%; full at 0.01 10%; base at 0.001 20%; base at 0.01 80%."
    )
    (ax,) = picture.figure.axes
    assert [line.get_color() for line in ax.lines[:1]] == [COLOURS[0]]
    (ring,) = [line for line in ax.lines if line.get_fillstyle() == "none"]
    assert ring.get_xdata()[0] == 1e-3
    assert GREY in [line.get_color() for line in ax.lines if line.get_label() == "base"]
    assert sorted(y for _, y in seeds(ax)) == [0.1, 0.1, 0.2, 0.2, 0.8, 0.8, 0.9, 1.0]
    assert len({x for x, _ in seeds(ax)}) == 4, "equal seeds stand side by side"


def test_a_difference_is_in_points():
    picture = plot_curves({"": {1: 0.16, 2: 0.05}}, title="T", x="x", y="points")
    assert texts(picture.figure.axes[0]) == ["16", "5"]
    assert picture.png
    ticks = picture.figure.axes[0].get_yticklabels()
    assert not any("%" in label.get_text() for label in ticks)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("log", [False, True])
def test_a_single_curve_has_its_numbers_and_no_legend_and_may_be_all_zero(log, share):
    picture = plot_curves({"": {0: share(2), 15: 0.5, 60: 0.25}}, title="More", x="x", log=log)
    assert picture.alt == "More: at 0 10%; at 15 50%; at 60 25%."
    (ax,) = picture.figure.axes
    assert texts(ax) == ["10%", "50%", "25%"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "15", "60"]
    assert ax.get_legend() is None
    zeros = plot_curves({"a": {1: 0.0, 2: 0.0}}, title="k", x="draws", log=log)
    assert zeros.png
    low, high = zeros.figure.axes[0].get_ylim()
    assert low < 0 < high


def test_loss_has_every_step_its_running_mean_and_validation():
    picture = plot_loss(steps(20), title="A", validation=[(10, 1.1), (20, 1.05)])
    (ax,) = picture.figure.axes
    each, running, validation = ax.lines
    assert each.get_ydata().tolist() == [3 / n for n in range(1, 21)]
    assert running.get_ydata()[1] == pytest.approx((3 + 1.5) / 2)
    assert list(zip(*validation.get_data(), strict=True)) == [(10, 1.1), (20, 1.05)]
    said = "loss from 3 at the first step to a running mean of 0.154 at step 20; "
    said += "validation loss from 1.1 to 1.05"
    assert picture.alt == f"A: {said}."


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
@pytest.mark.parametrize("sound", [0, 2])
def test_a_diverged_run_is_drawn_too(wrong, sound):
    assert plot_loss(steps(12, lambda n: 2.0 if n <= sound else wrong), title="A").png


@pytest.mark.parametrize("log", [False, True])
def test_runs_have_a_line_for_each_seed_and_a_mean(log):
    runs = {"epoch": [1, 2, 3] * 2, "kind": ["training"] * 3 + ["validation"] * 3}
    first = pd.DataFrame(runs | {"loss": [3, 2, 1, 4, 2, 3], "seed": 0})
    frame = pd.concat([first, first.assign(loss=first["loss"] + 1, seed=1)])
    picture = plot_runs(frame, title="Two", log=log)
    said = "validation 4.50 at the first epoch, lowest 2.50 at epoch 2, 3.50 at the last"
    assert said in picture.alt
    (ax,) = picture.figure.axes
    assert list(ax.lines[2].get_ydata()) == [3.5, 2.5, 1.5]
    assert len(ax.lines) == 2 * 3 + 1, "and where validation is lowest"
    assert picture.png


def test_bars_of_memory_add_up_and_marks_are_what_was_measured():
    given = {"max_length": 512, "device": "cuda"}
    plans = {name: estimate("smollm2-135m", method=name, **given) for name in ("full", "qlora")}
    for measured in ({}, {"full": 3e9}):
        picture = plot_memory(plans, title="Memory", gpus={"2 GB GPU": 2e9}, measured=measured)
        (ax,) = picture.figure.axes
        for y, (name, plan) in enumerate(plans.items()):
            bars = [one for one in ax.patches if abs(one.get_y() + one.get_height() / 2 - y) < 1e-6]
            size = (plan.total if measured else plan.needed) / 1e9
            assert sum(bar.get_width() for bar in bars) == pytest.approx(size)
            assert f"{name} {size:.3g} GB" in picture.alt
        assert [line.get_xdata()[0] for line in ax.lines] == [*([3.0] if measured else []), 2.0]
    assert "measured 3 GB" in picture.alt
    alone = plot_memory({"full": plans["full"]}, title="Memory")
    assert set(legend(picture)) - set(legend(alone)) == {"adapters"}


def test_meter_tells_before_and_after(reading):
    before = reading(facts=1, stories=0.9)
    runs = [reading(facts=0.5, stories=0), reading(facts=0.7, stories=0)]
    after = pd.concat([frame.assign(seed=n) for n, frame in enumerate(runs)])
    picture = plot_meter({"high rate": after}, before=before, title="Meter")
    assert picture.alt == (
        "Meter: before facts 100%; before stories 90%; high rate facts 60%; high rate stories 0%; "
        "high rate loss on the corpus 1.50 nats."
    )
    skills, corpus = picture.figure.axes
    assert [x for x, _ in seeds(skills)] == pytest.approx([0.5, 0.7, 0, 0])
    assert [bar.get_width() for bar in corpus.patches] == [1.5]
    known = before[before["skill"] != "corpus"]
    assert len(plot_meter({"run": known}, before=known, title="Meter").figure.axes) == 1


def test_pareto_and_map_tell_every_setting_and_its_seeds(points):
    picture = plot_pareto(points, before=1.0, title="Map")
    assert "fast 20 percent task 55%; fast 20 percent kept 55%" in picture.alt
    assert picture.alt.count("%") == 8, "a percentage for each number and no other"
    (ax,) = picture.figure.axes
    task = points["fast"]["20%"].task
    assert [task.low, task.high] in [list(line.get_xdata()) for line in ax.lines], "its interval"
    assert ax.get_xlim()[0] > 0.3, "where nothing was measured nothing is drawn"
    # 90 and 95% stand as far apart as 0 and 50% do, nearly.
    (_, low), (_, high), (_, zero), (_, half) = (
        ax.transData.transform((0.5, y)) for y in (0.9, 0.95, 0, 0.5)
    )
    assert 0.7 < (high - low) / (half - zero) < 1
    dashed = next(line for line in ax.lines if line.get_linestyle() == "--")
    assert list(dashed.get_xdata()) == [0.8, 0.9, 0.95], "the settings that no other beats"
    picture = plot_map(points, title="Map", rows="rate", columns="general")
    task, kept = picture.figure.axes
    assert texts(task) == ["90%", "80%", "95%", "55%"]
    assert texts(kept) == ["95%", "100%", "10%", "55%"]
    assert "slow 0 percent task 90%" in picture.alt
