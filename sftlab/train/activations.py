"""What a training step keeps for its way back, by formula, for decoders built as Llama is.

Bytes a token and layer, with h the width of the residual stream, q of all queries, k of all keys, m
of the MLP's inner layer, p the bytes of a product (4, or 2 in bfloat16), r the rank of the adapters
and g heads. Three ways of computing keep different things:

                        float32 weights     bfloat16 products     NF4 base
                        and products        of float32 weights    in bfloat16
    inputs of 2 norms         8h                  8h                  8h       always float32
    2 normed, if trained      8h                  8h                   -       for the norm's weight
    outputs of 2 norms        8h                 10h                  4h       q, k, v, gate and up
                                                                      each keep a copy if cast
    q, k, v, attention   p (2q + 2k) + 4g    p (2q + 2k) + 4g    p (2q + 2k) + 4g
    its copy for LoRA          -                  2q                   -
    gate, silu(gate), up,     4pm                 4pm                 4pm      the product is what
    their product                                                              `down` multiplies
    adapters, inner           7pr                 7pr                 7pr
    norms of q and k       4 (q + k), and p (q + k) more if trained            Qwen3 only

Llama without grouped queries in float32 has q = k = h: 40h + 16m, as Korthikanti et al. count it
(arXiv 2205.05198) for another layout. torch's fused attention keeps no matrix of length x length.
On a CPU the step uses plain products up to 512 tokens (`sftlab.train.step.quick_attention`): in
place of q, k, v come 12q in float32, keys and values repeated to all heads, and 4g bytes for each
position attended to.

Once a step come the last norm, and for each supervised position its row of the vocabulary V: 4V is
kept, 12V are there for a moment while the loss goes back (log-probabilities and two gradients).
With bfloat16 products of float32 weights autograd also keeps a bfloat16 copy of each weight matrix.

Checkpointing keeps the input of each layer (4h, or 2h of an NF4 base) and one layer at a time.
"""

from dataclasses import dataclass

from sftlab.train.architectures import Architecture

SHORT = 512
"""Tokens up to which the step takes plain products on a CPU."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """How one batch is computed."""

    method: str
    """full, lora or qlora."""
    precision: str
    """float32, or bfloat16 for the products; an NF4 base computes in bfloat16 either way."""
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
        return 4 if self.precision == "float32" and self.method != "qlora" else 2

    @property
    def stream(self) -> int:
        """Bytes of a number in the residual stream."""
        return 2 if self.method == "qlora" else 4

    @property
    def casts(self) -> bool:
        """Whether float32 weights are copied to bfloat16 for each product."""
        return self.product < self.stream

    @property
    def trained(self) -> bool:
        """Whether the base's own weights are trained."""
        return self.method == "full"

    @property
    def plain_attention(self) -> bool:
        """Whether attention keeps its matrices."""
        return self.device == "cpu" and self.length <= SHORT


def kept_in_layer(a: Architecture, step: Step) -> int:
    """Bytes that a layer keeps of the whole batch, by the table above."""
    p, h, q, k = step.product, a.hidden, a.queries, a.keys
    norms = (16 if step.trained else 8) * h
    outputs = (10 if step.casts else 2 * p) * h
    if step.plain_attention:
        attention = 12 * q + 4 * a.heads * step.length + p * q
    else:
        attention = p * (2 * q + 2 * k) + 4 * a.heads
        attention += 2 * q if step.casts and not step.trained else 0
    if a.normed_queries:
        attention += (4 + p * step.trained) * (q + k)
    adapters = 0 if step.trained else p * step.rank * len(a.linears) // a.layers
    return step.tokens * (norms + outputs + attention + 4 * p * a.mlp + adapters)


def kept_outside(a: Architecture, step: Step) -> int:
    """Bytes kept before and after the layers: the last norm, what the head multiplies."""
    norm = (8 if step.trained else 4) * a.hidden
    head = step.product * a.hidden if step.trained else 0
    return step.tokens * norm + step.scored * head


def kept_scores(a: Architecture, step: Step) -> int:
    """Bytes of the supervised positions' log-probabilities."""
    return 4 * step.scored * a.vocabulary


def working_in_loss(a: Architecture, step: Step) -> int:
    """Bytes that the way back through the loss needs for a moment, besides the kept scores."""
    return 8 * step.scored * a.vocabulary


def working_in_head(a: Architecture, step: Step) -> int:
    """The same while the output embedding's gradient is made: the scores' gradient, and in bfloat16
    a first copy of the gradient; the scores themselves are gone."""
    copy = 2 * a.head_weights if step.casts and step.trained else 0
    return step.product * step.scored * a.vocabulary + copy


def working_in_layer(a: Architecture, step: Step) -> int:
    """The same inside a layer: the MLP's three inner gradients, of which one takes the place of the
    product, the stream's gradient, and the largest weight's gradient or its NF4 unpacked.

    Where LoRA's inputs were cast, the product's gradient is there in both types, from both paths.
    """
    p, h, m = step.product, a.hidden, a.mlp
    if step.casts:
        inner = 6 * h + 2 * p * m if step.trained else 8 * h + 8 * m
    else:
        inner = step.stream * h + 2 * p * m
    largest = max((linear.weights for linear in a.linears), default=0)
    weight = {"full": 4, "lora": 0, "qlora": 2}[step.method] * largest
    found = step.tokens * inner + weight
    if step.plain_attention:
        # By then the MLP has given back what it kept; the matrices have two gradients.
        freed = 4 * p * m + outputs_of_a_norm(step) * h
        found = max(found, step.tokens * (8 * a.heads * step.length - freed))
    return found


def outputs_of_a_norm(step: Step) -> int:
    """Bytes a channel that the second norm's output and input take, which are freed together."""
    return (4 if step.casts else step.product) + (8 if step.trained else 4)


def copies(a: Architecture, step: Step, *, layers: int) -> int:
    """Bytes of the bfloat16 copies of the weight matrices of some layers."""
    return 2 * a.linear_weights * layers // a.layers if step.casts else 0


def head_copy(a: Architecture, step: Step) -> int:
    """The same of the output embedding."""
    return 2 * a.head_weights if step.casts else 0
