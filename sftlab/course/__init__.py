"""The lessons, the claims ledger, the decision guide."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "decision": ["Advice", "decide"],
        "decision_rules": ["CHOICES"],
        "lessons": ["choose_parameters", "find_lessons", "parse_parameter"],
        "model_card": ["HELD_OUT_BARS", "SEEDS", "measure_base", "measure_tunes", "write_card"],
        "recording": ["COLUMNS", "record"],
        "records": ["Record"],
        "rulebook": ["claims"],
        "runner": ["recorded_minutes", "run_notebooks"],
        "situation": ["ARCHETYPES", "Limits", "Situation", "TASKS"],
        "verdict": [
            "CONTRADICTED",
            "INCONCLUSIVE",
            "Part",
            "SUPPORTED",
            "UNITS",
            "between",
            "in_unit",
            "interval",
        ],
        "wheel_words": ["files_with", "installed_lines", "read_index"],
    },
)
