"""Simple rules that make a row suspect, each with its evidence; the score is how many it breaks."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from sftlab.data.parts import Row, RowsError, checked, normalise, part_of, words
from sftlab.data.quality import MARKERS

REFUSALS = (
    r"\bas an? (?:ai|artificial intelligence|language model|large language model)\b",
    r"\bi(?:['’]m| am) (?:sorry|afraid|unable|not able)\b",
    r"\bi (?:can(?:no|['’])t|could not|won['’]t|will not|do not know|don['’]t know)\b",
)
"""English openings of a refusal; only the first 120 characters of an answer are read."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What makes a row suspect. A rule set to None is not asked."""

    least_words: int | None = 1
    """An answer with fewer words is too short (pieces between white space)."""
    most_words: int | None = 400
    """An answer with more words is too long."""
    repeats_prompt: bool = True
    """An answer that is its prompt, or opens with all of a prompt of 4 words or more."""
    refusals: tuple[str, ...] | None = REFUSALS
    """Patterns of refusals. Drop the rule for data that shall teach to refuse."""
    least_letters: float | None = 0.3
    """Lowest share of letters and digits among the visible characters of an answer."""
    longest_run: int | None = 20
    """An answer in which one character comes more often than this in a row is no text."""
    most_repeated: float | None = 0.5
    """Highest share that one word may have of an answer of 10 words or more."""
    markers: bool = True
    """Marks of a chat format inside a prompt or an answer."""

    def __post_init__(self):
        for name in ("least_words", "most_words", "longest_run"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise RowsError(f"{name}={value}: 1 or more, or None to leave the rule out")
        for name in ("least_letters", "most_repeated"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise RowsError(f"{name}={value}: a share from 0 to 1, or None")
        if None not in (self.least_words, self.most_words) and self.least_words > self.most_words:
            raise RowsError(f"least_words={self.least_words} is above most_words={self.most_words}")


def flags(rows: Iterable[Row], *, rules: Rules | None = None) -> pd.DataFrame:
    """Every rule that a row breaks: columns row, rule, evidence."""
    rules = rules or Rules()
    return pd.DataFrame(
        [
            (index, rule, evidence)
            for index, row in enumerate(checked(rows))
            for rule, evidence in _broken(row, rules)
        ],
        columns=["row", "rule", "evidence"],
    )


def rule_scores(rows: Iterable[Row], *, rules: Rules | None = None) -> list[float]:
    """How many rules each row breaks."""
    rows = checked(rows)
    counts = flags(rows, rules=rules)["row"].value_counts()
    return [float(counts.get(index, 0)) for index in range(len(rows))]


def _broken(row: Row, rules: Rules) -> Iterable[tuple[str, str]]:
    prompt, answer = part_of(row, "prompt"), part_of(row, "answer")
    if row["messages"][-1]["role"] != "assistant":
        yield "no answer", f"the last message is the {row['messages'][-1]['role']}'s"
    if not prompt.strip():
        yield "no prompt", "nothing is asked"
    pieces = answer.split()
    if rules.least_words is not None and len(pieces) < rules.least_words:
        yield "too short", f"{len(pieces)} words"
    if rules.most_words is not None and len(pieces) > rules.most_words:
        yield "too long", f"{len(pieces)} words"
    if rules.markers and (mark := MARKERS.search(f"{prompt}\n{answer}")):
        yield "format marks", mark[0]
    if pieces:
        yield from _text_faults(prompt, answer, rules)


def _text_faults(prompt: str, answer: str, rules: Rules) -> Iterable[tuple[str, str]]:
    asked, said = words(prompt), words(answer)
    same = normalise(prompt) == normalise(answer)
    if rules.repeats_prompt and (same or (len(asked) >= 4 and said[: len(asked)] == asked)):
        yield "repeats its prompt", answer[:60]
    for pattern in rules.refusals or ():
        if match := re.search(pattern, answer[:120], flags=re.IGNORECASE):
            yield "refuses", match[0]
            break
    visible = [character for character in answer if not character.isspace()]
    letters = sum(character.isalnum() for character in visible) / len(visible)
    if rules.least_letters is not None and letters < rules.least_letters:
        yield "not text", f"{letters:.0%} letters and digits"
    elif rules.longest_run is not None and (
        match := re.search(rf"(\S)\1{{{rules.longest_run},}}", answer)
    ):
        yield "not text", f"{len(match[0])} times {match[1]!r} in a row"
    elif "\ufffd" in answer or "\0" in answer:
        yield "not text", "characters lost in decoding"
    if rules.most_repeated is not None and len(said) >= 10:
        most = max(set(said), key=said.count)
        if said.count(most) / len(said) > rules.most_repeated:
            yield "says one word over and over", f"{most!r} {said.count(most)} times"
