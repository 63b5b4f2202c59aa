"""Intervals that are predicted before a run, what their claim's card makes of them, and the file."""

import re

import pytest

from sftlab.course import calibration, my_predictions, predict, predictions, record
from sftlab.measure import Estimate
from sftlab.show import claim_card, plot_calibration


@pytest.fixture(autouse=True)
def new_kernel(monkeypatch, tmp_path):
    """Nothing predicted, nothing measured; returns the folder of progress, where nothing is on."""
    monkeypatch.setenv("SFTLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SFTLAB_PROGRESS", str(tmp_path / "progress"))
    monkeypatch.setattr(predictions, "MADE", {})
    monkeypatch.setattr(predictions, "MEASURED", set())
    return tmp_path / "progress"


def opt_in(folder):
    folder.mkdir()
    (folder / "on").touch()


def measured(claim_id, *values):
    """A record whose parts have these values."""
    made = {}
    for part, value in zip(predictions.claims()[claim_id].rule, values, strict=True):
        low, high = value - 0.01, value + 0.01
        counts = {"seeds": 2, "items": 9, "entities": 9, "by_seed": (low, high), "method": "typed"}
        ends = {"low": low, "high": high, "inner": (low, high), "wider": ((low, high),) * 4}
        made[part.name] = Estimate(value=value, **counts, **ends)
    return record(claim_id, made, profile="tiny")


def test_a_lesson_as_committed_predicts_nothing_and_its_card_is_the_same():
    assert predict("B3", low=..., high=...) is None
    card = claim_card(measured("B3", 0.34))
    assert "dashed" not in card.html
    assert "Your" not in card.text
    assert my_predictions() == []
    assert plot_calibration() is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"claim_id": "B33"}, "no claim 'B33'"),
        ({"part": "loss"}, r"B3 has no part 'loss'; its parts are \['gain'\]"),
        ({"low": 0.1}, "give both low and high"),
        ({"low": 60, "high": 90}, r"from -1 to 1 \(60% is 0.6\).*; got 60 and 90"),
        ({"low": 0.5, "high": 0.2}, "low not above high"),
        ({"low": "a", "high": 0.2}, "must be numbers"),
        ({"low": 0.2, "high": float("nan")}, "must be numbers"),
        ({"claim_id": "B1", "low": -0.1, "high": 0.2}, "part 'continued', unit share: .* 0 to 1"),
    ],
)
def test_what_is_no_prediction_is_refused(given, said):
    with pytest.raises(ValueError, match=said):
        predict(**{"claim_id": "B3"} | given)
    assert predictions.MADE == {}


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.2, 0.4, "+34 points lies in it. Its width is 20 points, its interval score 20 points"),
        (0.34, 0.34, "lies in it. Its width is 0 points, its interval score 0 points"),
        (0.4, 0.5, "lies 6 points below it. Its width is 10 points, its interval score 70 points"),
        (-0.1, 0.3, "lies 4 points above it. Its width is 40 points, its interval score 80 points"),
    ],
)
def test_the_card_marks_and_scores_the_interval(low, high, said):
    assert "B3, gain: " in repr(predict("B3", low, high))
    card = claim_card(measured("B3", 0.34))
    assert said in card.text
    assert said in card.html
    (x, width) = map(
        float, re.search(r'class="predicted" x="(.+?)%" width="(.+?)%"', card.html)[1:]
    )
    value = float(re.search(r'class="value" cx="(.+?)%"', card.html)[1])
    assert (x <= value + 0.01 and value <= x + width + 0.01) is ("lies in it" in said)


def test_a_prediction_belongs_to_one_part():
    predict("B1", 0.0, 0.1, part="answered")
    card = claim_card(measured("B1", 0.8, 0.05))
    assert card.text.count("Your 80% interval for answered") == 1
    assert "interval for continued" not in card.text


def test_after_the_measurement_nothing_is_predicted():
    first = predict("B3", 0.0, 0.9)
    assert predict("B3", 0.1, 0.2) != first  # changed in time
    measured("B3", 0.34)
    assert (predict("B3", 0.1, 0.2).measured, my_predictions()[0].high) == (0.34, 0.2)
    measured("B3", 0.15)  # run again
    assert my_predictions()[0].measured == 0.34
    measured("B4", 0.1)
    for claim_id in ("B3", "B4"):
        with pytest.raises(ValueError, match="was measured in this kernel already"):
            predict(claim_id, 0.3, 0.4)


def test_they_are_kept_for_the_next_lesson_after_opting_in_alone(new_kernel, monkeypatch):
    def lesson(claim_id, *values):
        predict(claim_id, 0.3, 0.4)
        measured(claim_id, *values)
        predictions.MADE.clear()  # another kernel
        predictions.MEASURED.clear()
        return len(my_predictions())

    assert lesson("B3", 0.34) == 0
    opt_in(new_kernel)
    assert [lesson("B3", 0.34), lesson("B3", 0.9), lesson("B4", 0.9)] == [1, 1, 2]
    assert [one.measured for one in my_predictions() if one.claim == "B3"] == [0.34]
    assert plot_calibration() is None
    others = {}
    for claim in predictions.claims().values():
        if claim.notebook[0] == "0" and len(claim.rule) == 1 and claim.rule[0].unit == "share":
            others[claim.notebook] = claim.id
    others.pop("01_base_model_problem", None)
    for claim_id in [*others.values()][:2]:
        lesson(claim_id, 0.35)
    assert re.search(r"all lessons 75%; lesson 01 50%; lesson", plot_calibration().alt)
    assert calibration(my_predictions()).startswith("3 of 4 intervals of 80% held")
    (new_kernel / "progress.jsonl").write_bytes(b"\xff\xfe\n{}")
    assert my_predictions() == []
    monkeypatch.setenv("SFTLAB_PROGRESS", str(new_kernel / "progress.jsonl"))
    assert my_predictions() == []


@pytest.mark.parametrize(
    ("held", "missed", "reading"),
    [(9, 1, "compatible"), (2, 8, "too narrow"), (60, 0, "too wide")],
)
def test_calibration_is_read_with_its_interval(held, missed, reading):
    places = [(0.35, held), (0.9, missed)]
    line = {"claim": "B3", "part": "gain", "lesson": "01", "low": 0.3, "high": 0.4}
    made = [predictions.Prediction(**line, measured=value) for value, n in places for _ in range(n)]
    assert reading in calibration(made)
