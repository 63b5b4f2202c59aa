"""Experiments: arms x seeds, run in parallel and cached."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "cache": ["SweepError", "base_hash", "code_hash", "runs_folder", "stored_runs"],
        "experiment": ["Experiment", "Results"],
    },
)
