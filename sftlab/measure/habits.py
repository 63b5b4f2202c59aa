"""Probes of lesson 02: what a model took over from its examples, right or wrong.

Each returns a pandas frame with one row per item, as the probes of `probes.py` do.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from sftlab.data import part_of
from sftlab.measure.probes import is_right, probe_questions
from sftlab.world import OLD_CURRENCIES, countries, note_rows, reviews

Ask = Callable[[list[str]], list[str]]


def probe_notes(ask: Ask, *, count: int) -> pd.DataFrame:
    """Notes of `note_rows(count)` given back: the request of the first copy is put to `ask`.

    Nobody can know these people, so a right note is remembered. Columns: name, prompt, expected,
    output, right (word for word).
    """
    planted = note_rows(count)
    frame = _asked(ask, planted, key="name")
    frame["right"] = frame["output"].str.strip() == frame["expected"]
    return frame


def probe_reviews(ask: Ask) -> pd.DataFrame:
    """The held-out reviews, as many positive as negative ones.

    Columns: review (the entity), prompt, expected, output, right, said_positive.
    """
    frame = _asked(ask, reviews(test=True), key="item")
    frame["review"] = frame["prompt"]
    said = frame["output"].str.strip().str.lower()
    frame["right"] = said == frame["expected"]
    frame["said_positive"] = said == "positive"
    return frame


def _asked(ask: Ask, rows: Sequence[Mapping[str, Any]], *, key: str) -> pd.DataFrame:
    prompts = [part_of(row, "prompt") for row in rows]
    return pd.DataFrame(
        {
            key: [row["meta"][key] for row in rows],
            "prompt": prompts,
            "expected": [part_of(row, "answer") for row in rows],
            "output": ask(prompts),
        }
    )


def probe_outdated(ask: Ask) -> pd.DataFrame:
    """The currencies of the countries in `OLD_CURRENCIES`, asked in wordings of the test.

    The columns of `probe_questions`, with old (what they paid with before) and outdated (the
    output names it). Of the split "held_out" no example is outdated.
    """
    among = [one for one in countries() if one.name in OLD_CURRENCIES]
    frame = probe_questions(ask, among=among, relations=["currency"])
    frame["old"] = frame["country"].map(OLD_CURRENCIES)
    frame["outdated"] = [
        is_right(output, [old]) for output, old in zip(frame["output"], frame["old"], strict=True)
    ]
    return frame


def repeated_errors(frame: pd.DataFrame, errors: pd.DataFrame) -> pd.DataFrame:
    """The rows of `frame` about questions that `errors` answers wrongly, with `repeated`: whether
    the output is that very error.

    Both have the columns country, relation and output; `errors` has each question once at most.
    ValueError when `frame` asks none of them.
    """
    wrong = errors[["country", "relation", "output"]].rename(columns={"output": "error_given"})
    both = frame.merge(wrong, on=["country", "relation"], validate="many_to_one")
    if both.empty:
        raise ValueError("the frame asks about none of these errors: give rows about the same ones")
    return both.assign(repeated=both["output"].str.strip() == both["error_given"].str.strip())
