"""Pictures of evaluations tell their numbers; ratings are blind, kept, and counted; the report."""

import json
import re

import pandas as pd
import pytest

from sftlab.measure import Components, Pair, PairError, mean
from sftlab.show.evaluation import plot_passes, plot_power, plot_two_measures
from sftlab.show.evaluation_page import evaluation_report
from sftlab.show.rating import Rating, read_votes, votes_sentence

PNG = b"\x89PNG"


def estimate(share):
    rows = [{"seed": s, "country": c, "right": n < share * 10}
            for s in range(2) for n, c in enumerate("abcdefghij")]  # fmt: skip
    return mean(pd.DataFrame(rows))


def png(picture):
    return picture._repr_mimebundle_()[0]["image/png"]


def test_passes_are_told_by_k():
    picture = plot_passes({"cold": {1: estimate(0.2), 10: estimate(0.3)}}, title="Code")
    assert picture.alt == "Code: cold k=1 20%; cold k=10 30%."
    assert png(picture).startswith(PNG)


def test_runs_are_dots_by_arm():
    runs = pd.DataFrame({"arm": ["a", "a", "b"], "cost": [2.0, 4.0, 30.0], "right": [1, 0.5, 0.1]})
    picture = plot_two_measures(runs, x="cost", y="right", title="Both", x_axis="x", y_axis="y",
                           threshold=15)  # fmt: skip
    assert picture.alt == "Both: a 3, right 75%; b 30, right 10%."
    assert png(picture).startswith(PNG)


def test_power_falls_with_seeds_and_entities():
    pilot = Components(seeds=0.002, entities=0.02, residual=0.1, paired=True)
    picture = plot_power(pilot, title="Power", seeds=[2, 10], entities=[10, 1000], wanted=0.05)
    told = {int(n): (int(a), int(b)) for n, a, b in re.findall(
        r"(\d+) seeds and 10 entities (\d+)%, 1000 entities (\d+)%", picture.alt)}  # fmt: skip
    assert told[2][0] > told[10][0] > told[10][1]
    assert png(picture).startswith(PNG)


PAIRS = [Pair(question=f"q{n}?", first=f"ours{n}", second=f"<b>{n}</b>") for n in range(6)]


def prefer_ours(widget):
    """Vote for ours, wherever it stands."""
    place = widget.place
    return 0.0 if f"ours{place}" in widget._right.value else 1.0


def test_nobody_rated_is_said(tmp_path):
    widget = Rating(PAIRS, votes=tmp_path / "votes.jsonl")
    assert "Nobody rated: 0 of 6" in votes_sentence(widget.path, PAIRS)
    assert not widget.path.exists()
    assert read_votes(widget.path, PAIRS).empty


def test_votes_are_blind_shuffled_kept_and_counted(tmp_path):
    path = tmp_path / "below" / "votes.jsonl"
    widget = Rating(PAIRS, votes=path, seed=1, ours="the run")
    shown, left = [], 0
    while widget.place is not None:
        shown.append(widget.place)
        assert "win" not in widget._said.value
        assert "<b>" not in widget._left.value + widget._right.value, "answers are escaped"
        left += f"ours{widget.place}" in widget._left.value
        if len(shown) == 3:  # another kernel goes on where the votes end
            widget = Rating(PAIRS, votes=path, seed=1, ours="the run")
            assert widget.place == shown[-1]
        widget.vote(prefer_ours(widget))
    assert sorted(shown) == list(range(6)) != shown
    assert left == 3, "half of ours stand on the left"
    votes = read_votes(path, PAIRS)
    assert list(votes["won"]) == [1] * 6
    assert sorted(votes["shown_first"]) == [0, 0, 0, 1, 1, 1]
    assert "6 of 6 pairs are rated: the run wins 100%" in votes_sentence(
        path, PAIRS, ours="the run"
    )
    assert all(button.disabled for button in widget.buttons.values())
    with pytest.raises(PairError, match="all pairs are rated"):
        widget.vote(1.0)
    assert len(path.read_text().splitlines()) == 6


def test_buttons_vote(tmp_path):
    widget = Rating(PAIRS[:2], votes=tmp_path / "votes.jsonl")
    widget.buttons["no difference"].click()
    assert list(read_votes(widget.path, PAIRS)["won"]) == [0.5]
    assert "too few" in votes_sentence(widget.path, PAIRS)


@pytest.mark.parametrize("line", ["{", '{"won": 1}', "[]"])
def test_broken_votes_are_named(tmp_path, line):
    path = tmp_path / "votes.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(PairError, match="line 1"):
        read_votes(path, PAIRS)
    path.write_text(json.dumps({"question": "q", "first": "", "second": "", "won": 7,
                                "swapped": False}))  # fmt: skip
    with pytest.raises(PairError, match="won is 7"):
        read_votes(path, PAIRS)


def test_mistakes_of_rating(tmp_path):
    with pytest.raises(PairError, match="no pair"):
        Rating([], votes=tmp_path / "v")
    with pytest.raises(PairError, match=r"1, 0\.5 or 0"):
        Rating(PAIRS, votes=tmp_path / "v").vote(0.7)


def test_report_is_one_page(tmp_path):
    made = evaluation_report(
        "A run", verdict="Ship it not.", scores={"right": estimate(0.8), "alone": estimate(0.5)},
        baselines={"base": {"right": estimate(0.4)}},
        segments={"good": estimate(0.9), "weak": estimate(0.2)}, losses=["Not measured: safety."],
        samples=[("Q?", "no|pe", "yes")], provenance={"seeds": "2"},
        pictures={"passes.png": plot_passes({"a": {1: estimate(0.2)}}, title="P")},
    )  # fmt: skip
    text = made.markdown
    assert text.index("Ship it not.") < text.index("| right | 80%") < text.index("| weak | 20%")
    assert text.index("| weak |") < text.index("| good |") < text.index("Not measured")
    assert "2 × 10" in text
    assert "no\\|pe" in text
    made.save(tmp_path)
    assert {one.name for one in tmp_path.iterdir()} == {"report.md", "report.html", "passes.png"}
    assert "<img" in (tmp_path / "report.html").read_text()
    with pytest.raises(ValueError, match="no scores"):
        evaluation_report("x", verdict="", scores={})
