"""What a fine-tune needs of memory and time."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "architectures": [
            "ArchitectureError",
            "built_in",
            "find_architecture",
            "meta_model",
            "read_configuration",
            "sizes",
        ],
        "gpus": [
            "Case",
            "GPUS",
            "Measured",
            "UTILISATION",
            "find_gpu",
            "on_gpus",
            "operations_per_token",
            "speed",
        ],
        "memory": ["Memory", "PARTS", "PlanError", "estimate"],
        "preflighting": ["PreflightError", "needs", "preflight"],
    },
)
