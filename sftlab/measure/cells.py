"""From a tidy frame to cells: one mean for each seed and entity."""

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True, kw_only=True)
class Cells:
    """The mean of the items in each cell, seeds down and entities across.

              Brazil  Chad  France ...
    seed 0     0.75   0.50   1.00        a cell: the mean over the items (four relations)
    seed 1     0.75   0.25   1.00        a row: one training run
    seed 2     1.00   0.50   1.00        a column: one cluster of items that go together
    """

    values: np.ndarray
    """(seeds, entities) floats."""
    seeds: tuple[Hashable, ...]
    """The seeds, in order."""
    entities: tuple[Hashable, ...]
    """The entities, in order."""
    items: int
    """Rows of one seed: of the seed that has the fewest."""
    shares: bool
    """Whether every value is 0 or 1, so that a mean is a share."""


def cells(
    frame: pd.DataFrame,
    *,
    value: str = "right",
    seed: str = "seed",
    entity: str | None = "country",
) -> Cells:
    """Average the rows of a frame into cells.

    One row per seed and item. A frame without the column "seed" is one seed, in which nothing is
    random. `entity=None` is for one number a run, such as a loss over a fixed text. Entities
    count alike, however many items they have.

    ValueError: a column or every row is missing; a value is missing, not finite or no number; or
    a seed lacks entities that another has, which a crossed resampling cannot repair.
    """
    wanted = [value] if entity is None else [value, entity]
    if seed in frame.columns or seed != "seed":
        wanted.append(seed)
    absent = [name for name in wanted if name not in frame.columns]
    if absent:
        raise ValueError(
            f"the frame has no column {absent[0]!r}, only {', '.join(map(str, frame.columns))}: "
            "name the columns with value=, seed= and entity= (None for one number a run)"
        )
    if frame.empty:
        raise ValueError("the frame has no rows, so there is nothing to average")
    nothing = np.zeros(len(frame), int)
    rows, seeds = _numbered(frame[seed] if seed in wanted else nothing)
    columns, entities = _numbered(nothing if entity is None else frame[entity])
    nameless = (rows < 0) | (columns < 0)
    if nameless.any():
        raise ValueError(
            f"row {int(nameless.argmax())} has no seed or no entity: fill it in or drop the row"
        )
    numbers = _numbers(frame[value], seeds[rows])
    place, shape = rows * len(entities) + columns, (len(seeds), len(entities))
    counts, sums = (
        np.bincount(place, weights, minlength=len(seeds) * len(entities)).reshape(shape)
        for weights in (None, numbers)
    )
    if not counts.all():
        raise ValueError(
            f"these pairs of seed and entity have no rows: {_gaps(counts, seeds, entities)}. "
            "Every seed must be measured on the same entities: measure them, or leave that seed or "
            "entity out"
        )
    return Cells(
        values=sums / counts,
        seeds=tuple(seeds.tolist()),
        entities=tuple(entities.tolist()),
        items=int(counts.sum(1).min()),
        shares=bool(np.isin(numbers, (0.0, 1.0)).all()),
    )


def _numbered(names: pd.Series | np.ndarray) -> tuple[np.ndarray, pd.Index | np.ndarray]:
    """For each row the number of its name, -1 without one; and the names, in order."""
    if isinstance(names.dtype, pd.CategoricalDtype):  # whose order is another frame's business
        names = names.astype(names.cat.categories.dtype)
    return pd.factorize(names, sort=True)


def _numbers(column: pd.Series, seeds: pd.Index | np.ndarray) -> np.ndarray:
    try:
        numbers = column.to_numpy(dtype=float, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise ValueError(f"column {column.name!r} holds what is no number: {error}") from error
    wrong = ~np.isfinite(numbers)
    if wrong.any():
        raise ValueError(
            f"{wrong.sum()} of {len(numbers)} values of {column.name!r} are missing or not finite, "
            f"the first in row {int(wrong.argmax())} (seed {seeds[int(wrong.argmax())]}): a "
            "run that failed has none; run it again or leave that seed out"
        )
    return numbers


def _gaps(counts: np.ndarray, seeds: pd.Index | np.ndarray, entities: pd.Index | np.ndarray) -> str:
    rows, columns = np.nonzero(counts == 0)
    named = [f"({seeds[r]}, {entities[c]})" for r, c in list(zip(rows, columns, strict=True))[:3]]
    return ", ".join(named) + (f" and {len(rows) - 3} more" if len(rows) > 3 else "")
