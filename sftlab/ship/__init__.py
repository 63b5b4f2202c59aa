"""What is done with a run that is good enough: its contract, its release, its server."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "gating": ["BOUNDS", "Bounds", "Question", "along", "compare_forms", "free_texts", "gate"],
        "gguf_file": ["GgufError", "TYPES", "interleave", "write_gguf"],
        "releasing": ["FORMS", "GateError", "ReleaseError", "release", "release_questions"],
        "runtimes": ["LlamaCpp", "PRECISIONS", "Transformers", "convert"],
        "generator": ["certain_text"],
        "openai_api": ["ApiError"],
        "server": [
            "ServeError",
            "address_of",
            "contract_hash",
            "create_app",
            "listen",
            "make_server",
            "serving",
        ],
    },
)
