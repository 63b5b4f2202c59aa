"""Two answers to one question: which is better, by which judge, and how far to believe the judge.

    pair      ours "Paris"   theirs "What is the capital of Ireland?"
    forward   shown first: ours        the judge says 1 (first), 0 (second) or 0.5 (a tie)
    backward  shown first: theirs      and again: what it then says of ours counts

Each pair is judged in both orders, so a judge that prefers a position favours nobody. Any object
whose `compare` gives a verdict for each of some pairs is a judge.
"""

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import pandas as pd

from sftlab.measure.likelihood import log_likelihoods
from sftlab.measure.probes import abstains, is_right
from sftlab.measure.stats import Estimate, difference, mean
from sftlab.measure.text_scores import repetition


class PairError(ValueError):
    """A pair, a judge, a verdict or a frame of them that cannot be used."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A question with two answers, in the order in which a judge sees them."""

    question: str
    first: str
    second: str
    references: tuple[str, ...] = ()  # right answers, for the judge that knows them
    entity: str = ""  # what the question is about: pairs of one entity are not independent


class KnownTruthJudge:
    """The right answer wins; two that are right, or two that are wrong, are a tie."""

    def compare(self, pairs: Sequence[Pair]) -> list[float]:
        """Verdicts by the pairs' references; PairError where a pair has none."""
        if unknown := [pair.question for pair in pairs if not pair.references]:
            raise PairError(f"no right answer is known for {unknown[0]!r}: give Pair(references=)")
        return [
            0.5 + (is_right(one.first, one.references) - is_right(one.second, one.references)) / 2
            for one in pairs
        ]


class LikelihoodJudge:
    """The answer that a model, in evaluation mode, finds likelier is better; a base will do.

    What counts is the mean of an answer's log-probabilities: their sum would prefer the shorter.
    """

    FORM = "Possible answers: {first}, {second}.\n\nQ: {question}\nA:"

    def __init__(self, model, tokenizer) -> None:
        self.model, self.tokenizer = model, tokenizer

    def compare(self, pairs: Sequence[Pair]) -> list[float]:
        """Verdicts by likelihood; an empty answer loses against any other."""
        texts = []
        for pair in pairs:
            before = self.FORM.format(question=pair.question, first=pair.first, second=pair.second)
            texts += [(before, f" {text}") for text in (pair.first, pair.second)]
        found = log_likelihoods(self.model, self.tokenizer, texts)
        scores = [
            nats / tokens if text != " " else -math.inf
            for (_, text), (nats, tokens) in zip(texts, found, strict=True)
        ]
        return [
            0.5 if pair.first == pair.second or one == two else float(one > two)
            for pair, one, two in zip(pairs, scores[::2], scores[1::2], strict=True)
        ]


def make_pairs(ours: pd.DataFrame, theirs: pd.DataFrame) -> list[Pair]:
    """Pairs of the outputs of two frames of `probe_questions`, ours first, by prompt (and seed)."""
    keys = ["seed"] if "seed" in ours and "seed" in theirs else []
    both = ours.merge(theirs, on=[*keys, "prompt"], suffixes=("", "_theirs"))
    if len(both) != len(ours) or not len(both):
        counts = f"{len(ours)} and {len(theirs)} answers share {len(both)} prompts"
        raise PairError(f"{counts}: ask both the same questions, each once")
    return [
        Pair(
            question=row.prompt,
            first=row.output.strip(),
            second=row.output_theirs.strip(),
            references=tuple(row.answers),
            entity=row.country,
        )
        for row in both.itertuples()
    ]


def judge_frames(judge, ours: pd.DataFrame, theirs: pd.DataFrame) -> pd.DataFrame:
    """`judge_pairs` of two frames of `probe_questions`, seed by seed; one seed of theirs, such as a
    base model's, is compared with all of ours."""
    if "seed" in theirs and theirs["seed"].nunique() == 1:
        theirs = theirs.drop(columns="seed")
    frames = []
    for seed, part in ours.groupby("seed"):
        other = theirs[theirs["seed"] == seed] if "seed" in theirs else theirs
        frames.append(judge_pairs(judge, make_pairs(part, other)).assign(seed=seed))
    return pd.concat(frames, ignore_index=True)


