"""SFT Lab: the names that most lessons use. Each room of the package hands on the rest."""

import lazy_loader

from sftlab.quiet import silence_known_lines

silence_known_lines()  # before a library is imported that says such a line

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "profiles": ["find_profile"],
        "models": ["load"],
        "world": ["countries", "country_examples", "country_rows", "country_shots"],
        "data": ["wrong_answers"],
        "measure": [
            "behind_prompt",
            "complete",
            "computed",
            "difference",
            "mean",
            "probe_facts",
            "probe_questions",
        ],
        "train": ["Settings", "finetune", "load_run"],
        "sweeps": ["Experiment"],
        "course": ["record"],
        "show": [
            "claim_card",
            "continuations",
            "plot_runs",
            "plot_shares",
            "sentence",
            "start_lesson",
        ],
    },
)
