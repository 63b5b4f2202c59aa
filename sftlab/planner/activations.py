"""What a training step keeps for its way back, by formula, for decoders built as Llama is.

Bytes a token and layer, with h the width of the residual stream, q of all queries, k of all keys, m
of the MLP's inner layer, p the bytes of a product (4, or 2 in bfloat16), r the rank of the adapters
and g heads. Ways of computing keep different things:

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

An NF4 base in float32 under bfloat16 adapters multiplies by what it unpacks anew, and keeps of the
inputs of its layers the adapters' copies alone: 10h, 2q and 2m, with 3pm of the MLP. An int8 base
keeps the inputs too.

Where examples of a batch differ in length attention takes a mask: keys and values are then repeated
to all heads, and the mask is kept in the products' type, p bytes for each position attended to. The
same holds before a prefix.

A layer whose weights are frozen, without adapters, that a gradient passes through (to a prefix, or
to shared embeddings) keeps no input of a product: 8h, attention, 3pm. One below all that is trained
keeps nothing. In the last layer the MLP is computed for supervised positions alone
(`sftlab.train.positions`).

Llama without grouped queries in float32 has q = k = h: 40h + 16m, as Korthikanti et al. count it
(arXiv 2205.05198) for another layout. torch's fused attention keeps no matrix of length x length.
On a CPU the step uses plain products up to 512 tokens (`sftlab.train.step.quick_attention`): in
place of q, k, v come 12q in float32, keys and values repeated to all heads, and 4g bytes for each
position attended to.

Once a step come the last norm, and for each supervised position its row of the vocabulary V: 4V is
kept, 12V are there for a moment while the loss goes back (log-probabilities and two gradients).
With bfloat16 products of float32 weights autograd also keeps a bfloat16 copy of each weight matrix
that a gradient passes.

Checkpointing keeps the input of each layer (4h, or 2h of a base that is held in bfloat16) and one
layer at a time. An int8 base keeps the inputs of its linear layers all the same: bitsandbytes 0.50
holds them where torch's checkpointing does not see them. On a card it also keeps a second copy of
the columns with a value beyond 6, which is not counted here: they are few in a trained model
(LLM.int8(), arXiv 2208.07339, section 4), and nearly all that `down` reads in one of 8 billion
random weights.
"""

from sftlab.planner.architectures import Architecture
from sftlab.planner.step import Step


def kept_in_layer(a: Architecture, step: Step) -> int:
    """Bytes that a layer keeps of the whole batch, by the table above."""
    return step.tokens * (_outside_mlp(a, step) + _in_mlp(a, step))


def spared_in_last(a: Architecture, step: Step) -> int:
    """Bytes that the last layer keeps less: its MLP reads supervised positions alone."""
    return (step.tokens - step.scored) * _in_mlp(a, step) if a.known_layout else 0


def _in_mlp(a: Architecture, step: Step) -> int:
    """Bytes a token that a layer's MLP keeps."""
    p, h, m = step.product, a.hidden, a.mlp
    inner = (2 if step.narrow else p) * step.rank * 3 if step.lora else 0
    if not step.trained and not step.lora:
        return 3 * p * m
    if step.narrow:
        whole = 4 * h + 4 * m if step.keeps_inputs else 0
        return 3 * p * m + 4 * h + 2 * m + whole + inner
    return 4 * p * m + (4 * h if step.casts else p * h) + inner


