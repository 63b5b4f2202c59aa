"""What a fine-tune needs of memory and time."""

import lazy_loader

_SIZES = ["build_empty", "expert_stacks", "find_architecture", "layer_roles", "read_configuration"]
_GPUS = ["Case", "GPUS", "UTILISATION", "find_gpu", "on_gpus", "operations_per_token", "speed"]

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "architectures": ["ArchitectureError", *_SIZES],
        "gpus": _GPUS,
        "memory": ["Memory", "PARTS", "PlanError", "estimate"],
        "preflighting": ["PreflightError", "needs", "preflight"],
    },
)
