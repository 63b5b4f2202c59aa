"""Examples: read, validated, deduplicated, checked for leaks, split, described."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "cards": ["About", "check_card", "write_card"],
        "checks": ["alarms", "checklist"],
        "duplicates": ["drop_duplicates", "jaccard"],
        "flaws": ["FAULTS", "cluttered", "harmful", "in_formats", "plant", "wrong_answers"],
        "formats": ["DataFile"],
        "leakage": ["drop_leaks", "leaks"],
        "messages": ["Message", "RecordsError", "shown"],
        "privacy": ["LIMITS", "find_pii", "luhn", "redact"],
        "quality": ["keep_best", "loss_scores"],
        "rows": ["normalise", "part_of", "pieces"],
        "shapes": ["convert", "read_row"],
        "splits": ["HeldOut", "WORDS", "hold_out", "split"],
        "validation": ["Report", "read", "validate"],
    },
)
