"""Intervals that are predicted before a run, and what their claim's card makes of them."""

import re

import pytest

from sftlab.course import calibration, claims, my_predictions, predict, predictions, record
from sftlab.measure import Estimate
from sftlab.show import claim_card, plot_calibration


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    """A new kernel, and the folder of progress, where nothing is on."""
    monkeypatch.setenv("SFTLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SFTLAB_PROGRESS", str(tmp_path / "progress"))
    monkeypatch.setattr(predictions, "MADE", {})
    monkeypatch.setattr(predictions, "MEASURED", set())
    return tmp_path / "progress"


def measured(claim_id, value):
    """A record each part of which has this value."""
    low, high = value - 0.01, value + 0.01
    made = {"seeds": 2, "items": 9, "entities": 9, "by_seed": (low, high), "method": "typed"}
    made |= {"low": low, "high": high, "inner": (low, high), "wider": ((low, high),) * 4}
    parts = {part.name: Estimate(value=value, **made) for part in claims()[claim_id].rule}
    return record(claim_id, parts, profile="tiny")


def test_a_lesson_as_committed_predicts_nothing():
    assert predict("B3", low=..., high=...) is None
    card = claim_card(measured("B3", 0.34))
    assert "predict" not in card.text + card.html.partition("</style>")[2]
    assert (my_predictions(), plot_calibration()) == ([], None)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"claim_id": "B33"}, "no claim 'B33'"),
        ({"part": "loss"}, r"B3 has no part 'loss'; its parts are \['gain'\]"),
        ({"low": 0.1}, "give both low and high"),
        ({"low": 60, "high": 90}, r"from -1 to 1 \(60% is 0.6\).*; got 60 and 90"),
        ({"low": 0.5, "high": 0.2}, "low not above high"),
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
        (0.4, 0.5, "lies 6 points below it. Its width is 10 points, its interval score 70 points"),
        (-0.1, 0.3, "lies 4 points above it. Its width is 40 points, its interval score 80 points"),
    ],
)
def test_the_card_marks_and_scores_the_interval_of_its_part(low, high, said):
    predict("B1", 0.0, 0.1, part="answered")
    assert re.findall(r"interval for (\w+)", claim_card(measured("B1", 0.05)).text) == ["answered"]
    assert "B3, gain: " in repr(predict("B3", low, high))
    card = claim_card(measured("B3", 0.34))
    assert said in card.text
    assert said in card.html
    x, width = map(float, re.findall(r'class="predicted" x="(.+?)%" width="(.+?)%"', card.html)[0])
    value = float(re.search(r'class="value" cx="(.+?)%"', card.html)[1])
    assert (x <= value <= x + width) is ("lies in it" in said)


def test_after_the_measurement_nothing_is_predicted():
    assert predict("B3", 0.0, 0.9) != predict("B3", 0.1, 0.2)  # changed in time
    for value in (0.34, 0.15):  # the lesson is run twice
        measured("B3", value)
        assert predict("B3", 0.1, 0.2).measured == my_predictions()[0].measured == 0.34
    measured("B4", 0.1)
    for claim_id in ("B3", "B4"):
        with pytest.raises(ValueError, match="was measured in this kernel already"):
            predict(claim_id, 0.3, 0.4)


def test_they_are_kept_for_the_next_lesson_after_opting_in_alone(folder):
    def lesson(claim_id, value):
        predict(claim_id, 0.3, 0.4)
        measured(claim_id, value)
        predictions.MADE.clear()  # another kernel
        predictions.MEASURED.clear()
        return len(my_predictions())

    assert lesson("B3", 0.34) == 0
    folder.mkdir()
    (folder / "on").touch()
    # Of two predictions of one claim the first counts.
    assert [lesson("B3", 0.9), lesson("B3", 0.34), lesson("D1", 0.35)] == [1, 1, 2]
    assert plot_calibration() is None
    assert lesson("T1", 0.35) == 3
    alt = plot_calibration().alt
    assert "all lessons 67%; lesson 01 0%; lesson 03 100%; lesson 04 100%" in alt
    assert calibration(my_predictions()).startswith("2 of 3 intervals of 80% held")
    (folder / "progress.jsonl").write_bytes(b"\xff\xfe\n{}")
    assert my_predictions() == []


@pytest.mark.parametrize(
    ("held", "missed", "reading"), [(9, 1, "compatible"), (2, 8, "too narrow"), (60, 0, "too wide")]
)
def test_calibration_is_read_with_its_interval(held, missed, reading):
    line = {"claim": "B3", "part": "gain", "lesson": "01", "low": 0.3, "high": 0.4}
    values = [0.35] * held + [0.9] * missed
    assert reading in calibration(predictions.Prediction(**line, measured=x) for x in values)
