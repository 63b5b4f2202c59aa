"""What a fine-tune needs of memory and time."""

import lazy_loader

_SIZES = ["ArchitectureError", "find_architecture", "meta_model", "read_configuration", "sizes"]
_GPUS = ["Case", "GPUS", "UTILISATION", "find_gpu", "on_gpus", "operations_per_token", "speed"]

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "architectures": _SIZES,
        "gpus": _GPUS,
        "memory": ["Memory", "PARTS", "PlanError", "estimate"],
        "preflighting": ["PreflightError", "needs", "preflight"],
    },
)
