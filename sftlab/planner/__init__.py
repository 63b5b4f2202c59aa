"""What a fine-tune needs of memory and time."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "activations": ["kept_in_layer"],
        "architectures": ["Linear", "find_architecture", "meta_model", "sizes"],
        "checking": ["GB", "Preflight", "PreflightError", "Row", "preflight"],
        "configurations": ["ArchitectureError", "built_in", "read_configuration"],
        "footprint": ["memory_bytes"],
        "measured": ["Case", "Measured", "on_cards", "read"],
        "memory": ["Memory", "PARTS", "estimate"],
        "meter": ["Meter", "held"],
        "throughput": ["CARDS", "UTILISATION", "find_card", "operations_per_token", "speed"],
    },
)
