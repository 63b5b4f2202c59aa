"""The memory of a fine-tune, coarsely, from the sizes of a model alone.

Memory, in bytes, for P weights of which T are trained, L layers of width h with an MLP of width m,
batch b of length s and vocabulary V:

    full    16 P                       4 weight + 4 gradient + 8 Adam moments, all float32
    lora     4 P + 16 T                the frozen weights have no gradient and no moments
    qlora    0.52 (P - 2 V h) + 4 V h + 16 T   NF4, double quantisation; embeddings bfloat16
    int8     1.00 (P - 2 V h) + 4 V h + 16 T   a byte a weight
    prefix   4 P                       the prefix itself is next to nothing
    frozen   4 P + 12 T                T half of the layers
    gradual  16 P                      as full, in the last steps
    head     4 P + 12 T                T the output embeddings
    each  +  b s L (40 h + 16 m)       activations kept for the backward pass, float32; under
                                       qlora they are recomputed: b s (2 L h + 40 h + 16 m)
          +  16 min(b s, 4096) min(V, 32768)   TRL scores the vocabulary in tiles of that size
          +  0.7 GB                    Python, torch and transformers themselves
          +  4 P                       the base as loaded, which lessons keep to compare with; of
                                       a qlora profile 0.52 (P - 2 V h) + 4 V h

T counts rank-16 adapters on every linear layer. The activation term follows Korthikanti et al.
(arXiv 2205.05198), without the attention matrices, which torch's fused attention does not keep.
"""

from sftlab.profiles import Profile
from sftlab.weights import Shape


def memory_bytes(count: int, shape: Shape, profile: Profile, method: str) -> float:
    """Peak bytes of training by the formula above (an estimate, not a promise)."""
    embedding = shape.vocabulary * shape.hidden
    # Rank 16 on q, k, v, o (k and v counted as if as wide as q) and on the MLP's three.
    adapters = 16 * shape.layers * (8 * shape.hidden + 3 * (shape.hidden + shape.mlp))
    tokens = profile.per_device_train_batch_size * profile.max_length
    nf4 = 0.52 * max(count - 2 * embedding, 0) + 4 * embedding
    int8 = max(count - 2 * embedding, 0) + 4 * embedding
    fixed = {
        "full": 16 * count,
        "lora": 4 * count + 16 * adapters,
        "qlora": nf4 + 16 * adapters,
        "int8": int8 + 16 * adapters,
        "prefix": 4 * count,
        "frozen": 4 * count + 6 * max(count - 2 * embedding, 0),
        "gradual": 16 * count,
        "head": 4 * count + 12 * embedding,
    }[method]
    base = {"qlora": nf4, "int8": int8}.get(profile.method, 4 * count)  # as `load` gives it
    activations = tokens * shape.layers * (40 * shape.hidden + 16 * shape.mlp)
    if method == "qlora":
        activations = activations / shape.layers + 2 * tokens * shape.layers * shape.hidden
    scores = 16 * min(tokens, 4096) * min(shape.vocabulary, 32768)
    return fixed + activations + scores + 0.7e9 + base
