"""The checklist of a data set in one table, and when a line of it is an alarm."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from sftlab.data import quality
from sftlab.data.duplicates import exact_duplicates, near_duplicates
from sftlab.data.leakage import leaks
from sftlab.data.privacy import KINDS, find_pii, listed
from sftlab.data.rows import Key, Row, RowsError, checked, part_of

COLUMNS = ["aspect", "measured", "value", "reading"]
Line = tuple[str, str, float | None, str]


def checklist(
    rows: Iterable[Row],
    *,
    cover: Mapping[str, Key] | None = None,
    label: Key | None = None,
    checker: Callable[[Row], bool | None] | None = None,
    unsafe: Callable[[Row], bool] | None = None,
    names: Iterable[str] = (),
    test: Iterable[Row] | None = None,
    group: Key | None = None,
    threshold: float = 0.8,
    tokenizer: Any = None,
) -> pd.DataFrame:
    """One line for each thing measured: aspect, measured, value, and a plain reading.

    Every aspect has a line. What needs something that was not given has no value, and says what
    to give.

    Args:
        cover: what the rows should cover, by name: {"country": "country", "wording": function}.
        label: the class of a row, whose balance counts.
        checker: whether a row's answer is right, by known truth; None where it can't say.
        unsafe: whether a row must not be learned.
        names: names of people to look for.
        test: the rows of the test split, to look for leaks.
        group: the entity that a row is about, for leaks.
        threshold: the Jaccard index from which two rows are near-duplicates.
        tokenizer: to give lengths in tokens too.
    """
    rows, names = checked(rows), listed(names)
    test = None if test is None else checked(test, name="test")
    lines = [
        *_form(rows, tokenizer),
        *_spread(rows, cover or {}, label),
        *_truth(rows, checker, unsafe),
        *_copies(rows, threshold, names, test, group),
    ]
    return pd.DataFrame(lines, columns=COLUMNS)


def _missing(aspect: str, measured: str, give: str) -> Line:
    return aspect, measured, None, f"not measured: give {give}"


def _of(count: int, rows: list[Row], *, none: str, some: str) -> str:
    return none if not count else f"{count} of {len(rows)} rows ({count / len(rows):.1%}): {some}"


def _form(rows: list[Row], tokenizer: Any) -> Iterator[Line]:
    table = quality.lengths(rows, tokenizer=tokenizer)
    for unit in ("words", "tokens") if tokenizer is not None else ("words",):
        one = table.loc["answer", unit]
        reading = f"answers have {one['least']:.0f} to {one['most']:.0f} {unit}, 95% at most "
        reading += f"{one['p95']:.0f}: the model will answer at such lengths"
        yield "length", f"median {unit} of an answer", one["median"], reading
    if tokenizer is None:
        yield _missing("length", "tokens of a conversation", "`tokenizer`")
    else:
        most = table.loc[("conversation", "tokens"), "most"]
        reading = "with its template it must fit the model's context"
        yield "length", "tokens of the longest row", most, reading
    forms = quality.formats(rows)
    reading = "every row has the same form"
    if len(forms) > 1:
        share = forms["share"][0]
        reading = f"the commonest form has {share:.1%} of the rows: the model learns the mix"
    yield "format", "formats of a row", len(forms), reading
    marked = int(forms.loc[forms["markers"] != "", "rows"].sum())
    some = "a template would write its marks a second time"
    reading = _of(marked, rows, none="no row has one", some=some)
    yield "format", "rows with marks of a chat format", marked, reading


def _spread(rows: list[Row], cover: Mapping[str, Key], label: Key | None) -> Iterator[Line]:
    for name, key in cover.items():
        counts = quality.count_values(rows, key)
        most, least = max(counts.values()), min(counts.values())
        times = f"{least} to {most}" if most > least else str(most)
        yield "coverage", f"different values of {name}", len(counts), f"each comes {times} times"
    if not cover:
        measured = "different entities, relations, wordings"
        yield _missing("coverage", measured, "`cover`, names with keys")
    if label is None:
        yield _missing("balance", "the largest class over the smallest", "`label`")
    else:
        counts = quality.count_values(rows, label)
        (most, *_), (*_, least) = counts, counts
        ratio = counts[most] / counts[least]
        reading = "there is one class" if len(counts) == 1 else f"{len(counts)} classes, evenly"
        if ratio > 1:
            reading = f"{most!r} has {counts[most]} rows, {least!r} {counts[least]}: outputs lean "
            reading += "to what is frequent"
        yield "balance", "the largest class over the smallest", ratio, reading
    for part in ("prompt", "answer"):
        value, reading = quality.distinct(rows, part=part), "no text has two words"
        if value == value:
            reading = f"{value:.0%} of the pairs of words are different ones; compare with a set "
            reading += "of as many rows only"
        yield "diversity", f"distinct-2 of {part}s", None if value != value else value, reading


def _truth(rows: list[Row], checker: Any, unsafe: Any) -> Iterator[Line]:
    if checker is None:
        yield _missing("correctness", "share of right answers", "`checker`")
    else:
        verdicts = [checker(row) for row in rows]
        judged = [bool(verdict) for verdict in verdicts if verdict is not None]
        share = sum(judged) / len(judged) if judged else None
        reading = f"{sum(judged)} of {len(judged)} answers agree with the truth"
        if unknown := len(verdicts) - len(judged):
            reading += f"; {unknown} can't be judged"
        yield "correctness", "share of right answers", share, reading
    found, reading = quality.contradictions(rows), "no prompt has two answers"
    for prompt, answers in list(found.items())[:1]:
        reading = f"such as {prompt[:60]!r}, with {len(answers)} answers"
    yield "consistency", "prompts with several answers", len(found), reading
    measured = "rows that must not be learned"
    if unsafe is None:
        yield _missing("safety", measured, "`unsafe`, a function of the row")
    else:
        count = sum(bool(unsafe(row)) for row in rows)
        reading = _of(count, rows, none="none is flagged", some="read them, then drop them")
        yield "safety", measured, count, reading
    count = sum(bool(quality.REFUSALS.search(part_of(row, "answer")[:120])) for row in rows)
    none = "none refuses, so refusing is not taught"
    yield (
        "safety",
        "answers that refuse",
        count,
        _of(count, rows, none=none, some="refusing is taught"),
    )


def _copies(
    rows: list[Row], threshold: float, names: Sequence[str], test: list[Row] | None, group: Any
) -> Iterator[Line]:
    count, some = len(exact_duplicates(rows, normalised=True)), "they weigh more than once"
    reading = _of(count, rows, none="no row comes twice", some=some)
    yield "deduplication", "exact repeats", count, reading
    count, some = (
        len(near_duplicates(rows, threshold=threshold)),
        f"{some}; read them before you drop them",
    )
    reading = _of(count, rows, none="no row is nearly another", some=some)
    measured = f"near repeats (Jaccard {threshold:g} and more, exact ones too)"
    yield "deduplication", measured, count, reading
    kinds = [finding.kind for finding in find_pii(rows, names=names)]
    reading = ", ".join(f"{kinds.count(kind)} {kind}" for kind in KINDS if kind in kinds)
    looked = "" if names else "; names were not looked for: give `names`"
    reading = f"{reading or 'none found'}{looked} (privacy.LIMITS)"
    yield "privacy", "pieces of personal data", len(kinds), reading
    measured = "test rows that also stand in train"
    if test is None:
        yield _missing("leakage", measured, "`test`, the rows of that split")
        return
    found = leaks(rows, test, group=group)
    by_kind = found.groupby("kind")["test"].nunique().items()
    some = ", ".join(f"{number} by {kind}" for kind, number in by_kind)
    count, some = found["test"].nunique(), f"{some}; the score would measure memory"
    yield "leakage", measured, count, _of(count, test, none="none does", some=some)


class Limit(NamedTuple):
    """What a measured value of the checklist may be."""

    aspect: str
    measured: str  # how the line's `measured` begins
    least: float | None = None  # below this it is an alarm
    most: float | None = None  # above this it is an alarm


LIMITS = (
    Limit("length", "tokens of the longest row", most=128),
    Limit("format", "rows with marks", most=0),
    Limit("coverage", "different values of relation", least=4),
    Limit("balance", "the largest class", most=3),
    Limit("diversity", "distinct-2 of prompts", least=0.3),
    Limit("correctness", "share of right answers", least=0.99),
    Limit("consistency", "prompts with several answers", most=0),
    Limit("safety", "rows that must not be learned", most=0),
    Limit("deduplication", "exact repeats", most=0),
    Limit("privacy", "pieces of personal data", most=0),
    Limit("leakage", "test rows that also stand in train", most=0),
)
"""One for each aspect, for short questions and answers such as the country questions."""


def alarms(checks: pd.DataFrame, *, limits: Sequence[Limit] = LIMITS) -> pd.DataFrame:
    """The checklist's lines that have a limit, with `alarm`: whether the value is beyond it.

    Raises RowsError for a limit whose line is not there, or was not measured.
    """
    lines, found = checks.to_dict("records"), []
    for aspect, measured, least, most in limits:
        own = [
            line for line in lines
            if line["aspect"] == aspect and line["measured"].startswith(measured)
        ]  # fmt: skip
        if all(pd.isna(line["value"]) for line in own):
            raise RowsError(
                f"{aspect}: {measured!r} is not measured: give `checklist` what its reading names, "
                "or leave that limit out"
            )
        value = float(own[0]["value"])
        beyond = (least is not None and value < least) or (most is not None and value > most)
        found.append({**own[0], "alarm": beyond})
    return pd.DataFrame(found)
