"""What a run noted while it trained, as frames: for pictures, and for measures of a sweep."""

from typing import Protocol

import pandas as pd

COLUMNS = ["kind", "step", "epoch", "nats", "norm", "rate", "kept"]
KINDS = ("training", "validation")


class Noted(Protocol):
    """The part of a run that is read here."""

    history: list[dict[str, float]]
    validation: list[dict[str, float]]
    kept_epoch: float | None


def losses(run: Noted) -> pd.DataFrame:
    """Every loss of a run: that of each step's batch, and after each epoch that on the validation
    examples, where it had any.

    Columns: kind (training or validation), step, epoch (a fraction within an epoch), nats (a
    supervised token), kept (whether the run has the weights of this moment), and of a step norm (of
    the gradient, before it was clipped) and rate. The loss of a step is that *before* its update,
    on examples that are about to be learned.
    """
    steps = pd.DataFrame(run.history, columns=[
        "step", "epoch", "loss", "grad_norm", "learning_rate"])  # fmt: skip
    points = pd.DataFrame(run.validation, columns=["step", "epoch", "loss"])
    names = {"loss": "nats", "grad_norm": "norm", "learning_rate": "rate"}
    end = run.kept_epoch or points["epoch"].max()
    frames = [
        frame.assign(kind=kind, kept=kind == "validation" and (frame["epoch"] == end))
        for kind, frame in zip(KINDS, (steps, points), strict=True)
        if len(frame)
    ]
    if not frames:
        return pd.DataFrame(columns=COLUMNS)
    return pd.concat(frames, ignore_index=True).rename(columns=names).reindex(columns=COLUMNS)


def by_epoch(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame of `losses`, perhaps of many runs, with one row an epoch and kind.

    The training loss of an epoch is the mean over its steps. Grouped by all columns that are not
    listed there, such as a sweep's own. Columns: those, epoch (whole), kind, loss.
    """
    whole = frame.assign(epoch=(frame["epoch"] - 1e-6).floordiv(1).astype(int) + 1)
    others = [name for name in frame.columns if name not in {*COLUMNS, "loss"}]
    keys = [name for name in others if frame[name].notna().all()]
    means = whole.groupby([*keys, "kind", "epoch"], sort=False)["nats"].mean()
    return means.rename("loss").reset_index()


def final(frame: pd.DataFrame) -> pd.DataFrame:
    """The validation loss of each run's weights: rows of the frame of `losses`, one a run."""
    return frame[(frame["kind"] == "validation") & frame["kept"].astype(bool)]
