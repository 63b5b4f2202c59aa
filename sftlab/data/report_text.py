"""A report as a learner reads it: the counts first, then the problems by kind."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sftlab.data.problems import Problem

if TYPE_CHECKING:
    from sftlab.data.report import Report

SHOWN = 6


def written(report: "Report") -> str:
    """The lines of a report.

    data.jsonl: 1,204 rows, 1,190 good, 14 bad
    shapes       messages 1,100, alpaca 104
    good rows    3,412 messages, 812,332 characters

    12 x the content is empty
         write a text, or drop the message or the row
         line 17    messages[1].content   ''
    """
    return "\n".join([*_counts(report), *_problems(report)])


def _counts(report: "Report") -> list[str]:
    split = "all good" if report.ok else f"{report.good:,} good, {report.bad:,} bad"
    lines = [f"{report.file}: {_number(report.rows, 'row')}, {split}"]
    good = f"{_number(report.messages, 'message')}, {_number(report.characters, 'character')}"
    table = {
        "shapes": _listed(report.shapes),
        "good rows": good if report.good else "",
        "meta": _listed(report.meta),
        "left out": _listed(report.left_out),
        "blank lines": f"{report.blank_lines:,}, skipped" if report.blank_lines else "",
    }
    lines += [f"{name:<12} {value}" for name, value in table.items() if value]
    lines += [f"{'note':<12} {note}" for note in report.notes]
    if report.stopped_at is not None:
        lines.append(f"{'stopped':<12} at line {report.stopped_at:,}: what follows was not checked")
    return lines


def _problems(report: "Report") -> list[str]:
    lines: list[str] = []
    for what, times in report.kinds.most_common():
        held = [problem for problem in report.problems if problem.what == what]
        lines += ["", f"{times:,} x {what}"]
        if held:
            lines.append(f"     {held[0].remedy}")
            lines += _places(held)
        if times > len(held):
            lines.append(f"     {times - len(held):,} more, not shown")
    if report.problems_total > len(report.problems):
        lines += ["", f"--limit {report.problems_total} shows all problems"]
    return lines


def _places(problems: list[Problem]) -> list[str]:
    rows = [(p.place, p.field, p.value or "") for p in problems]
    widths = [min(30, max(len(row[column]) for row in rows)) for column in (0, 1)]
    return [
        f"     {place:<{widths[0]}}  {field:<{widths[1]}}  {value}".rstrip()
        for place, field, value in rows
        if place or field or value
    ]


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' * (count != 1)}"


def _listed(counts: Mapping[str, int]) -> str:
    names = [f"{name} {times:,}" for name, times in counts.most_common(SHOWN)]
    more = len(counts) - len(names)
    return ", ".join(names) + (f", and {more} more" if more > 0 else "")
