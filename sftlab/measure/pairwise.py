"""Two answers to one question: which is better, in both orders, and how often one side wins.

    pair      ours "Paris"   theirs "What is the capital of Ireland?"
    forward   shown first: ours        the judge says 1 (first), 0 (second) or 0.5 (a tie)
    backward  shown first: theirs      and again: what it then says of ours counts

A judge that looks at the order wins nothing by it: each pair is judged in both.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Protocol

import pandas as pd

from sftlab.measure.estimate import Estimate
from sftlab.measure.stats import difference, mean

FORWARD, BACKWARD = "forward", "backward"


class PairError(ValueError):
    """A pair, a verdict or a frame of them that can't be used."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A question with two answers, as a judge sees it."""

    question: str
    """What was asked."""
    first: str
    """The answer shown first."""
    second: str
    """The answer shown second."""
    references: tuple[str, ...] = ()
    """Right answers, for a judge that is told them; others never look."""
    entity: str = ""
    """What the question is about: pairs of one entity are not independent."""

    def swapped(self) -> "Pair":
        """The same pair in the other order."""
        return replace(self, first=self.second, second=self.first)


class Judge(Protocol):
    """Who compares answers: a rule, a model, an endpoint, or a person."""

    name: str

    def compare(self, pairs: Sequence[Pair]) -> list[float]:
        """For each pair 1 (the first is better), 0 (the second), or 0.5 (a tie)."""
        ...


def make_pairs(ours: pd.DataFrame, theirs: pd.DataFrame, *, entity: str = "country") -> list[Pair]:
    """Pairs of the outputs of two frames of `probe_questions`, ours first, by prompt.

    Raises:
        PairError: the frames were not asked the same.
    """
    keys = ["seed"] if "seed" in ours and "seed" in theirs else []
    both = ours.merge(theirs, on=[*keys, "prompt"], suffixes=("", "_theirs"))
    if len(both) != len(ours) or not len(both):
        raise PairError(
            f"{len(ours)} and {len(theirs)} answers share {len(both)} prompts: put the same "
            "questions to both, each once"
        )
    return [
        Pair(
            question=row.prompt,
            first=row.output.strip(),
            second=row.output_theirs.strip(),
            references=tuple(row.answers),
            entity=getattr(row, entity),
        )
        for row in both.itertuples()
    ]


def judge_frames(judge: Judge, ours: pd.DataFrame, theirs: pd.DataFrame) -> pd.DataFrame:
    """`judge_pairs` of two frames of `probe_questions`, seed by seed, with the column seed.

    `theirs` may be of one seed only, such as a base model's: then all of ours meet that.
    """
    one = theirs["seed"].nunique() == 1 if "seed" in theirs else True
    frames = []
    for seed, part in ours.groupby("seed"):
        other = theirs if one else theirs[theirs["seed"] == seed]
        pairs = make_pairs(part.drop(columns="seed"), other.drop(columns="seed", errors="ignore"))
        frames.append(judge_pairs(judge, pairs).assign(seed=seed))
    return pd.concat(frames, ignore_index=True)


def judge_pairs(judge: Judge, pairs: Iterable[Pair]) -> pd.DataFrame:
    """Each pair judged in both orders; two rows a pair.

    Columns: pair (its index), country (the entity), question, first, second (of the pair as given),
    order, won (of the answer that the pair gives first: 1, 0.5 or 0), shown_first (1 when the
    verdict went to the answer shown first, 0.5 a tie).

    Raises:
        PairError: there is no pair, or a verdict is none of 1, 0.5 and 0.
    """
    pairs = list(pairs)
    if not pairs:
        raise PairError("there is no pair to judge")
    frames = []
    for order, shown in ((FORWARD, pairs), (BACKWARD, [pair.swapped() for pair in pairs])):
        verdicts = judge.compare(shown)
        if len(verdicts) != len(pairs) or not set(verdicts) <= {0, 0.5, 1}:
            raise PairError(
                f"the judge {judge.name} gave {len(verdicts)} verdicts for {len(pairs)} pairs, "
                f"among them {sorted(set(verdicts))[:4]}: each is 1, 0.5 or 0"
            )
        frames.append(
            pd.DataFrame(
                {
                    "pair": range(len(pairs)),
                    "country": [pair.entity for pair in pairs],
                    "question": [pair.question for pair in pairs],
                    "first": [pair.first for pair in pairs],
                    "second": [pair.second for pair in pairs],
                    "order": order,
                    "won": [v if order == FORWARD else 1 - v for v in verdicts],
                    "shown_first": verdicts,
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def halves(frame: pd.DataFrame, *, value: str = "won") -> pd.DataFrame:
    """Every row twice, a win as 1 and 1, a tie as 1 and 0, a loss as 0 and 0.

    The mean stays what it was, and is one of zeros and ones: a share, whose interval stays within 0
    to 1. Both halves are of one entity, so they don't count as two.
    """
    return pd.concat(
        [frame.assign(**{value: (frame[value] == 1).astype(int)}),
         frame.assign(**{value: (frame[value] > 0).astype(int)})],
        ignore_index=True,
    )  # fmt: skip


def win_rate(frame: pd.DataFrame, *, entity: str = "country", **how: Any) -> Estimate:
    """Share of judgements won, a tie counted half, with its interval over seeds and entities.

    `frame` is what `judge_pairs` gives, of one seed or of several (a column `seed`); `how` goes to
    `sftlab.measure.stats.mean`.
    """
    return mean(halves(frame), value="won", entity=entity, **how)


def position_bias(frame: pd.DataFrame, *, entity: str = "country", **how: Any) -> Estimate:
    """Wins of an answer when it is shown first, minus wins of the same when it is shown second."""
    both = halves(frame)
    first, second = (both[both["order"] == order] for order in (FORWARD, BACKWARD))
    return difference(first, second, value="won", entity=entity, **how)


def length_bias(frame: pd.DataFrame, *, entity: str = "country", **how: Any) -> Estimate:
    """Wins of the longer wording minus wins of the shorter one, of pairs that say the same.

    `frame` judges pairs whose first answer is the longer one (`padded_pairs`).
    """
    both = halves(frame)
    return difference(both, both.assign(won=1 - both["won"]), value="won", entity=entity, **how)


PADDINGS = (
    "{a}, of course",
    "The answer is {a}.",
    "It is {a}. I hope that this helps.",
)
"""Words around an answer that add nothing to it."""


def padded_pairs(pairs: Iterable[Pair], *, paddings: Sequence[str] = PADDINGS) -> list[Pair]:
    """The first answer of each pair against itself, padded: the longer one first."""
    return [
        replace(pair, first=padding.format(a=pair.first), second=pair.first)
        for pair in pairs
        for padding in paddings
    ]


def shuffled_sides(count: int, *, seed: int = 0) -> list[bool]:
    """For a blind rating, whether each pair is shown swapped: half of them, in random order."""
    sides = [n % 2 == 1 for n in range(count)]
    Random(f"sides-{seed}").shuffle(sides)
    return sides
