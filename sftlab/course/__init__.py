"""The lessons, the claims ledger, the decision guide."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "rules": ["ARTICLES", "UNITS", "ClaimsError", "Part", "between", "claims", "in_unit"],
        "predictions": [
            "Attempt",
            "calibration",
            "keep",
            "measured_predictions",
            "my_predictions",
            "predict",
            "predicted",
            "progress_folder",
            "read_lines",
        ],
        "ledger": ["Record", "real_records", "record", "rows", "stored_records"],
        "decision": ["ARCHETYPES", "CHOICES", "TASKS", "Advice", "Situation", "decide"],
        "lessons": [
            "find_lessons",
            "parse_parameter",
            "record_minutes",
            "recorded_minutes",
            "time_line",
        ],
        "pages": ["readable"],
        "runner": ["run_notebooks"],
        "model_card": ["HELD_OUT_BARS", "SEEDS", "measure_base", "measure_tunes", "write_card"],
    },
)
