"""Measures of a data set: length, coverage, balance, diversity, correctness, consistency, format.

`sftlab.data.checklist` puts them together; each can also be asked alone.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from sftlab.data.parts import Key, Row, RowsError, checked, normalise, part_of, values_of, words

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MARKERS = re.compile(
    r"<\|[^|<>\s]{1,40}\|>|</?s>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>"
    r"|^#{2,3} ?(?:Instruction|Input|Response)\b|^(?:Q|A|User|Human|Assistant|USER|ASSISTANT):",
    flags=re.MULTILINE,
)
"""Marks of a chat format inside a content: the format is written twice once a template adds it."""


def lengths(
    rows: Iterable[Row], *, tokenizer: "PreTrainedTokenizerBase | None" = None
) -> pd.DataFrame:
    """How long prompts, answers and conversations are.

    Lines: part and unit (characters, words, and tokens with a tokenizer; tokens of the text
    alone, without BOS and without what a chat template adds). Columns: least, median, mean, p95
    (95% are not longer) and most.
    """
    rows = checked(rows)
    counters: dict[str, Callable[[list[str]], list[int]]] = {
        "characters": lambda texts: [len(text) for text in texts],
        "words": lambda texts: [len(words(text)) for text in texts],
    }
    if tokenizer is not None:
        counters["tokens"] = lambda texts: [
            len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]
        ]
    counts = {}
    for part in ("prompt", "answer", "conversation"):
        texts = [part_of(row, part) for row in rows]
        counts |= {(part, unit): count(texts) for unit, count in counters.items()}
    n = pd.DataFrame(counts)
    frame = pd.DataFrame(
        {
            "least": n.min(),
            "median": n.median(),
            "mean": n.mean(),
            "p95": n.quantile(0.95, interpolation="higher"),
            "most": n.max(),
        }
    )
    return frame.rename_axis(["part", "unit"])


@dataclass(frozen=True)
class Coverage:
    """How often each value of a key comes, and how evenly."""

    counts: dict[Hashable, int]
    """Rows of each value, the most frequent first."""
    missing: tuple[Hashable, ...]
    """Values that were expected and never come."""

    @property
    def ratio(self) -> float:
        """Rows of the most frequent value over rows of the rarest; 1 is balance."""
        return max(self.counts.values()) / min(self.counts.values())

    @property
    def evenness(self) -> float:
        """Entropy over that of even counts (Pielou's index): 1 is balance, 0 a single value."""
        total, kinds = sum(self.counts.values()), len(self.counts)
        shares = [count / total for count in self.counts.values()]
        return (
            1 - sum(p * math.log(p * kinds) for p in shares) / math.log(kinds) if kinds > 1 else 0
        )

    @property
    def table(self) -> pd.DataFrame:
        """Columns rows and share, a line for each value; missing ones at the end with 0."""
        counts = self.counts | dict.fromkeys(self.missing, 0)
        frame = pd.DataFrame({"rows": counts.values()}, index=pd.Index(counts, name="value"))
        return frame.assign(share=frame["rows"] / frame["rows"].sum())


def coverage(
    rows: Iterable[Row], key: Key, *, expected: Collection[Hashable] | None = None
) -> Coverage:
    """Rows by entity, relation, wording, class: whatever `key` names or computes.

    `expected` lists the values that should come, so that the absent ones are told too.
    """
    counts = Counter(values_of(checked(rows), key))
    missing = tuple(value for value in expected or () if value not in counts)
    return Coverage(dict(counts.most_common()), missing)


def distinct(rows: Iterable[Row], *, size: int = 2, part: str = "prompt") -> float:
    """Distinct-n: different runs of `size` words over all runs (Li et al., arXiv 1510.03055).

    1 when no run comes twice. It falls as a data set grows, so compare sets of one size only. NaN
    when no text has that many words.
    """
    if size < 1:
        raise RowsError(f"size={size}: a run has at least 1 word")
    seen: Counter[tuple[str, ...]] = Counter()
    for row in checked(rows):
        own = words(part_of(row, part))
        seen.update(tuple(own[n : n + size]) for n in range(len(own) - size + 1))
    return len(seen) / seen.total() if seen else math.nan


@dataclass(frozen=True)
class Contradiction:
    """A prompt that is answered in more than one way."""

    prompt: str
    """The prompt, as its first row writes it."""
    answers: dict[str, list[int]]
    """Indexes of the rows that give each answer."""


def contradictions(rows: Iterable[Row]) -> list[Contradiction]:
    """Prompts with different answers; case, white space and Unicode form do not count.

    The prompt includes the system message here: another system message may ask for another answer.
    """
    rows = checked(rows)
    groups: dict[str, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        groups[normalise(part_of(row, "context"))].append(index)
    found = []
    for indexes in groups.values():
        answers: dict[str, list[int]] = defaultdict(list)
        for index in indexes:
            answers[normalise(part_of(rows[index], "answer"))].append(index)
        if len(answers) > 1:
            told = {part_of(rows[own[0]], "answer"): own for own in answers.values()}
            found.append(Contradiction(part_of(rows[indexes[0]], "context"), told))
    return found


@dataclass(frozen=True)
class Correctness:
    """What a checker found."""

    right: list[int]
    """Indexes of the rows with a right answer."""
    wrong: list[int]
    """Indexes of the rows with a wrong answer."""
    unknown: list[int]
    """Indexes of the rows that the checker can't judge (it gave None)."""

    @property
    def share(self) -> float:
        """Right answers among those judged; NaN when none was."""
        judged = len(self.right) + len(self.wrong)
        return len(self.right) / judged if judged else math.nan


def correctness(rows: Iterable[Row], checker: Callable[[Row], bool | None]) -> Correctness:
    """Hold every row against known truth; `checker` gives True, False, or None for "can't say"."""
    found = Correctness([], [], [])
    for index, row in enumerate(checked(rows)):
        verdict = checker(row)
        if verdict is None:
            found.unknown.append(index)
        else:
            (found.right if verdict else found.wrong).append(index)
    return found


def formats(rows: Iterable[Row]) -> pd.DataFrame:
    """The forms in which rows come: roles in their order, how the answer ends, marks inside.

    Columns: roles ("user assistant"), ends ("with a mark" such as a full stop, "bare", or
    "empty"), markers (the first mark of a chat format found in a content, "" for none), rows,
    share; the most frequent first. One line is one format.
    """
    rows = checked(rows)
    counts = Counter((_roles(row), _ending(part_of(row, "answer")), _marker(row)) for row in rows)
    return pd.DataFrame(
        [(*form, n, n / len(rows)) for form, n in counts.most_common()],
        columns=["roles", "ends", "markers", "rows", "share"],
    )


def _roles(row: Row) -> str:
    return " ".join(message["role"] for message in row["messages"])


def _ending(answer: str) -> str:
    if not answer.strip():
        return "empty"
    return "with a mark" if answer.rstrip()[-1] in ".!?…。！？" else "bare"


def _marker(row: Row) -> str:
    found = (MARKERS.search(message["content"]) for message in row["messages"])
    return next((match[0] for match in found if match), "")
