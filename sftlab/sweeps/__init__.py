"""Grids of settings x seeds, run in parallel and cached."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "cache": ["SweepError", "clear_runs", "runs_folder", "stored_files"],
        "sweeping": ["sweep", "sweeps"],
    },
)
