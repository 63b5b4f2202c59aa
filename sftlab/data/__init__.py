"""Examples: read, validated, deduplicated, checked for leaks, split, described."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "cards": ["check_card", "write_card"],
        "files": ["Report", "read", "validate"],
        "messages": ["Message"],
        "overlap": ["drop_duplicates", "leaks"],
        "privacy": ["redact"],
        "problems": ["RecordsError", "printable", "shown"],
        "quality": ["checklist", "cluttered", "loss_scores", "wrong_answers"],
        "readers": ["DataFile"],
        "rows": ["normalise", "part_of"],
        "shapes": ["convert", "read_row"],
        "splits": ["HeldOut", "hold_out", "split"],
    },
)
