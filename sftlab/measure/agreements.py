"""How far two judges agree: on pairs, and beyond what chance would give."""

from collections.abc import Hashable, Sequence

import pandas as pd

from sftlab.measure.pairwise import PairError


def cohen_kappa(one: Sequence[Hashable], two: Sequence[Hashable]) -> float:
    """Cohen's kappa: (agreement - chance) / (1 - chance), chance from how often each says what.

    1 is full agreement, 0 what chance gives, below 0 less than that. Two judges that both say the
    same of everything agree wholly, and kappa is not defined: it is given as 1.

    Raises:
        PairError: there is nothing to compare, or one list is longer.
    """
    if len(one) != len(two) or not len(one):
        raise PairError(f"{len(one)} and {len(two)} verdicts: give one each of the same items")
    items = len(one)
    agreed = sum(a == b for a, b in zip(one, two, strict=True)) / items
    kinds = set(one) | set(two)
    one, two = list(one), list(two)
    chance = sum(one.count(kind) * two.count(kind) for kind in kinds) / items**2
    return 1.0 if chance == 1 else (agreed - chance) / (1 - chance)


def agreement(judged: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    """Whether a judge says what the truth says, on the pairs where the truth is no tie.

    Both are frames of `judge_pairs` over the same pairs. The rows of `judged` that count, with
    `true` and `said` (what truth and judge say of the first answer) and `won` replaced by 1 (the
    same), 0.5 (the judge sees a tie) or 0: ready for `win_rate`.

    Raises:
        PairError: the frames are not of the same pairs.
    """
    keys = [name for name in ("seed", "pair", "order") if name in judged and name in truth]
    both = judged.merge(
        truth[[*keys, "question", "won"]].rename(columns={"won": "true", "question": "asked"}),
        on=keys, validate="one_to_one",
    )  # fmt: skip
    if len(both) != len(judged) or (both["asked"] != both["question"]).any():
        raise PairError("the two frames judge other pairs: give both judges the same")
    both = both[both["true"] != 0.5]
    same = 1 - (both["won"] - both["true"]).abs()
    return both.assign(said=both["won"], won=same).drop(columns="asked")
