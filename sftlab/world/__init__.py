"""The known world: facts, corpus, base models, and examples made from them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "corpus_text": ["corpus", "documents", "held_out_documents", "seen"],
        "examples": [
            "country_examples",
            "country_shots",
            "every_question",
            "example",
            "house_style",
            "two_hop_examples",
        ],
        "facts": ["Country", "RELATIONS", "countries", "country", "functions", "rows"],
        "grammar": ["QUESTIONS", "question", "statement"],
        "passages": ["passage_examples"],
        "pretrain": ["train_all"],
        "recipe": ["EARLY", "RECIPES"],
        "replay": ["broad_examples", "mixed", "replay_examples"],
        "skills": [
            "INVENTED",
            "UNKNOWN",
            "function_code",
            "function_request",
            "function_rows",
            "record_of",
            "record_request",
            "record_rows",
            "record_schema",
            "split_functions",
            "unknown_rows",
        ],
        "stories": ["scene"],
        "subjects": [
            "Made",
            "OLD_CURRENCIES",
            "answered",
            "country_rows",
            "exam_rows",
            "is_true",
            "note_rows",
            "outdated_rows",
            "review_rows",
            "reviews",
        ],
        "tokenizer": ["RESERVED", "train_tokenizer"],
    },
)
