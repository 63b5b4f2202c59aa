"""The checklist of a data set in one table: each aspect measured, with a plain reading."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from sftlab.data import quality
from sftlab.data.duplicates import exact_duplicates, near_duplicates
from sftlab.data.leakage import leaks
from sftlab.data.parts import Key, Row, checked
from sftlab.data.privacy import listed, redact
from sftlab.data.rules import Rules, flags

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ASPECTS = (
    "length", "format", "coverage", "balance", "diversity", "correctness", "consistency",
    "safety", "deduplication", "privacy", "leakage",
)  # fmt: skip
COLUMNS = ["aspect", "measured", "value", "reading"]
Line = tuple[str, float | None, str]


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
    tokenizer: "PreTrainedTokenizerBase | None" = None,
) -> pd.DataFrame:
    """One line for each thing measured: aspect (of `ASPECTS`), measured, value, reading.

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
    rows = checked(rows)
    parts: dict[str, Iterable[Line]] = {
        "length": _length(rows, tokenizer),
        "format": _format(rows),
        "coverage": _coverage(rows, cover or {}),
        "balance": _balance(rows, label),
        "diversity": _diversity(rows),
        "correctness": _correctness(rows, checker),
        "consistency": _consistency(rows),
        "safety": _safety(rows, unsafe),
        "deduplication": _deduplication(rows, threshold),
        "privacy": _privacy(rows, listed(names)),
        "leakage": _leakage(rows, test, group),
    }
    return pd.DataFrame(
        [(aspect, *line) for aspect in ASPECTS for line in parts[aspect]], columns=COLUMNS
    )


def _missing(measured: str, give: str) -> Line:
    return measured, None, f"not measured: give {give}"


def _of(count: int, rows: list[Row], *, none: str, some: str) -> str:
    return none if not count else f"{count} of {len(rows)} rows ({count / len(rows):.1%}): {some}"


def _length(rows: list[Row], tokenizer: Any) -> Iterator[Line]:
    table = quality.lengths(rows, tokenizer=tokenizer)
    for unit in ("words", "tokens") if tokenizer is not None else ("words",):
        one = table.loc["answer", unit]
        yield f"median {unit} of an answer", one["median"], (
            f"answers have {one['least']:.0f} to {one['most']:.0f} {unit}, 95% at most "
            f"{one['p95']:.0f}: the model will answer at such lengths"
        )  # fmt: skip
    if tokenizer is None:
        yield _missing("tokens of a conversation", "`tokenizer`")
    else:
        most = table.loc[("conversation", "tokens"), "most"]
        yield "tokens of the longest row", most, "with its template it must fit the model's context"


def _format(rows: list[Row]) -> Iterator[Line]:
    forms = quality.formats(rows)
    yield "formats of a row", len(forms), (
        "every row has the same form" if len(forms) == 1
        else f"the commonest form has {forms['share'][0]:.1%} of the rows: the model learns the mix"
    )  # fmt: skip
    marked = int(forms.loc[forms["markers"] != "", "rows"].sum())
    yield "rows with marks of a chat format", marked, _of(
        marked, rows, none="no row has one", some="a template would write its marks a second time"
    )  # fmt: skip


def _coverage(rows: list[Row], cover: Mapping[str, Key]) -> Iterator[Line]:
    for name, key in cover.items():
        found = quality.coverage(rows, key)
        most, least = max(found.counts.values()), min(found.counts.values())
        told = f"each comes {least} to {most} times" if most > least else f"each comes {most} times"
        yield f"different values of {name}", len(found.counts), told
    if not cover:
        yield _missing("different entities, relations, wordings", "`cover`, names with keys")


def _balance(rows: list[Row], label: Key | None) -> Iterator[Line]:
    if label is None:
        yield _missing("the largest class over the smallest", "`label`")
        return
    found = quality.coverage(rows, label)
    (most, *_), (*_, least) = found.counts, found.counts
    yield "the largest class over the smallest", found.ratio, (
        "there is one class" if len(found.counts) == 1
        else f"{len(found.counts)} classes, evenly" if found.ratio == 1
        else f"{most!r} has {found.counts[most]} rows, {least!r} {found.counts[least]}: outputs "
        "lean to what is frequent"
    )  # fmt: skip


def _diversity(rows: list[Row]) -> Iterator[Line]:
    for part in ("prompt", "answer"):
        value = quality.distinct(rows, part=part)
        told = f"{value:.0%} of the pairs of words are different ones"
        yield f"distinct-2 of {part}s", None if value != value else value, (
            "no text has two words" if value != value
            else f"{told}; compare with a set of as many rows only"
        )  # fmt: skip


def _correctness(rows: list[Row], checker: Any) -> Iterator[Line]:
    if checker is None:
        yield _missing("share of right answers", "`checker`")
        return
    found = quality.correctness(rows, checker)
    judged = len(found.right) + len(found.wrong)
    told = f"{len(found.right)} of {judged} answers agree with the truth"
    untold = f"; {len(found.unknown)} can't be judged" if found.unknown else ""
    yield "share of right answers", found.share if judged else None, told + untold


def _consistency(rows: list[Row]) -> Iterator[Line]:
    found = quality.contradictions(rows)
    yield "prompts with several answers", len(found), (
        "no prompt has two answers" if not found
        else f"such as {found[0].prompt[:60]!r}, with {len(found[0].answers)} answers"
    )  # fmt: skip


def _safety(rows: list[Row], unsafe: Any) -> Iterator[Line]:
    if unsafe is None:
        yield _missing("rows that must not be learned", "`unsafe`, a function of the row")
    else:
        count = sum(bool(unsafe(row)) for row in rows)
        told = _of(count, rows, none="none is flagged", some="read them, then drop them")
        yield "rows that must not be learned", count, told
    refusing = flags(rows, rules=Rules(least_words=None, most_words=None))
    count = int((refusing["rule"] == "refuses").sum())
    yield "answers that refuse", count, _of(
        count, rows, none="none refuses, so refusing is not taught", some="refusing is taught"
    )  # fmt: skip


def _deduplication(rows: list[Row], threshold: float) -> Iterator[Line]:
    exact = sum(len(group.repeats) for group in exact_duplicates(rows, normalised=True))
    near = sum(len(group.repeats) for group in near_duplicates(rows, threshold=threshold))
    again = "they weigh more than once"
    yield "exact repeats", exact, _of(exact, rows, none="no row comes twice", some=again)
    yield f"near repeats (Jaccard {threshold:g} and more, exact ones too)", near, _of(
        near, rows, none="no row is nearly another", some=f"{again}; read them before you drop them"
    )  # fmt: skip


def _privacy(rows: list[Row], names: tuple[str, ...]) -> Iterator[Line]:
    _, counts = redact(rows, names=names)
    found = {kind: count for kind, count in counts.items() if count}
    told = ", ".join(f"{count} {kind}" for kind, count in found.items()) or "none found"
    looked = "" if names else "; names were not looked for: give `names`"
    yield "pieces of personal data", sum(found.values()), f"{told}{looked} (privacy.LIMITS)"


def _leakage(rows: list[Row], test: Any, group: Key | None) -> Iterator[Line]:
    if test is None:
        yield _missing("test rows that also stand in train", "`test`, the rows of that split")
        return
    test = checked(test, name="test")
    found = leaks(rows, test, group=group)
    count = found["test"].nunique()
    kinds = found.groupby("kind")["test"].nunique().to_dict()
    by_kind = ", ".join(f"{number} by {kind}" for kind, number in kinds.items())
    told = _of(count, test, none="none does", some=f"{by_kind}; the score would measure memory")
    yield "test rows that also stand in train", count, told
