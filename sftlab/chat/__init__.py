"""Chat templates, the masks made from them, and the template doctor."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "contract": [
            "CONTRACT",
            "FIXTURES",
            "contract_changes",
            "find_system_prompt",
            "make_contract",
        ],
        "doctor": ["Diagnosis", "Finding", "examine"],
        "masking": ["IGNORED", "MaskError", "label_rows", "labels"],
        "missing": ["Missing"],
        "shadow": ["trace"],
        "spans": ["Messages", "Span", "assistant_spans", "find_turn_end"],
        "templates": [
            "CHATML",
            "FAMILIES",
            "Template",
            "TemplateError",
            "find_template",
            "installed_templates",
        ],
        "tokenizer_setup": [
            "control_tokens",
            "resize_embeddings",
            "setup_chat_template",
            "setup_tokenizer",
        ],
    },
)