def _outside_mlp(a: Architecture, step: Step) -> int:
    """Bytes a token that a layer's norms and attention keep."""
    p, h, q, k = step.product, a.hidden, a.queries, a.keys
    found = (16 if step.trained else 8) * h
    reads = step.trained or step.lora
    if step.narrow:
        found += 6 * h + 2 * q + (4 * h if step.keeps_inputs else 0)
    elif reads:
        found += 6 * h if step.casts else p * h
    if step.plain_attention:
        found += 12 * q + 4 * a.heads * (step.length + step.prefix)
        found += p * q if reads and (step.keeps_inputs or not step.narrow) else 0
    elif step.prefix or step.padded:
        wide = step.length + step.prefix
        found += p * (2 * q + 2 * q * wide // step.length + wide) + 4 * a.heads
    else:
        found += p * (2 * q + 2 * k) + 4 * a.heads
    if step.casts and step.lora and not step.plain_attention:
        found += 2 * q
    if a.normed_queries:
        found += (4 + p * step.trained) * (q + k)
    if step.lora:
        found += (2 if step.narrow else p) * step.rank * 4
    return found


def kept_in_spite(a: Architecture, step: Step) -> int:
    """Bytes that all layers keep under checkpointing, besides what goes into a layer."""
    if step.method != "int8":
        return 0
    inputs = step.tokens * (2 * a.hidden + a.queries + a.mlp) * a.layers
    spared = (step.tokens - step.scored) * (a.hidden + a.mlp) if a.known_layout else 0
    return step.product * (inputs - spared)


def kept_outside(a: Architecture, step: Step) -> int:
    """Bytes kept before and after the layers: the last norm, what the head multiplies."""
    if step.method == "head":
        norm = 4 * a.hidden if a.tied else 0
        return step.tokens * norm + step.scored * step.product * a.hidden
    norm = (8 if step.trained else 4) * a.hidden
    head = step.product * a.hidden if trains_head(a, step) else 0
    return step.tokens * norm + step.scored * head


def trains_head(a: Architecture, step: Step) -> bool:
    """Whether the output embeddings have a gradient."""
    return step.method in ("full", "gradual", "head") or (step.method == "frozen" and not a.tied)


def kept_scores(a: Architecture, step: Step) -> int:
    """Bytes of the supervised positions' log-probabilities."""
    return 4 * step.scored * a.vocabulary


def working_in_loss(a: Architecture, step: Step) -> int:
    """Bytes that the way back through the loss needs for a moment, besides the kept scores."""
    return 8 * step.scored * a.vocabulary


def working_in_head(a: Architecture, step: Step) -> int:
    """The same while the output embedding's gradient is made: the scores' gradient, and in bfloat16
    a first copy of the gradient; the scores themselves are gone."""
    copy = 2 * a.head_weights if step.casts and trains_head(a, step) else 0
    return step.product * step.scored * a.vocabulary + copy


def working_in_layer(a: Architecture, step: Step) -> int:
    """The same inside a layer: the MLP's three inner gradients, of which one takes the place of the
    product, the stream's gradient, and the largest weight's gradient or its NF4 unpacked.

    Where LoRA's inputs were cast, the product's gradient is there in both types, from both paths.
    """
    p, h, m = step.product, a.hidden, a.mlp
    if step.casts:
        inner = 8 * h + 8 * m if step.lora else 6 * h + 2 * p * m
    else:
        inner = step.stream * h + 2 * p * m + (2 * m if step.narrow else 0)
    largest = max((linear.weights for linear in a.linears), default=0)
    each = step.product if step.quantised else 4 if step.trained else 0
    weight = each * largest
    found = step.tokens * inner + weight
    if step.plain_attention:
        # By then the MLP has given back what it kept; the matrices have two gradients.
        freed = 4 * p * m + outputs_of_a_norm(step) * h
        wide = a.heads * (step.length + step.prefix)
        found = max(found, step.tokens * (8 * wide - freed))
    return found


def working_forward(a: Architecture, step: Step) -> int:
    """Bytes of a layer that keeps nothing, while it is computed: the stream, and the MLP's inner
    parts or the matrices of attention."""
    p, h = step.product, a.hidden
    wide = a.heads * step.length if step.plain_attention else 0
    inner = max(3 * p * a.mlp + 2 * step.casts * h, 8 * wide + 12 * a.queries * (wide > 0))
    largest = max((linear.weights for linear in a.linears), default=0)
    return step.tokens * (2 * step.stream * h + inner) + 2 * largest * step.casts


def outputs_of_a_norm(step: Step) -> int:
    """Bytes a channel that the second norm's output and input take, which are freed together."""
    return (4 if step.casts else step.product) + (8 if step.trained else 4)


def copies(a: Architecture, step: Step, *, layers: int) -> int:
    """Bytes of the bfloat16 copies of the weight matrices of some layers that a gradient passes."""
    return 2 * a.linear_weights * layers // a.layers if step.casts else 0


def head_copy(a: Architecture, step: Step) -> int:
    """The same of the output embedding."""
    return 2 * a.head_weights if step.casts else 0
