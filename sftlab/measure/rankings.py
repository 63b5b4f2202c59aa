"""How often metrics rank two runs, or two texts, against what is true.

truth    run A 90%   run B 70%          A is better
metric   run A 0.1   run B 0.7          against the truth
"""

from collections.abc import Iterator, Sequence
from itertools import combinations

import pandas as pd

from sftlab.measure.likelihood import choices
from sftlab.measure.probes import is_right
from sftlab.measure.stats import difference
from sftlab.measure.text_scores import SCORES, token_f1
from sftlab.world import Country, grammar


def rank_once(scored: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """Every two runs ranked by one metric of one seed, in each relation.

    `scored` has the columns arm, relation, seed, country, right (the truth) and the metrics. The
    truth of an arm is the mean of right over all of its seeds. A row for each comparison, metric
    and seed. Columns: pair, one, two, relation, metric, seed, against (the metric prefers the run
    that the truth does not; of runs that the truth calls equal nothing is against it).
    """
    means = scored.groupby(["arm", "relation", "seed"])[list(metrics)].mean()
    rows = []
    for one, two, relation, better in _comparisons(scored):
        gaps = means.loc[(one, relation)] - means.loc[(two, relation)]
        rows += [
            {**_named(one, two, relation), "metric": name, "seed": seed,
             "against": bool(gap * better < 0)}
            for seed, row in gaps.iterrows()
            for name, gap in row.items()
        ]  # fmt: skip
    return pd.DataFrame(rows)


def rank_with_intervals(scored: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """The same comparisons, decided only where the 95% intervals of all metrics, over all seeds,
    leave out zero on the same side. Columns: pair, one, two, relation, decided, against."""
    parts, rows = dict(iter(scored.groupby(["arm", "relation"]))), []
    for one, two, relation, better in _comparisons(scored):
        sign = _agreed(parts[one, relation], parts[two, relation], metrics)
        rows.append(
            {**_named(one, two, relation), "decided": sign != 0, "against": sign * better < 0}
        )
    return pd.DataFrame(rows)


def _agreed(one: pd.DataFrame, two: pd.DataFrame, metrics: Sequence[str]) -> int:
    """1 where every metric prefers one, -1 two, 0 where any is unsure or of another opinion."""
    signs = set()
    for name in metrics:
        found = difference(one, two, value=name)
        signs.add((found.low > 0) - (found.high < 0))
        if signs not in ({1}, {-1}):
            return 0
    return signs.pop()


def _comparisons(scored: pd.DataFrame) -> Iterator[tuple[str, str, str, float]]:
    """Arm, other arm, relation, and by how much the truth prefers the first."""
    truth = scored.groupby(["arm", "relation"])["right"].mean()
    arms, relations = scored["arm"].unique(), sorted(scored["relation"].unique())
    if len(arms) < 2:
        raise ValueError(f"there is nothing to rank: the frame has the arms {list(arms)}")
    for one, two in combinations(arms, 2):
        for relation in relations:
            yield one, two, relation, truth[one, relation] - truth[two, relation]


def _named(one: str, two: str, relation: str) -> dict[str, str]:
    return {"pair": f"{one}, {two}, {relation}", "one": one, "two": two, "relation": relation}


def rank_answers(frame: pd.DataFrame) -> pd.DataFrame:
    """Whether token F1 puts a right output above a wrong one of the same kind.

    Each right output of a frame of `probe_questions` (with a column seed) meets the output to the
    question before it, of the same relation and seed, where that is wrong for it. Columns: those of
    the frame, other, ordered.
    """
    found = frame[frame["right"]].copy()
    found["other"] = found.groupby(["seed", "relation"])["output"].shift(1)
    found = found.dropna(subset=["other"])
    wrong = [not is_right(o, a) for o, a in zip(found["other"], found["answers"], strict=True)]
    found = found[pd.Series(wrong, index=found.index, dtype=bool)]
    return found.assign(
        ordered=[
            token_f1(row.output, row.answers) > token_f1(row.other, row.answers)
            for row in found.itertuples()
        ]
    )


def rank_paraphrases(
    among: Sequence[Country],
    *,
    relations: Sequence[str] = ("capital", "language", "currency"),
    scores: Sequence[str] = ("BLEU", "ROUGE-L"),
) -> pd.DataFrame:
    """Whether a score puts a false fact in the reference's words above a true one in others.

    For each fact one wrong sentence meets every other statement of the fact. Columns: country,
    relation, reference, false, true, and for each score whether the false one has more.
    """
    rows = []
    for one in among:
        for relation in relations:
            right, wrong = choices(one, relation, wrong=1)
            first, *others = grammar.STATEMENTS[relation]
            reference, false = (grammar.fill(first, one, a=answer) for answer in (right, wrong))
            for form in others:
                true = grammar.fill(form, one, a=right)
                row = {"country": one.name, "relation": relation, "reference": reference,
                       "false": false, "true": true}  # fmt: skip
                for name in scores:
                    score = SCORES[name]
                    row[name] = score(false, [reference]) > score(true, [reference])
                rows.append(row)
    return pd.DataFrame(rows)
