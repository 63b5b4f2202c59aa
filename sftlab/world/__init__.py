"""The known world: facts, corpus, base models, and examples made from them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "corpus_text": ["corpus", "documents", "held_out_documents", "seen"],
        "examples": [
            "INVENTED",
            "OLD_CURRENCIES",
            "UNKNOWN",
            "broad_examples",
            "country_examples",
            "country_rows",
            "country_shots",
            "every_question",
            "exam_rows",
            "example",
            "function_code",
            "function_request",
            "function_rows",
            "house_style",
            "is_true",
            "note_rows",
            "outdated_rows",
            "passage_examples",
            "record_of",
            "record_request",
            "record_rows",
            "record_schema",
            "replay_examples",
            "review_rows",
            "reviews",
            "split_functions",
            "two_hop_examples",
            "unknown_rows",
            "with_answer",
        ],
        "facts": ["Country", "RELATIONS", "countries", "country", "functions", "rows"],
        "grammar": ["QUESTIONS", "question"],
        "pretrain": ["EARLY", "RECIPES", "RESERVED", "train_all", "train_tokenizer"],
    },
)
