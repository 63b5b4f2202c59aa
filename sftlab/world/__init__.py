"""The known world: facts, corpus, base models, and examples made from them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "corpus_text": ["corpus", "documents", "held_out_documents", "seen"],
        "document_kinds": ["scene"],
        "examples": [
            "broad_examples",
            "country_examples",
            "country_shots",
            "every_question",
            "example",
            "house_style",
            "mixed",
            "passage_examples",
            "replay_examples",
            "two_hop_examples",
        ],
        "facts": ["Country", "RELATIONS", "countries", "country", "functions", "rows"],
        "grammar": ["QUESTIONS", "question", "statement"],
        "pretrain": ["EARLY", "RECIPES", "RESERVED", "train_all", "train_tokenizer"],
        "tasks": [
            "INVENTED",
            "OLD_CURRENCIES",
            "UNKNOWN",
            "country_rows",
            "exam_rows",
            "function_code",
            "function_request",
            "function_rows",
            "is_true",
            "note_rows",
            "outdated_rows",
            "record_of",
            "record_request",
            "record_rows",
            "record_schema",
            "review_rows",
            "reviews",
            "split_functions",
            "unknown_rows",
            "with_answer",
        ],
    },
)
