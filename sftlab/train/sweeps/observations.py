"""The results of a sweep as one tidy frame."""

from collections.abc import Mapping

import numpy
import pandas as pd

from sftlab.train.sweeps.grid import OWN_COLUMNS, SweepError
from sftlab.train.sweeps.plan import Plan
from sftlab.train.sweeps.results import Stored


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
    pieces = []
    for one in plan.runs:
        grid = {name: getattr(value, "name", value) if name == "profile" else value
                for name, value in one.values.items()}  # fmt: skip
        found = have.get(one.run)
        if found is None:
            error = one.error or errors.get(one.run) or "LostError: its file is gone; sweep again"
            end = {"seconds": float("nan"), "loss": float("nan"), "run": one.run, "error": error}
            pieces.append(_piece(grid, one.seed, None, pd.DataFrame(index=[0]), end))
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
            pieces.append(_piece(grid, one.seed, name, found.frames[name], end))
    # Without rows a column has no type, and would spoil that of the others.
    frame = pd.concat([piece for piece in pieces if len(piece)] or pieces, ignore_index=True)
    items = [name for name in frame.columns if name not in (*plan.names, *OWN_COLUMNS)]
    for name in items:
        values = frame[name].dropna() if frame[name].dtype == object else ()
        if len(values) and all(isinstance(value, bool | numpy.bool_) for value in values):
            # As objects `~` would turn True into -2.
            frame[name] = frame[name].astype("boolean")
    last = ["seconds", "loss", "run", "error"]
    return frame[[*plan.names, "seed", "measure", *items, *last]]


def _piece(grid, seed: int, measure: str | None, items: pd.DataFrame, end) -> pd.DataFrame:
    count = len(items)
    told = {"seed": seed, "measure": measure, **end}
    columns = {name: [value] * count for name, value in {**grid, **told}.items()}
    columns["error"] = pd.Series(columns["error"], dtype=object)
    columns["measure"] = pd.Series(columns["measure"], dtype=object)
    return pd.concat([items.reset_index(drop=True), pd.DataFrame(columns)], axis=1)
