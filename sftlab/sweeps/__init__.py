"""Grids of settings x seeds, run in parallel and cached."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "bases": ["base_hash"],
        "countdown": ["Countdown"],
        "experiment": ["Experiment", "Outcome"],
        "fingerprint": ["Fingerprint", "FingerprintError"],
        "grid": ["SweepError"],
        "notes": ["note", "noted"],
        "plan": ["make_plan"],
        "processes": ["end_processes"],
        "results": ["clear", "lessons_folder"],
        "sources": ["code_hash", "files_of", "stamp"],
        "sweeping": ["ALL_CACHED", "prepare", "sweep", "sweeps"],
    },
)
