"""Bases whose linear layers are held in 4 or 8 bits by bitsandbytes, safe to evaluate at any time.

On a processor with AVX512-BF16, bitsandbytes 0.50 lays 4-bit weights out anew the first time that a
layer computes in evaluation mode without a gradient (`Linear4bit.forward`), and rounds their scales
to bfloat16. A way back through them afterwards reads the old layout, and training goes wrong
without a word. Layers of the course's models never do that: they compute after an evaluation what
they computed before it, bit for bit, on every processor. What it costs is the faster kernel.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers import BitsAndBytesConfig, PreTrainedModel


def quantisation(
    method: str, *, dtype: "torch.dtype", double: bool = True
) -> "BitsAndBytesConfig | None":
    """How bitsandbytes is to hold the linear layers; `None` where it is not to.

    Args:
        method: qlora gives NF4 (arXiv 2305.14314), int8 a byte a weight (arXiv 2208.07339).
        dtype: type that NF4 layers compute in.
        double: whether the scales of NF4's blocks are quantised in turn.
    """
    from transformers import BitsAndBytesConfig

    if method == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    if method != "qlora":
        return None
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=double,
        bnb_4bit_compute_dtype=dtype,
    )


def keep_layout(model: "PreTrainedModel") -> None:
    """Forbid 4-bit layers to lay their weights out anew for inference; see the module."""
    from bitsandbytes.nn import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False
