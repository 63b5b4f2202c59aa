"""Experiments: arms x seeds, run in parallel and cached."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "cache": ["SweepError", "runs_folder", "stored_runs"],
        "experiment": ["Experiment", "Results"],
    },
)
