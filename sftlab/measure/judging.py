"""Judges: which of two answers is better, and how far to believe the one who says so.

    pair      ours "Paris"   theirs "What is the capital of Ireland?"
    forward   shown first: ours        the judge says 1 (first), 0 (second) or 0.5 (a tie)
    backward  shown first: theirs      and again: what it then says of ours counts

Each pair is judged in both orders, so a judge that prefers a position favors nobody. Any object
whose `compare` gives a verdict for each row of a frame with the columns question, first and second
is a judge.
"""

import math
import re
from collections.abc import Callable, Sequence

import pandas as pd

from sftlab.measure.likelihood import log_likelihoods


class JudgeError(ValueError):
    """A reply or a verdict of a judge that cannot be used."""


class PromptJudge:
    """A model that is asked in words; `ask` maps prompts to replies, such as an endpoint's."""

    PAIRWISE = """\
You compare two answers to one question. Judge only whether an answer is true and to the point.
Ignore the order of the answers, their length and their tone.

Question: {question}
Answer A: {first}
Answer B: {second}

Explain in one sentence. Then write [[A]] if A is better, [[B]] if B is better, [[C]] for a tie."""
    RUBRIC = """\
You grade an answer by three criteria, each from 1 (not at all) to 5 (fully).
helpful: it gives what was asked for. faithful: nothing in it is false. concise: no word is wasted.

Question: {question}
Answer: {answer}

Write one line per criterion, such as "helpful: 3"."""
    CRITERIA = ("helpful", "faithful", "concise")

    def __init__(self, ask: Callable[[list[str]], list[str]]) -> None:
        self.ask = ask

    def compare(self, pairs: pd.DataFrame) -> list[float]:
        """Verdicts; JudgeError where a reply has none."""
        columns = ["question", "first", "second"]
        prompts = [self.PAIRWISE.format(**row) for row in pairs[columns].to_dict("records")]
        return list(map(self.verdict, self.ask(prompts)))

    @staticmethod
    def verdict(reply: str) -> float:
        """The last of [[A]], [[B]] and [[C]] in a reply, as 1, 0 or 0.5."""
        found = re.findall(r"\[\[([ABC])\]\]", reply)
        if not found:
            raise JudgeError(f"the reply {reply[:80]!r} holds none of [[A]], [[B]], [[C]]")
        return {"A": 1.0, "B": 0.0, "C": 0.5}[found[-1]]

    @classmethod
    def grades(cls, reply: str) -> dict[str, int]:
        """The grade of each criterion in a reply to the rubric."""
        found = dict(re.findall(r"^\W*(\w+)\W*:\W*([1-5])(?!\.?\d)", reply.lower(), flags=re.M))
        if missing := [name for name in cls.CRITERIA if name not in found]:
            raise JudgeError(f"the reply {reply[:80]!r} has no grade 1 to 5 for {missing[0]!r}")
        return {name: int(found[name]) for name in cls.CRITERIA}


class LikelihoodJudge:
    """The answer that a model, in evaluation mode, finds likelier is better; a base will do.

    What counts is the mean of an answer's log-probabilities: their sum would prefer the shorter.
    """

    FORM = "Possible answers: {first}, {second}.\n\nQ: {question}\nA:"

    def __init__(self, model, tokenizer) -> None:
        self.model, self.tokenizer = model, tokenizer

    def compare(self, pairs: pd.DataFrame) -> list[float]:
        """Verdicts by likelihood; an empty answer loses against any other."""
        rows, texts = pairs[["question", "first", "second"]].to_dict("records"), []
        for row in rows:
            before = self.FORM.format(**row)
            texts += [(before, f" {row[place]}") for place in ("first", "second")]
        scores = [
            nats / tokens if text != " " else -math.inf
            for (_, text), (nats, tokens) in zip(
                texts, log_likelihoods(self.model, self.tokenizer, texts), strict=True
            )
        ]
        return [
            0.5 if row["first"] == row["second"] or one == two else float(one > two)
            for row, one, two in zip(rows, scores[::2], scores[1::2], strict=True)
        ]


def judge_pairs(judge, pairs: pd.DataFrame) -> pd.DataFrame:
    """Each row of a frame with question, first and second judged in both orders; two rows a pair.

    Adds order (forward, backward), won (of the answer in the column first: 1, 0.5 or 0) and
    shown_first (1 when the verdict went to the answer shown first, 0.5 a tie).
    """
    frames = []
    for order in ("forward", "backward"):
        names = {} if order == "forward" else {"first": "second", "second": "first"}
        verdicts: Sequence[float] = judge.compare(pairs.rename(columns=names))
        if len(verdicts) != len(pairs) or not set(verdicts) <= {0, 0.5, 1}:
            given = f"{type(judge).__name__} gave {len(verdicts)} verdicts for {len(pairs)} pairs"
            raise JudgeError(f"{given}, {sorted(set(verdicts))[:4]}: each must be 1, 0.5 or 0")
        won = verdicts if order == "forward" else [1 - verdict for verdict in verdicts]
        frames.append(pairs.assign(order=order, won=won, shown_first=verdicts))
    return pd.concat(frames, ignore_index=True)
