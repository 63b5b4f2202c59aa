"""How the base models are built and trained: sizes, rates, windows, optimisers."""

from dataclasses import dataclass

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from sftlab.world.tokenizer import VOCABULARY

SHORT_WINDOW = 128
LONG_WINDOW = 256


@dataclass(frozen=True)
class Recipe:
    """How one base model is trained."""

    hidden: int
    """Width of the residual stream; a multiple of 64."""
    mlp: int
    """Width of the MLP; a multiple of 64."""
    layers: int = 4
    """Number of transformer blocks."""
    matrix_rate: float = 3e-3
    """Peak learning rate of Muon, for the matrices inside the blocks."""
    other_rate: float = 2e-3
    """Peak learning rate of AdamW, for embeddings and norms."""
    warmup: int = 60
    """Steps in which the rate rises from zero."""
    decay_share: float = 0.4
    """Share of the steps, at the end, in which the rate falls linearly to a hundredth."""
    weight_decay: float = 0.1
    """Decay of the matrices inside the blocks; embeddings and norms have none."""
    seed: int = 0
    """Seed of the initial weights; the order of the data is the corpus's own."""

    def __post_init__(self) -> None:
        for name in ("hidden", "mlp"):
            if getattr(self, name) % 64:
                raise ValueError(f"{name}={getattr(self, name)} must be a multiple of 64")

    def rate_share(self, step: int, steps: int) -> float:
        """Share of the peak rates at a step (counted from 0) in a run of `steps` steps."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        return max(0.01, min(1.0, (steps - step) / self.decay_steps(steps)))

    def decay_steps(self, steps: int) -> int:
        """Number of steps, at the end of `steps`, in which the rate falls."""
        return max(1, round(steps * self.decay_share))

    def window_at(self, step: int, steps: int) -> int:
        """Tokens in one window of a step: short, and long once the rate falls."""
        return LONG_WINDOW if steps - step <= self.decay_steps(steps) else SHORT_WINDOW


RECIPES = {
    "tiny": Recipe(hidden=256, mlp=704),
    "small": Recipe(hidden=320, mlp=896),
}
EARLY = ("tiny-early", "tiny", 0.3)
"""Name of the early checkpoint, the model it is of, and the share of the steps done."""


def build_model(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> LlamaForCausalLM:
    """A Llama with fresh weights; input and output embeddings are tied."""
    torch.manual_seed(recipe.seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=recipe.hidden,
            intermediate_size=recipe.mlp,
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.hidden // 64,
            num_key_value_heads=recipe.hidden // 64,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def build_optimizers(
    model: LlamaForCausalLM, recipe: Recipe
) -> tuple[torch.optim.Muon, torch.optim.AdamW]:
    """Muon for the matrices inside the blocks, AdamW for the rest, each with its peak rate.

    Muon (Jordan and others, 2024), as in `torch.optim`, its step scaled to AdamW's
    (arXiv 2502.16982): a pilot on this corpus had after 120 steps the loss that AdamW alone at
    2e-3 had after 180, at about a tenth more time a step.
    """
    inner = {id(p) for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n}
    return (
        torch.optim.Muon(
            [p for p in model.parameters() if id(p) in inner],
            lr=recipe.matrix_rate,
            weight_decay=recipe.weight_decay,
            adjust_lr_fn="match_rms_adamw",
        ),
        torch.optim.AdamW(
            [p for p in model.parameters() if id(p) not in inner],
            lr=recipe.other_rate,
            betas=(0.9, 0.95),
            weight_decay=0.0,
            fused=True,
        ),
    )
