"""Examples: read, validated, deduplicated, checked for leaks, split, described."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "cards": ["About", "check_card", "write_card"],
        "files": ["Report", "read", "validate"],
        "flaws": ["cluttered", "in_formats", "wrong_answers"],
        "messages": ["Message"],
        "overlap": ["drop_duplicates", "drop_leaks", "jaccard", "leaks"],
        "privacy": ["LIMITS", "find_pii", "luhn", "redact"],
        "problems": ["RecordsError", "printable", "shown"],
        "quality": ["checklist", "keep_best", "loss_scores"],
        "readers": ["DataFile"],
        "rows": ["normalise", "part_of", "pieces"],
        "shapes": ["convert", "read_row"],
        "splits": ["HeldOut", "hold_out", "split"],
    },
)
