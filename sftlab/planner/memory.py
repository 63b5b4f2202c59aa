"""The memory of a training step, by one formula a term, before anything is loaded.

Bytes, for P weights of which T are trained and A belong to adapters:

    weights      4P, or 2P of a base in bfloat16 beside LoRA; in NF4 0.516 of each linear weight
                 (half a byte, and scales: a byte for 64, 4 for 64 x 256; arXiv 2305.14314), in int8
                 1; what is not quantised 2 in bfloat16
    adapters     4A, or 2A on a quantised base
    gradients    4T, or 2T of a quantised base
    optimizer    twice the gradients: Adam's two moments
    activations  what autograd keeps for the backward pass, see `_kept_per_token`; with gradient
                 checkpointing the input of each layer
    logits       12 V for each supervised position: log-probabilities and two gradients
    temporary    bfloat16 copies of float32 weights; and, where that is more than the logits, what
                 one layer needs in the backward pass

At the start of the backward pass all activations and logits are there and no gradient; at its end
all gradients and no activation. The larger of the two is the peak. With gradient accumulation the
gradients of earlier batches are there all the time.

`data/gpus` has the peaks of 29 fine-tunes on an H100: plans are within 3% of them, int8 within 6%
(tests/planner holds them to 5 and 10). bitsandbytes keeps columns with a value beyond 6 twice
(LLM.int8(), arXiv 2208.07339); a plan counts all that `down` reads, the most there can be.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sftlab.machine import pick_device
from sftlab.planner.architectures import Architecture, find_architecture
from sftlab.profiles import ADAPTED, METHODS, QUANTISED

PARTS = ("weights", "adapters", "optimizer", "gradients", "activations", "logits", "temporary")
"""In the order in which a bar stacks them."""
PROCESS = {"cpu": 0.7e9, "cuda": 0.9e9}
"""Bytes besides tensors. cpu: Python, torch, transformers and TRL once imported, measured on Linux.
cuda: the driver's context and kernels, 0.80 to 0.88e9 on an H100."""
PLAIN_ATTENTION = 512
"""Tokens up to which the lab's step computes attention's matrices on a CPU, and keeps them."""


class PlanError(ValueError):
    """A step that can't be planned; the message says which value is wrong."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """How a batch is computed."""

    method: str = "full"  # one of METHODS; gradual is planned for its last steps, the largest
    per_device_train_batch_size: int = 1  # examples in one forward and backward pass
    max_length: int = 2048  # tokens of each example
    gradient_checkpointing: bool = False  # layers are computed again in the backward pass
    r: int = 16  # rank of the adapters, on every linear layer
    # Whether matrices are multiplied in bfloat16, else in float32; of a quantised base also the
    # type of what is not quantised.
    bf16: bool = True
    supervised: float = 1.0  # share of the tokens that have a label: only these have logits
    gradient_accumulation_steps: int = 1  # batches of one optimizer step
    device: str | None = None  # cpu or cuda; by default this machine's
    num_virtual_tokens: int = 16  # positions of a prefix
    trained_layers: int | None = None  # upper layers that frozen trains; by default half of them
    # Whether examples differ in length, and `max_length` is that of the longest; `supervised` is a
    # share of batch x max_length then too.
    padded: bool = False
    # Whether LoRA's base is held in bfloat16, as is usual; the lab's own holds it in float32.
    half_base: bool = False

    def __post_init__(self) -> None:
        names = ("per_device_train_batch_size", "max_length", "r", "gradient_accumulation_steps")
        for name in (*names, "num_virtual_tokens", "trained_layers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise PlanError(f"{name} is {value!r}; give a whole number above zero")
        if not 0 < self.supervised <= 1:
            raise PlanError(f"supervised is {self.supervised!r}; give a share above 0, at most 1")
        if self.method not in METHODS:
            raise PlanError(f"method is {self.method!r}; choose one of {', '.join(METHODS)}")
        if self.method == "prefix" and self.gradient_checkpointing:
            raise PlanError("method 'prefix' does not go with gradient_checkpointing")
        if self.half_base and not (self.method == "lora" and self.bf16):
            raise PlanError("half_base is for method 'lora' in bf16")


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of each part. `at_peak` has those that are there at once, `total` their sum."""

    architecture: Architecture
    step: Step
    trained: int  # number of weights that are trained
    weights: int
    adapters: int
    optimizer: int
    gradients: int
    activations: int
    logits: int
    temporary: int
    peak: str  # start or end of the backward pass

    def at_peak(self) -> dict[str, int]:
        """The parts that are there at the peak; the others are 0."""
        gone = ("activations", "logits")
        if self.peak == "start":
            gone = () if self.step.gradient_accumulation_steps > 1 else ("gradients",)
        return {part: 0 if part in gone else getattr(self, part) for part in PARTS}

    @property
    def total(self) -> int:
        """Bytes of tensors at the peak."""
        return sum(self.at_peak().values())

    @property
    def process(self) -> int:
        """Bytes of the process besides tensors."""
        return int(PROCESS[self.step.device])

    @property
    def needed(self) -> int:
        """Bytes to have free: tensors and process."""
        return self.total + self.process

    @property
    def result(self) -> int:
        """Bytes of the saved run: the adapters, or all weights."""
        return self.adapters if self.step.method in ADAPTED else 4 * self.architecture.parameters

    @property
    def checkpoint(self) -> int:
        """Bytes of one checkpoint to resume from: the result and Adam's moments."""
        return self.result + self.optimizer


