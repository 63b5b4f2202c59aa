"""The known world: facts, corpus, base models, and examples made from them."""

import lazy_loader

_COUNTRIES = """
    INVENTED UNKNOWN country_examples country_rows country_shots example house_style
    passage_examples two_hop_examples unknown_rows with_answer
""".split()
_OTHERS = """
    broad_examples function_code function_request function_rows note_rows record_rows
    replay_examples review_rows reviews split_functions
""".split()

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "corpus_text": ["documents", "held_out_documents", "seen"],
        "examples": [*_COUNTRIES, *_OTHERS],
        "facts": ["Country", "RELATIONS", "countries", "country", "functions", "turns"],
        "grammar": ["QUESTIONS"],
        "requests": ["split_requests"],
        "pretrain": ["EARLY", "RECIPES", "RESERVED", "train_all", "train_tokenizer"],
    },
)
