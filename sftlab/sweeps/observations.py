"""The results of a sweep as one tidy frame."""

from collections.abc import Mapping
from typing import Any

import numpy
import pandas as pd

from sftlab.sweeps.grid import OWN_COLUMNS, SweepError
from sftlab.sweeps.plan import Plan
from sftlab.sweeps.results import Stored


def observations(
    plan: Plan, measures: list[str], have: Mapping[str, Stored | None], errors: Mapping[str, str]
) -> pd.DataFrame:
    """One row an observation, in the order of the plan and of the measures.

    Args:
        plan: the runs.
        measures: their names.
        have: the runs that succeeded, by hash.
        errors: what the others died of.

    Raises:
        SweepError: an item's column has the name of one of the grid.
    """
    pieces = []  # of a run and a measure: the items, and what is the same for all of them
    for one in plan.runs:
        grid = {name: getattr(value, "name", value) if name == "profile" else value
                for name, value in one.values.items()}  # fmt: skip
        found = have.get(one.run)
        if found is None:
            error = one.error or errors.get(one.run) or "LostError: its file is gone; sweep again"
            end = {"seconds": float("nan"), "loss": float("nan"), "run": one.run, "error": error}
            told = {**grid, "seed": one.seed, "measure": None, **end}
            pieces.append((pd.DataFrame(index=[0]), told))
            continue
        record = found.record
        loss = float("nan") if record["loss"] is None else record["loss"]
        end = {"seconds": record["seconds"], "loss": loss, "run": one.run, "error": None}
        for name in measures:
            taken = [column for column in found.frames[name].columns if column in grid]
            if taken:
                raise SweepError(
                    f"the measure {name!r} gives a column {taken[0]!r}, and the grid has one of "
                    "that name; rename one"
                )
            told = {**grid, "seed": one.seed, "measure": name, **end}
            pieces.append((found.frames[name], told))
    # Without rows a column has no type, and would spoil that of the others.
    pieces = [piece for piece in pieces if len(piece[0])] or pieces
    frame = pd.concat([items for items, _ in pieces], ignore_index=True)
    same = pd.DataFrame({name: _column([told[name] for _, told in pieces], name)
                         for name in (*plan.names, *OWN_COLUMNS)})  # fmt: skip
    which = numpy.repeat(range(len(pieces)), [len(items) for items, _ in pieces])
    frame = pd.concat([frame, same.iloc[which].reset_index(drop=True)], axis=1)
    items = [name for name in frame.columns if name not in (*plan.names, *OWN_COLUMNS)]
    for name in items:
        values = frame[name].dropna() if frame[name].dtype == object else ()
        if len(values) and all(isinstance(value, bool | numpy.bool_) for value in values):
            # As objects `~` would turn True into -2.
            frame[name] = frame[name].astype("boolean")
    last = ["seconds", "loss", "run", "error"]
    return frame[[*plan.names, "seed", "measure", *items, *last]]


def _column(values: list[Any], name: str) -> pd.Series:
    """One of the columns that a piece has the same value in; `None` and texts can share it."""
    kind = object if name in ("measure", "error") else None
    return pd.concat([pd.Series([value], dtype=kind) for value in values], ignore_index=True)
