"""The card of a claim: what was measured, every seed of it, the rule, and the verdict.

B3  claim
Supported                            what is expected
reason
-----------------------------------------------------  for each part of the rule:
gain                          +34 points (+28 to +41)  its effect
what is measured                  5 seeds × 150 items
        :::::::::o:o::o:::::::::::::::::::             every seed
        :::::::::--O------:::::::::::::::::            mean and interval
 0     10        30       50                           shaded: where the rule holds
-----------------------------------------------------
article (P): its number
here: ours
"""

from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from sftlab.course import UNITS, Part, Record, in_unit, interval
from sftlab.measure import Estimate
from sftlab.show.cards import Card
from sftlab.show.plots import COLOURS, Picture, seed_dots, styled

# Read on a light and on a dark card alike (contrast 4 to 1 on both).
_AXIS = "#767e87"
_LEAST_RANGE = {"share": 0.2, "difference of shares": 0.2}


def claim_card(record: Record) -> Card:
    """A claim with all that was measured for it, every seed visible, and the verdict."""
    claim, deciding = record.claim, record.deciding
    parts = [_read(part, record.estimates[part.name]) for part in claim.rule]
    foot = [
        f"article ({' '.join(claim.source)}): {claim.quoted or 'no number given'}",
        f"here, {deciding.name}: {interval(record.estimate, deciding.unit)}, on {record.profile}",
        *([record.note] if record.note else []),
    ]
    lines = [
        f"{claim.id}  {claim.claim}",
        f"{record.verdict.capitalize()} (expected: {claim.expected}). {record.reason}",
    ]
    for part in parts:
        lines.append(f"  {part['name']}: {part['effect']}, {part['verdict']} ({part['asks']})")
        lines.append(f"    {part['measures']}")
        lines.append(f"    {part['counts']}: {part['seeds']}")
    return Card("claim.html", text="\n".join(lines + foot), record=record, parts=parts, foot=foot)


def _read(part: Part, estimate: Estimate) -> dict[str, Any]:
    """All that the card says about one part."""
    counts = f"{estimate.seeds} seed{'s' * (estimate.seeds != 1)} × {estimate.items:,} item"
    units = {"difference of shares": "difference, percentage points"}
    line = "thick line: two one-sided tests" if part.kind == "within" else "line: interval"
    said = {
        "name": part.name,
        "measures": part.measures,
        "verdict": part.judge(estimate),
        "effect": interval(estimate, part.unit),
        "asks": part.asks,
        "counts": counts + "s" * (estimate.items != 1),
        "seeds": ", ".join(in_unit(value, part.unit) for value in estimate.by_seed),
        "axis": f"{units.get(part.unit, part.unit)} (dots: seeds; {line})",
    }
    alt = f"{said['effect']}; seeds: {said['seeds']}; the rule: {part.asks}"
    return said | {"strip": Markup(Picture(_draw(part, estimate), alt=alt).html)}


@styled
def _draw(part: Part, estimate: Estimate) -> Figure:
    """Seeds, mean and interval over the side of the rule, without a ground of its own."""
    seeds = estimate.by_seed
    rows = [1 + min(1, 6 / len(seeds)) * n for n in range(len(seeds))]  # all of them visible
    figure = Figure(figsize=(7.0, 0.5 + 0.09 * max(rows)), layout="constrained", facecolor="none")
    ax = figure.add_subplot(facecolor="none")
    left, right = _limits(part, estimate)
    ends = {
        "at_least": (part.bound, right),
        "at_most": (left, part.bound),
        "within": (-part.bound, part.bound),
    }[part.kind]
    ax.axvspan(*ends, color=COLOURS[2], alpha=0.18, linewidth=0, zorder=0)
    for line in ends if part.kind == "within" else (part.bound,):
        ax.axvline(line, color=COLOURS[2], linewidth=1.4, linestyle=(0, (4, 2)), gid="bound")
    if left < 0 < right and part.unit != "share":
        ax.axvline(0, color=_AXIS, linewidth=0.8)
    thin = {"color": COLOURS[4], "solid_capstyle": "butt"}
    ax.plot([estimate.low, estimate.high], [0, 0], linewidth=1.8, gid="interval", **thin)
    if part.kind == "within":  # the interval that decides
        ax.plot(estimate.inner, [0, 0], linewidth=4.5, gid="inner", **thin)
    ax.plot(estimate.value, 0, "D", color=COLOURS[0], markersize=6, markeredgecolor="white")
    seed_dots(ax, seeds, rows, COLOURS[0], size=20)
    ax.set(xlim=(left, right), ylim=(-0.9, max(rows) + 0.9), yticks=[])
    ax.spines["left"].set_visible(False)
    ax.spines["bottom"].set_color(_AXIS)
    ax.tick_params(colors=_AXIS, length=3)
    ax.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
    number = FuncFormatter(lambda value, _: in_unit(value, part.unit).partition(" ")[0])
    ax.xaxis.set_major_formatter(number)
    return figure


def _limits(part: Part, estimate: Estimate) -> tuple[float, float]:
    """What the axis spans: all that was measured, the bound, and zero for a difference."""
    shown = [estimate.low, estimate.high, *estimate.inner, *estimate.by_seed, part.bound]
    if part.kind == "within":
        shown.append(-part.bound)
    if part.unit not in ("share", "ratio"):
        shown.append(0.0)
    low, high = min(shown), max(shown)
    least = _LEAST_RANGE.get(part.unit, 0.2 * max(abs(high), 1e-9))
    room = max(0.08 * (high - low), (least - (high - low)) / 2)
    edge = 0.02 * (high - low + 2 * room)  # a dot on the edge stays whole
    lowest, highest = UNITS[part.unit]
    return max(low - room, lowest - edge), min(high + room, highest + edge)