def estimate(model: str | Path | Architecture, **settings: Any) -> Memory:
    """The memory of one training step of the lab's own `finetune`, from the second step on.

    `model` is what `find_architecture` takes, or its answer; `settings` are fields of `Step`.
    Raises ArchitectureError when there is no such model, PlanError for a value that the step can't
    have.
    """
    a = model if isinstance(model, Architecture) else find_architecture(model)
    step = Step(**settings)
    upper = (step.trained_layers or -(-a.layers // 2)) if step.method == "frozen" else a.layers
    if upper > a.layers:
        raise PlanError(f"trained_layers is {upper}; {a.name} has {a.layers} layers")
    step = replace(
        step,
        device=step.device or pick_device(),
        trained_layers=upper,
        padded=step.padded and step.per_device_train_batch_size > 1,
    )
    quantised, width = step.method in QUANTISED, 2 if step.bf16 else 4
    narrow = quantised or step.half_base  # what flows through the layers is in bfloat16
    tokens = step.per_device_train_batch_size * step.max_length
    again, accumulated = step.gradient_checkpointing, step.gradient_accumulation_steps > 1
    rest = width if narrow else 4
    linear = {"qlora": 1 / 2 + 1 / 64 + 4 / (64 * 256), "int8": 1}.get(step.method, rest)
    trained = {
        "full": a.parameters,
        "gradual": a.parameters,
        "frozen": upper * a.layer_weights + a.hidden + (0 if a.tied else a.head_weights),
        "head": a.head_weights,
        "prefix": 2 * step.num_virtual_tokens * a.layers * a.keys,
    }.get(step.method, a.adapters(step.r))
    gradients = (2 if quantised else 4) * trained
    # The layers that a gradient passes: none below the lowest that is trained.
    passed = 0 if step.method == "head" and not a.tied else upper
    each = _kept_per_token(a, step)
    working = tokens * (8 * a.hidden + 2 * width * a.mlp) + 4 * a.largest
    layer = tokens * each + working
    if again:
        each = (width if narrow else 4) * a.hidden
        if step.method == "int8":  # bitsandbytes holds what its layers read all the same
            each += width * (2 * a.hidden + a.queries + 2 * a.mlp)
    activations = tokens * each * passed
    copies = 0
    if step.bf16 and not narrow:
        copies = 2 * (a.head_weights + (0 if again else a.linear_weights * passed // a.layers))
    # The first token of an example is not a target.
    targets = tokens - step.per_device_train_batch_size
    scored = max(min(round(tokens * step.supervised), targets), 1)
    logits, backward = 12 * scored * a.vocabulary, layer if again else working
    temporary = copies + (0 if logits > backward else backward)
    logits = logits if logits > backward else 0
    start = activations + logits + temporary + gradients * accumulated
    if late := gradients + layer > start:
        temporary = layer
    return Memory(
        architecture=a,
        step=step,
        trained=trained,
        weights=round(linear * a.linear_weights) + rest * (a.parameters - a.linear_weights),
        adapters=gradients if step.method in ADAPTED else 0,
        optimizer=2 * gradients,
        gradients=gradients,
        activations=activations,
        logits=logits,
        temporary=temporary,
        peak="end" if late else "start",
    )


def _kept_per_token(a: Architecture, step: Step) -> int:
    """Bytes that autograd keeps of one token in one layer.

    With h the width of the residual stream, q of queries, k of keys, m of the MLP, g heads, and p
    the bytes of a number (4, or 2 in bfloat16):

        two norms       8h of input, as much of output where their weights are trained
        attention       p (2q + 2k) + 4g: queries, keys, values, output. A mask, for a prefix or for
                        rows of unequal length, repeats keys and values to all heads, and takes p
                        for each position of the row
        MLP             3pm: gate, its activation, up
        inputs          p (2h + m): what the trained or adapted linear layers read; where the norm's
                        float32 output is cast to bfloat16 each layer keeps a copy: 2 (5h + m)

    Korthikanti et al. (arXiv 2205.05198) count another layout in the same way. Fused attention
    keeps no matrix of length x length; the lab's step on a CPU does, for short rows.
    """
    p, h, q, k, m = 2 if step.bf16 else 4, a.hidden, a.queries, a.keys, a.mlp
    wide = step.max_length + (step.num_virtual_tokens if step.method == "prefix" else 0)
    normed = 2 * h + (q + k if a.normed_queries else 0)
    trained = step.method in ("full", "gradual", "frozen")
    kept = (8 if trained else 4) * normed + 3 * p * m
    if step.device == "cpu" and step.max_length <= PLAIN_ATTENTION:
        kept += (12 + p) * q + 4 * a.heads * wide
    elif step.padded or step.method == "prefix":
        kept += p * (4 * q + wide) + 4 * a.heads
    else:
        kept += p * (2 * q + 2 * k) + 4 * a.heads
    if trained or step.method in ("lora", *QUANTISED):
        narrow = step.method in QUANTISED or step.half_base
        cast = step.bf16 != narrow  # adapters next to a float32 stream are bfloat16 too
        kept += 2 * (5 * h + m) if cast else p * (2 * h + m)
    if step.method == "int8":
        kept += p * m
    return kept
