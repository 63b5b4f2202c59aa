"""Chat templates, the masks made from them, and the template doctor."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "diagnosis": ["Diagnosis", "Finding"],
        "doctor": ["examine"],
        "families": ["FAMILIES"],
        "masking": ["IGNORED", "Labels", "MaskError", "label_rows", "labels"],
        "rendering": ["Template", "TemplateError"],
        "sandbox": ["frozen_clock"],
        "spans": ["Messages", "Span", "assistant_spans"],
        "templates": ["CHATML", "find_template", "installed_templates"],
        "tracing": ["trace"],
        "turn_ends": ["find_turn_end"],
    },
)
