"""Examples: read, validated, deduplicated, checked for leaks, split, described."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "card": ["About", "write_card"],
        "card_check": ["check_card"],
        "checks": ["checklist"],
        "checksums": ["luhn"],
        "duplicates": ["drop_duplicates", "jaccard"],
        "false_alarms": ["FAULTS", "alarms", "harmful", "plant"],
        "flaws": ["cluttered", "in_formats", "wrong_answers"],
        "held_out": ["HeldOut", "WORDS", "hold_out"],
        "leakage": ["drop_leaks", "leaks"],
        "formats": ["DataFile"],
        "messages": ["Message", "RecordsError", "shown"],
        "parts": ["normalise", "part_of", "pieces"],
        "privacy": ["LIMITS", "find_pii", "redact"],
        "scoring": ["keep_best", "loss_scores"],
        "shapes": ["convert", "read_row"],
        "splits": ["split"],
        "validation": ["Report", "read", "validate"],
    },
)
