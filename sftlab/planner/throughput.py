"""How long a fine-tune will take: operations of a token, over what a card does in a second.

Operations a token, for W weights in linear layers, L layers, queries of width q, length s and a
vocabulary V that a share u of the positions is scored on (Kaplan et al., arXiv 2001.08361, with the
causal half of attention):

    forward     2 W + 2 L q s + 2 u V h
    backward    twice that; once, where the base is frozen: weights then get no gradient; none below
                the lowest that is trained
    again       2 W + 2 L q s, with checkpointing

A card does UTILISATION of its peak, a round figure between those that were measured with the lab's
own steps on an H100 (benchmarks/gpu). LoRA and QLoRA of 8 billion weights reached 31 to 37% with
8,192 tokens or more a batch, 25 to 30% with 4,096, 15 to 21% with 2,048 and 6% with 512, where the
card waits for Python; int8 11 to 22%; 0.6 to 1.2 billion weights 9 to 31%. Large pretraining runs
report 38-43% (Llama 3, arXiv 2407.21783) and 46% (PaLM, arXiv 2204.02311). Give a measured
throughput instead where you have one.
"""

from dataclasses import dataclass

from sftlab.machine import matrix_speed
from sftlab.planner.memory import Memory
from sftlab.train import SettingsError

UTILISATION = 0.3
"""Share of a card's peak that training reaches (see above)."""
ON_CPU = 0.8
"""Share of a float32 matrix product's speed that the tiny model's fine-tune reached here."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """One graphics card."""

    peak: float
    """Operations a second, dense, bfloat16 with sums in float32; float16 where it has no
    bfloat16."""
    memory: float
    """Bytes, as sold."""
    source: str
    """Where the figures are from."""


# Data sheets often print the doubled figure "with sparsity"; these are the dense ones.
CARDS = {
    "t4": Card(peak=65e12, memory=16e9, source="NVIDIA T4 data sheet (float16; no bfloat16)"),
    "rtx-3060-12gb": Card(
        peak=25.5e12, memory=12e9,
        source="the GA102 white paper's figure for the RTX 3090, scaled to 28 multiprocessors at "
        "1.78 GHz, of NVIDIA's page on the RTX 3060"),
    "rtx-3090": Card(peak=71e12, memory=24e9, source="NVIDIA Ampere GA102 white paper"),
    "rtx-4090": Card(peak=165.2e12, memory=24e9, source="NVIDIA Ada GPU architecture white paper"),
    "a10": Card(peak=125e12, memory=24e9, source="NVIDIA A10 data sheet"),
    "l4": Card(peak=121e12, memory=24e9, source="NVIDIA L4 data sheet, half of the sparse figure"),
    "l40s": Card(peak=362e12, memory=48e9, source="NVIDIA L40S data sheet"),
    "a100-40gb": Card(peak=312e12, memory=40e9, source="NVIDIA A100 data sheet"),
    "a100-80gb": Card(peak=312e12, memory=80e9, source="NVIDIA A100 data sheet"),
    "h100": Card(peak=989e12, memory=80e9, source="NVIDIA H100 SXM data sheet, half of sparse"),
    "h200": Card(peak=989e12, memory=141e9, source="NVIDIA H200 SXM data sheet, half of sparse"),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Speed:
    """How fast, and by which figures."""

    tokens_per_second: float
    """Tokens trained on in a second, padding included."""
    operations: float
    """Operations a token."""
    source: str
    """Where the speed is from."""

    def hours(self, tokens: float) -> float:
        """Hours that so many tokens take."""
        return tokens / self.tokens_per_second / 3600


def operations_per_token(memory: Memory) -> float:
    """Operations of one trained token, by the formula above."""
    a, step = memory.architecture, memory.step
    layers = 2 * a.linear_weights + 2 * a.layers * a.queries * step.length
    forward = layers + 2 * step.supervised * a.head_weights
    head = forward - layers
    if step.method in ("full", "gradual"):
        backward = 2 * forward
    elif step.method == "frozen":
        backward = 2 * layers * step.upper / a.layers + (1 if a.tied else 2) * head
    elif step.method == "head":
        backward = layers + 2 * head if a.tied else head
    else:
        backward = forward
    return forward + backward + (layers if step.checkpointing else 0)


def find_card(name: str) -> Card:
    """A card by name.

    Raises:
        SettingsError: it is not in the table; the message lists those that are.
    """
    if name.lower() not in CARDS:
        raise SettingsError(
            f"card is {name!r}; choose one of {', '.join(CARDS)}, or give the tokens a second "
            "(throughput) and its memory"
        )
    return CARDS[name.lower()]


def speed(memory: Memory, *, card: str | None = None, throughput: float | None = None) -> Speed:
    """Tokens a second: as given, by a card's peak, or by a matrix product timed on this machine.

    Raises:
        SettingsError: an unknown card, a throughput that is not above zero, or float32 products on
            a card, for which the table has no figure.
    """
    operations = operations_per_token(memory)
    if throughput is not None:
        if not throughput > 0:
            raise SettingsError(f"throughput is {throughput!r}; give tokens a second, above zero")
        return Speed(tokens_per_second=throughput, operations=operations, source="as given")
    if card is not None:
        found = find_card(card)
        if memory.step.product == 4:
            raise SettingsError(
                "the table of cards has peaks of bfloat16 products: choose precision bfloat16, or "
                "give the tokens a second (throughput)"
            )
        return Speed(
            tokens_per_second=UTILISATION * found.peak / operations,
            operations=operations,
            source=f"estimate: {UTILISATION:.0%} of {found.peak / 1e12:g} TFLOP/s ({found.source})",
        )
    device = memory.step.device
    share = ON_CPU if device == "cpu" else UTILISATION
    timed = matrix_speed(device)
    return Speed(
        tokens_per_second=share * timed / operations,
        operations=operations,
        source=f"estimate: {share:.0%} of {timed / 1e9:.0f} GFLOP/s, a float32 product timed on "
        "this machine now",
    )
