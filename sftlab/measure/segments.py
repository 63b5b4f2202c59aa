"""The same score by segment: what a mean over all items hides.

all            ############################## 87%
capital        ###################            62%     <- here
continent      #################################  99%
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from sftlab.measure.stats import Estimate, mean
from sftlab.world import country

CUTS: dict[str, Callable[[Any], str]] = {
    "relation": lambda row: row.relation,
    "continent": lambda row: country(row.country).continent,
    "length": lambda row: "several words" if " " in row.expected.strip() else "one word",
    "group": lambda row: row.group,
    "relation and group": lambda row: f"{row.relation}, {row.group}",
}
"""From a row of `probe_questions` to the name of its segment: by relation, continent, length of
the answer, and how the corpus holds the country (asked about, stated, never mentioned)."""


def with_segments(frame: pd.DataFrame, cuts: Sequence[str] = tuple(CUTS)) -> pd.DataFrame:
    """A row for each item and cut, with the columns cut and segment."""
    unknown = [name for name in cuts if name not in CUTS]
    if unknown:
        raise ValueError(f"no cut {unknown[0]!r}; there are {', '.join(CUTS)}")
    if frame.empty:
        raise ValueError("the frame has no rows, so there is nothing to cut")
    rows = list(frame.itertuples())
    return pd.concat(
        [frame.assign(cut=name, segment=[CUTS[name](row) for row in rows]) for name in cuts],
        ignore_index=True,
    )


def by_frequency(
    frame: pd.DataFrame, counts: Mapping[str, int], *, parts: int = 3, entity: str = "country"
) -> pd.DataFrame:
    """The frame cut by how often the corpus names each entity: equal parts, the rarest first.

    `counts` maps an entity to its number of occurrences.

    Raises:
        ValueError: an entity has no count, or there are fewer entities than parts.
    """
    names = sorted(set(frame[entity]), key=lambda name: (counts.get(name, -1), name))
    missing = [name for name in names if name not in counts]
    if missing:
        raise ValueError(f"{missing[0]!r} has no count: count it in the corpus")
    if not 1 < parts <= len(names):
        raise ValueError(f"parts={parts}: there are {len(names)} entities; give 2 to as many")
    place = {name: n * parts // len(names) for n, name in enumerate(names)}
    edges = [[counts[name] for name in names if place[name] == n] for n in range(parts)]
    labels = [f"named {min(edge):,} to {max(edge):,} times" for edge in edges]
    return frame.assign(cut="frequency", segment=[labels[place[name]] for name in frame[entity]])


def segment_means(
    cut: pd.DataFrame, *, value: str = "right", entity: str = "country", **how: Any
) -> dict[str, dict[str, Estimate]]:
    """Cut -> segment -> mean with its interval, the weakest segment first; `how` goes to `mean`."""
    found = {}
    for name, part in cut.groupby("cut", sort=False):
        means = {
            segment: mean(rows, value=value, entity=entity, **how)
            for segment, rows in part.groupby("segment")
        }
        found[name] = dict(sorted(means.items(), key=lambda pair: pair[1].value))
    return found


def weakest(cut: pd.DataFrame, *, value: str = "right", least: int = 5) -> tuple[str, str]:
    """(cut, segment) with the lowest mean, of those with `least` items or more a seed.

    Choose it on some items and report it on others: the lowest of many means is low by luck too.

    Raises:
        ValueError: no segment has so many.
    """
    seeds = cut["seed"].nunique() if "seed" in cut else 1
    table = cut.groupby(["cut", "segment"])[value].agg(["mean", "size"])
    table = table[table["size"] >= least * seeds]
    if table.empty:
        raise ValueError(f"no segment has {least} items: lower `least`, or measure more items")
    return table["mean"].idxmin()
