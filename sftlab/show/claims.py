"""The card of a claim: what was measured, every seed of it, the rule, and the verdict.

B3  claim                                                  one line or two
Supported                              what is expected
reason
+---------------------------------------------------------+
| gain                       supported  +34 points (...)  |  a panel for each part
| what is measured               5 seeds x 150 items      |
|        : at least +10 points                            |
|        :::::::::o:o::o:::::::::::::::::::  every seed   |
|        :::::::::--O------:::::::::::::::::  interval    |
|  0     10        30       50  points                    |
+---------------------------------------------------------+
article (P): its figure            here: ours
"""

import textwrap
from collections.abc import Sequence

from matplotlib.figure import Figure

from sftlab.course import Record, in_unit
from sftlab.course import interval as in_words
from sftlab.measure import Estimate
from sftlab.show.claim_panel import (
    CHARACTERS,
    INK,
    LINE,
    MARGIN,
    SOFT,
    VERDICT_COLOURS,
    WIDTH,
    Panel,
    draw_panel,
    make_panel,
)
from sftlab.show.plots import Picture


def claim_card(record: Record) -> Picture:
    """A claim with all that was measured for it, every seed visible, and the verdict."""
    claim = record.claim
    title = textwrap.wrap(f"{claim.id}  {claim.claim}", CHARACTERS[11])
    reason = textwrap.wrap(record.reason, CHARACTERS[9])
    panels = [make_panel(part, record.estimates[part.name]) for part in claim.rule]
    foot = [line for text in _foot(record) for line in textwrap.wrap(text, CHARACTERS[9])]
    height = (
        2 * MARGIN
        + (len(title) + 1) * LINE[11]
        + (len(reason) + len(foot)) * LINE[9]
        + 2 * 0.04
        + sum(0.14 + panel.height for panel in panels)
    )
    figure = Figure(figsize=(WIDTH, height))
    write = _Writer(figure, height)
    write.lines(title, size=11, color=INK, weight="bold")
    write.down(0.04)
    write.text(f"expected: {claim.expected}", size=9, right=True, color=SOFT)
    colour = VERDICT_COLOURS[record.verdict]
    write.lines([record.verdict.capitalize()], size=11, color=colour, weight="bold")
    write.lines(reason, size=9, color=INK)
    for panel in panels:
        write.down(0.14)
        write.panel(panel, numbered=len(panels) > 1)
    write.down(0.04)
    write.lines(foot, size=9, color=SOFT)
    return Picture(figure, alt=_alt(record))


class _Writer:
    """Places things from top to bottom, in inches."""

    def __init__(self, figure: Figure, height: float) -> None:
        self.figure, self.height, self.at = figure, height, MARGIN

    def down(self, inches: float) -> None:
        self.at += inches

    def text(self, words: str, *, size: int, right: bool = False, **style) -> None:
        self.figure.text(
            (WIDTH - MARGIN) / WIDTH if right else MARGIN / WIDTH,
            1 - self.at / self.height,
            words, fontsize=size, ha="right" if right else "left", va="top", parse_math=False,
            **style,
        )  # fmt: skip

    def lines(self, lines: Sequence[str], *, size: int, **style) -> None:
        for line in lines:
            self.text(line, size=size, **style)
            self.down(LINE[size])

    def panel(self, panel: Panel, *, numbered: bool) -> None:
        part, estimate = panel.part, panel.estimate
        verdict = part.judge(estimate)
        self.text(part.name, size=9, color=INK, weight="bold")
        words = in_words(estimate, part.unit)
        self.text(
            f"{verdict}: {words}" if numbered else words,
            size=9, right=True, color=VERDICT_COLOURS[verdict],
        )  # fmt: skip
        self.down(LINE[9])
        self.text(_counts(estimate), size=9, right=True, color=SOFT)
        self.lines(panel.measures, size=9, color=SOFT)
        self.down(0.06)
        bottom = 1 - (self.at + panel.plot_height) / self.height
        ax = self.figure.add_axes(
            (0.03, bottom, 0.94, panel.plot_height / self.height)  # room for the outer ticks
        )
        draw_panel(ax, panel)
        self.at += panel.plot_height + 0.46  # the ticks and the unit under them


def _counts(estimate: Estimate) -> str:
    seeds = f"{estimate.seeds} seed{'s' * (estimate.seeds != 1)}"
    return f"{seeds} × {estimate.items:,} item{'s' * (estimate.items != 1)}"


def _foot(record: Record) -> list[str]:
    """The article's figure beside ours, and a note when there is one."""
    claim, part = record.claim, record.deciding
    here = f"here, {part.name}: {in_words(record.estimate, part.unit)}, on {record.profile}"
    letters = " ".join(claim.source)
    article = f"article ({letters}): {claim.quoted or 'no figure given'}"
    joined = f"{article}   |   {here}"
    lines = [joined] if len(joined) <= CHARACTERS[9] else [article, here]
    return [*lines, *([record.note] if record.note else [])]


def _alt(record: Record) -> str:
    told = []
    for part in record.claim.rule:
        estimate = record.estimates[part.name]
        seeds = ", ".join(in_unit(value, part.unit) for value in estimate.by_seed)
        told.append(
            f"{part.name}: {in_words(estimate, part.unit)}, {part.asks} asked for, "
            f"{part.judge(estimate)}; {_counts(estimate)}: {seeds}"
        )
    return (
        f"Claim {record.claim.id}: {record.claim.claim} {record.verdict.capitalize()}. "
        f"{'. '.join(told)}."
        + (f" The article says: {record.claim.quoted}." if record.claim.quoted else "")
    )
