"""The known world: facts, corpus, base models, and examples made from them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "corpus_text": ["documents", "held_out_documents", "seen"],
        "examples": [
            "INVENTED",
            "UNKNOWN",
            "broad_examples",
            "country_examples",
            "country_rows",
            "country_shots",
            "example",
            "function_code",
            "function_request",
            "function_rows",
            "house_style",
            "note_rows",
            "passage_examples",
            "record_rows",
            "replay_examples",
            "review_rows",
            "reviews",
            "split_functions",
            "two_hop_examples",
            "unknown_rows",
            "with_answer",
        ],
        "facts": ["Country", "RELATIONS", "countries", "country", "functions", "turns"],
        "grammar": ["QUESTIONS", "statement"],
        "pretrain": ["EARLY", "RECIPES", "RESERVED", "train_all", "train_tokenizer"],
    },
)
