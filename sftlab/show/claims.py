"""The card of a claim: one line and a small strip, with all that it rests on folded below.

B3  On a domain task fine-tuning beats prompting.      Supported  gain: +34 points (+28 to +41)
                at least +10 points
  |             :▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒ o  oo o ▒▒▒       dots: seeds
  |             :▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒  ----◆-----  ▒       line: the interval that decides
  0            +10           +20           +30         shaded: what the rule asks for
▸ Rule, parts and first expectation
"""

from typing import Any

from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

from sftlab.course import (
    ARTICLES,
    UNITS,
    Part,
    Record,
    in_unit,
    my_predictions,
    predicted,
    real_records,
)
from sftlab.measure import COMPUTED, NO_INTERVAL, Estimate, share
from sftlab.show.cards import Card, render
from sftlab.show.plots import Picture, plot_shares

DOTS = (17, 30)  # pixels from the top between which the seeds stand


def claim_card(record: Record) -> Card:
    """A claim with its verdict and effect; every seed and every part can be unfolded.

    An interval that was predicted in this kernel is marked on the strip of its part, and scored.
    A record on a real model that comes with the course is a second mark.
    """
    claim, deciding = record.claim, record.deciding
    parts = [_read(part, record) for part in claim.rule]
    first = next(part for part in parts if part["name"] == deciding.name)
    where = "" if record.profile == "tiny" else " on tiny"
    facts = [f"First expected: {claim.expected}. Last recorded{where}: {claim.baseline}."]
    facts += [f"{ARTICLES[letter]} ({letter})." for letter in claim.source]
    facts += [f"The article's figure: {claim.quoted}."] * bool(claim.quoted)
    facts += [record.note] * bool(record.note)
    lines = [
        f"{claim.id}  {claim.claim}",
        f"{record.verdict.capitalize()}. {first['name']}: {first['effect']}, {first['made']}",
        record.reason,
    ]
    for part in parts:
        lines.append("  {name}: {effect}, {verdict} ({asks})".format(**part))
        lines.append("    {measures}\n    {counts}: {seeds}".format(**part))
    said = [part["outcome"] for part in parts if part["outcome"]]
    said += [
        f"On {one.profile}: {one.verdict}. {one.deciding.name}: "
        f"{one.deciding.effect(one.estimate, len(claim.rule))}"
        for one in real_records().get(claim.id, ())
        if one.profile != record.profile
    ]
    values = {"record": record, "parts": parts, "first": first, "facts": facts, "said": said}
    return Card("claim.html", text="\n".join(lines + said + facts), **values)


def _read(part: Part, record: Record) -> dict[str, Any]:
    """All that the card says about one part."""
    estimate, count = record.estimates[part.name], len(record.claim.rule)
    runs, items = estimate.seeds, estimate.items
    effect = part.effect(estimate, count)
    seeds = ", ".join(in_unit(value, part.unit) for value in estimate.by_seed)
    tried = f"{runs} seed{'s' * (runs != 1)} × {items:,} item{'s' * (items != 1)}, "
    tried = "" if estimate.method == COMPUTED else tried
    made = "computed, not measured" if estimate.method == COMPUTED else f"on {record.profile}"
    alt = f"{effect}; seeds: {seeds}; the rule: {part.asks}"
    ends, outcome = predicted(record.claim.id, part, estimate.value)
    drawn = strip(part, estimate, count, ends)
    return {
        "name": part.name,
        "measures": part.measures,
        "verdict": record.judged(part),
        "effect": effect,
        "asks": part.asks,
        "made": made,
        "counts": f"{tried}{made}",
        "seeds": seeds,
        "outcome": outcome,
        "strip": Markup(render("strip.html", alt=alt, **drawn)),
    }


def strip(part: Part, estimate: Estimate, parts: int = 1, box: tuple = ()) -> dict[str, Any]:
    """Where seeds, interval, bound, ticks and predicted box stand, in percent of its width."""
    seeds = () if estimate.method == COMPUTED else estimate.by_seed
    within = part.kind == "within"
    bounds = (-part.bound, part.bound) if within else (part.bound,)
    _, ends = part.deciding(estimate, parts)
    ends = (estimate.value,) * 2 if estimate.method == NO_INTERVAL else ends
    # The axis spans all that was measured, bound and box, and zero for a difference.
    shown = [*ends, *seeds, *bounds, *box] + [0.0] * (part.unit not in ("share", "ratio"))
    low, high = min(shown), max(shown)
    least = 0.2 * max(abs(high), 1e-9)
    if "share" in part.unit:
        least = min(0.2, 3 * abs(part.bound) or 0.2)
    room = max(0.08 * (high - low), (least - (high - low)) / 2)
    edge = 0.02 * (high - low + 2 * room)  # a dot on the edge stays whole
    left = max(low - room, UNITS[part.unit][0] - edge)
    right = min(high + room, UNITS[part.unit][1] + edge)

    def at(value: float) -> float:
        return round(100 * (min(max(value, left), right) - left) / (right - left), 2)

    start, end = map(at, part.allowed)
    ticks = MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(left, right)
    step = (DOTS[1] - DOTS[0]) / max(len(seeds) - 1, 1)
    return {
        "part": part.name,  # these three are for the site, whose page marks a prediction itself
        "measured": estimate.value,
        "axis": f"{left} {right}",
        "seeds": [(at(x), round(DOTS[0] + n * step, 1)) for n, x in enumerate(seeds)],
        "value": at(estimate.value),
        "ends": [at(one) for one in ends],
        "box": [at(one) for one in box],
        "bounds": [at(one) for one in bounds],
        "holds": (start, round(end - start, 2)),
        "asks": part.asks,
        "ticks": [(at(x), in_unit(x, part.unit).split()[0]) for x in ticks if 3 < at(x) < 97],
        "zero": at(0) if left < 0 < right and part.unit != "share" else None,
    }


def plot_calibration() -> Picture | None:
    """How often your 80% intervals held the measured value: nothing before there are predictions
    in three lessons, which needs `sftlab progress on`."""
    lessons = {}
    for one in sorted(my_predictions(), key=lambda one: one.lesson):
        for name in (f"lesson {one.lesson[:2]}", "all lessons"):
            lessons.setdefault(name, []).append(not one.miss)
    if len(lessons) < 4:
        return None
    rows = {"all lessons": share(lessons.pop("all lessons"))}
    rows |= {name: share(held) for name, held in lessons.items()}
    title = "How often your 80% intervals held the measured value"
    drawn = plot_shares(rows, title=title, axis="intervals that held; dotted: 80%")
    drawn.figure.axes[0].axvline(0.8, color="black", linestyle=":", linewidth=1.2)
    return drawn
