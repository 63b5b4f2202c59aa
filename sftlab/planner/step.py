"""How a batch is computed, as far as its memory and its time depend on it."""

from dataclasses import dataclass

from sftlab.profiles import ADAPTED, QUANTISED

SHORT = 512
"""Tokens up to which the step takes plain products on a CPU."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """How one batch is computed."""

    method: str
    """One of `sftlab.profiles.METHODS`."""
    precision: str
    """float32, or bfloat16 for the products, and of a quantised base for all that is not packed."""
    batch: int
    """Examples."""
    length: int
    """Tokens of each, padding included."""
    supervised: float
    """Share of the tokens that have a label."""
    checkpointing: bool
    """Whether layers are computed again on the way back."""
    rank: int
    """Rank of the adapters."""
    accumulation: int
    """Batches whose gradients make one step of the optimiser."""
    device: str
    """cpu or cuda."""
    prefix: int = 0
    """Positions of a prefix."""
    upper: int = 0
    """Upper layers whose weights are trained."""
    padded: bool = False
    """Whether examples of a batch differ in length."""

    @property
    def tokens(self) -> int:
        """Tokens of the batch."""
        return self.batch * self.length

    @property
    def scored(self) -> int:
        """Positions whose logits are computed; the first token of an example is no target."""
        return max(min(round(self.tokens * self.supervised), self.batch * (self.length - 1)), 1)

    @property
    def product(self) -> int:
        """Bytes of a number that a matrix product gives."""
        return 4 if self.precision == "float32" else 2

    @property
    def stream(self) -> int:
        """Bytes of a number in the residual stream."""
        return self.product if self.quantised else 4

    @property
    def casts(self) -> bool:
        """Whether float32 weights are copied to bfloat16 for each product."""
        return self.product < self.stream

    @property
    def quantised(self) -> bool:
        """Whether the base is held in 4 or 8 bits."""
        return self.method in QUANTISED

    @property
    def lora(self) -> bool:
        """Whether linear layers have adapters."""
        return self.method in ADAPTED and self.method != "prefix"

    @property
    def trained(self) -> bool:
        """Whether weights of the base's layers are trained."""
        return self.method in ("full", "gradual", "frozen")

    @property
    def narrow(self) -> bool:
        """Whether adapters compute in bfloat16 beside a float32 stream, as TRL has it."""
        return self.quantised and self.stream == 4

    @property
    def keeps_inputs(self) -> bool:
        """Whether each layer of a float32 stream keeps what goes into its products: under
        checkpointing they are counted in `kept_in_spite`."""
        return self.method == "int8" and not self.checkpointing

    @property
    def plain_attention(self) -> bool:
        """Whether attention keeps its matrices."""
        return self.device == "cpu" and self.length <= SHORT
