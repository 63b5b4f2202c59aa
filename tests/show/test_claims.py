"""The claim card, measured as drawn: everything is there, and nothing hides anything."""

from itertools import combinations

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from sftlab.course import Record, claims
from sftlab.measure import Estimate
from sftlab.show.claim_panel import DOT
from sftlab.show.claims import claim_card


def make_record(claim_id, *estimates, note=""):
    """A record from (value, low, high, by_seed) for each part."""
    claim = claims()[claim_id]
    made = {
        part.name: Estimate(
            value=value, low=low, high=high, level=claim.level, inner=(low, high), items=1200,
            seeds=len(by_seed), entities=40, by_seed=by_seed, method="cluster bootstrap",
        )
        for part, (value, low, high, by_seed) in zip(claim.rule, estimates, strict=True)
    }  # fmt: skip
    return Record(claim=claim, estimates=made, profile="tiny", notebook=claim.notebook, note=note)


CASES = {
    "one": lambda: make_record("B3", (0.34, 0.28, 0.41, (0.3, 0.32, 0.34, 0.36, 0.38))),
    "three": lambda: make_record(
        "B5",
        (0.99, 0.97, 1, (1, 1, 0.98, 0.99, 1)),
        (0.47, 0.38, 0.56, (0.4, 0.41, 0.5, 0.52, 0.5)),
        (0.02, 0, 0.05, (0.02, 0, 0.05, 0.01, 0.02)),
    ),
    "saturated": lambda: make_record("B7", (1, 0.97, 1, (1.0,) * 10)),
    "nats": lambda: make_record("X1", (0.0004, -0.001, 0.003, (-0.0009, 0.001, 0.0011))),
    "sameness": lambda: make_record(
        "T2", (0.01, -0.03, 0.04, (-0.02, 0.01, 0.03)), (-0.02, -0.06, 0.02, (-0.05, 0, 0.01))
    ),
    "far from sameness": lambda: make_record(
        "E8",
        (0.81, 0.64, 0.91, (0.81,)),
        (-0.01, -0.024, 0.001, (-0.01,)),
        (-0.52, -0.73, -0.17, (-0.52,)),
    ),
    "long": lambda: make_record(
        "L5", (0.1, 0.1, 0.1, (0.1,)), (5.5, 5, 6, (5.5,)), (13, 12.9, 14, (13.0,)), note="n " * 150
    ),
    "ratio": lambda: make_record("R6", (0.41, 0.41, 0.41, (0.41, 0.41)), (1.3, 1.2, 1.4, (1.3,))),
    "correlation": lambda: make_record("R12", (0.7, 0.4, 0.9, (0.7,)), (0.3, -0.1, 0.5, (0.3,))),
}


@pytest.fixture(params=CASES, scope="module")
def drawn(request):
    record = CASES[request.param]()
    picture = claim_card(record)
    canvas = FigureCanvasAgg(picture.figure)
    canvas.draw()
    return record, picture, canvas.get_renderer()


def lines(axes, gid):
    return [line for line in axes.lines if line.get_gid() == gid]


def test_every_seed_is_drawn_and_none_hides_another(drawn):
    record, picture, renderer = drawn
    dots = renderer.points_to_pixels(DOT)
    for axes, part in zip(picture.figure.axes, record.claim.rule, strict=True):
        (seeds,) = lines(axes, "seeds")
        assert tuple(seeds.get_xdata()) == record.estimates[part.name].by_seed
        places = axes.transData.transform(seeds.get_xydata())
        box = axes.get_window_extent(renderer)
        assert all(box.x0 <= x <= box.x1 and box.y0 <= y <= box.y1 for x, y in places)
        for one, other in combinations(places, 2):
            assert sum((one - other) ** 2) ** 0.5 >= dots


def test_interval_rule_and_unit_are_on_each_panel(drawn):
    record, picture, _ = drawn
    for axes, part in zip(picture.figure.axes, record.claim.rule, strict=True):
        (interval,) = lines(axes, "interval")
        estimate = record.estimates[part.name]
        assert list(interval.get_xdata()) == [estimate.low, estimate.high]
        left, right = axes.get_xlim()
        assert left <= estimate.low <= estimate.high <= right
        assert left <= part.bound <= right
        assert part.asks in [text.get_text() for text in axes.texts]
        assert len(lines(axes, "inner")) == (part.kind == "within")
        assert part.unit.split()[0] in axes.get_xlabel()


def test_no_words_overlap_or_leave_the_card(drawn):
    _, picture, renderer = drawn
    texts = list(picture.figure.texts)
    for axes in picture.figure.axes:
        left, right = axes.get_xlim()
        ticks = zip(axes.get_xticklabels(), axes.get_xticks(), strict=True)
        texts += [label for label, at in ticks if left <= at <= right]
        texts += [*axes.texts, axes.xaxis.label]
    boxes = [(t.get_text(), t.get_window_extent(renderer)) for t in texts if t.get_text()]
    for (one, first), (other, second) in combinations(boxes, 2):
        assert not first.padded(-1).overlaps(second.padded(-1)), (one, other)
    width, height = picture.figure.bbox.size
    for text, box in boxes:
        assert box.x0 >= 0, text
        assert box.x1 <= width, text
        assert box.y0 >= 0, text
        assert box.y1 <= height, text


def test_the_rule_in_words_crosses_none_of_its_lines(drawn):
    record, picture, renderer = drawn
    for axes, part in zip(picture.figure.axes, record.claim.rule, strict=True):
        (words,) = [text for text in axes.texts if text.get_text() == part.asks]
        box = words.get_window_extent(renderer)
        ends = (part.bound, -part.bound) if part.kind == "within" else (part.bound,)
        for end in ends:
            place = axes.transData.transform((end, 0))[0]
            assert not box.x0 < place < box.x1, (part.asks, end)


def test_words_of_the_card_and_of_its_alt():
    record = CASES["one"]()
    picture = claim_card(record)
    words = "\n".join(text.get_text() for text in picture.figure.texts)
    effect, seeds = "+34 points (+28 to +41)", "5 seeds × 1,200 items"
    for said in (record.claim.claim, "Supported", "expected: supported", effect, seeds, "25-40%"):
        assert said in words
    every_seed = "+30 points, +32 points, +34 points, +36 points, +38 points"
    for said in ("Claim B3", "Supported", effect, every_seed, "at least +10 points", "25-40%"):
        assert said in picture.alt
    data, options = picture._repr_mimebundle_()
    assert data["text/plain"] == picture.alt
    assert options["image/png"]["width"] == 720
    assert data["image/png"].startswith(b"\x89PNG")


def test_all_parts_stand_on_the_card_under_their_names():
    record = CASES["three"]()
    words = [text.get_text() for text in claim_card(record).figure.texts]
    for part in record.claim.rule:
        assert part.name in words
        assert part.name in claim_card(record).alt
    assert any(word.startswith("inconclusive: +47 points") for word in words)