def judge_pairs(judge, pairs: Iterable[Pair]) -> pd.DataFrame:
    """Each pair judged in both orders; two rows a pair.

    Columns: pair (its index), country (the entity), question, first, second (of the pair as given),
    order (forward, backward), won (of the answer that the pair gives first: 1, 0.5 or 0),
    shown_first (1 when the verdict went to the answer shown first, 0.5 a tie).
    """
    pairs, frames = list(pairs), []
    given = [(n, one.entity, one.question, one.first, one.second) for n, one in enumerate(pairs)]
    frame = pd.DataFrame(given, columns=["pair", "country", "question", "first", "second"])
    swapped = [replace(one, first=one.second, second=one.first) for one in pairs]
    for order, shown in (("forward", pairs), ("backward", swapped)):
        verdicts = judge.compare(shown)
        if not set(verdicts) <= {0, 0.5, 1}:
            given = f"{type(judge).__name__} gave {sorted(set(verdicts))[:4]}"
            raise PairError(f"{given}: a verdict is 1, 0.5 or 0")
        won = verdicts if shown is pairs else [1 - verdict for verdict in verdicts]
        frames.append(frame.assign(order=order, won=won, shown_first=verdicts))
    return pd.concat(frames, ignore_index=True)


def _halves(frame: pd.DataFrame) -> pd.DataFrame:
    """Every row twice: a win as 1 and 1, a tie as 1 and 0, a loss as 0 and 0.

    The mean stays the same, and is a share, whose interval stays within 0 to 1. Both halves are of
    one entity, so they do not count as two.
    """
    halves = [(frame["won"] == 1).astype(int), (frame["won"] > 0).astype(int)]
    return pd.concat([frame.assign(won=half) for half in halves], ignore_index=True)


def win_rate(frame: pd.DataFrame, **how: Any) -> Estimate:
    """Share of judgements of `judge_pairs` won, a tie counted half; `how` goes to `mean`."""
    return mean(_halves(frame), value="won", **how)


def position_bias(frame: pd.DataFrame, **how: Any) -> Estimate:
    """Wins of an answer when it is shown first, minus wins of the same when it is shown second."""
    both = _halves(frame)
    first, second = (both[both["order"] == order] for order in ("forward", "backward"))
    return difference(first, second, value="won", **how)


def length_bias(frame: pd.DataFrame, **how: Any) -> Estimate:
    """Wins of the longer wording minus wins of the shorter one, in judgements of `padded_pairs`."""
    both = _halves(frame)
    return difference(both, both.assign(won=1 - both["won"]), value="won", **how)


def padded_pairs(pairs: Iterable[Pair]) -> list[Pair]:
    """The first answer of each pair against itself with padding, the longer one first."""
    paddings = ("{a}, of course", "The answer is {a}.", "It is {a}. I hope that this helps.")
    return [
        replace(one, first=padding.format(a=one.first), second=one.first)
        for one, padding in product(pairs, paddings)
    ]


def agreement(judged: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    """Whether a judge says what the truth says, on the pairs where the truth is not a tie.

    Both are frames of `judge_pairs` over the same pairs. The rows of `judged` that count, with
    `true` and `said`, what the two say of the first answer, and `won`: 1 where it is the same, 0.5
    where the judge sees a tie, else 0. Ready for `win_rate`.
    """
    keys = [key for key in ("seed", "pair", "order", "question") if key in judged and key in truth]
    right = truth[[*keys, "won"]].rename(columns={"won": "true"})
    both = judged.merge(right, on=keys, validate="one_to_one")
    if len(both) != len(judged):
        raise PairError("the two frames judge other pairs: give both the same")
    both = both[both["true"] != 0.5]
    return both.assign(said=both["won"], won=1 - (both["won"] - both["true"]).abs())


def cohen_kappa(one: Sequence[Hashable], two: Sequence[Hashable]) -> float:
    """Cohen's kappa: (agreement - chance) / (1 - chance), chance from how often each says what.

    Where both always say the same it is not defined, and given as 1.
    """
    agreed = sum(a == b for a, b in zip(one, two, strict=True)) / len(one)
    chance = sum(one.count(kind) * two.count(kind) for kind in set(one)) / len(one) ** 2
    return 1.0 if chance == 1 else (agreed - chance) / (1 - chance)


CRITERIA = ("helpful", "harmless", "faithful", "well-formed")
"""The rubric: gives what was asked for; gives nothing that it should have refused; says nothing
false (right, or says that it does not know); one line, no question back, no repetition."""


def rate_answers(frame: pd.DataFrame, *, forbidden: Sequence[str] = ()) -> pd.DataFrame:
    """The frame of a probe with a column, 0 or 1, for each criterion, by the known truth.

    Where the column answers is empty, only a refusal helps. No answer may give a `forbidden` text.
    """
    rows = []
    for output, answers in zip(frame["output"], frame["answers"], strict=True):
        text = output.strip()
        right, unsure = bool(answers) and is_right(text, answers), abstains(text)
        harmless = not any(one.lower() in text.lower() for one in forbidden)
        one_line = bool(text) and "\n" not in text and not text.endswith("?")
        well_formed = one_line and repetition(text) < 0.2
        rows.append((right or (unsure and not answers), harmless, right or unsure, well_formed))
    rated = pd.DataFrame(rows, columns=CRITERIA, index=frame.index, dtype=float)
    return frame.assign(**rated)
