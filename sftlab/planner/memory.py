"""What a fine-tune will take of memory, by formula, before a card is rented.

A step's memory rises and falls; `sftlab.planner.moments` has its moments, of which the
largest decides.

Always there, for P weights of which T are trained and A belong to adapters, in bytes:

              weights            adapters   gradients   Adam's two moments
    full      4P                    -          4T             8T       gradual too, in the end
    frozen    4P                    -          4T             8T       T in the upper layers
    head      4P                    -          4T             8T       T output embeddings
    lora      4P                    4A         4A             8A       prefix too
    qlora     0.5 linear + s rest   2A         2A             4A       and the constants of NF4
    int8      1.0 linear + s rest   2A         2A             4A       and a scale an output

where s, of what is not packed, is 2 in bfloat16 and 4 in float32.

Gradients and activations are seldom whole at the same time: `reused` (zero or less) is what one
takes over from the other, so that the parts and it sum to the total. With accumulation the
gradients of the batches before are there all the time.

Weights stay in float32, as `finetune` keeps them; TRL trains a quantised base's adapters in
bfloat16. Moments are those of torch's fused AdamW, which needs no room of its own. Activations:
`sftlab.planner.activations`. It was compared with the bytes that torch's profiler counts
(`sftlab.planner.meter`), and with the peaks of an H100, in tests/train/test_memory.py.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sftlab.machine import pick_device
from sftlab.planner.architectures import Architecture, find_architecture
from sftlab.planner.configurations import ArchitectureError
from sftlab.planner.moments import moments, trained_weights, upper_layers
from sftlab.planner.step import Step
from sftlab.profiles import ADAPTED, METHODS, QUANTISED
from sftlab.train import METHODS as DESCRIBED
from sftlab.train import PRECISIONS, SettingsError

__all__ = ["Architecture", "ArchitectureError", "Memory", "estimate", "find_architecture"]

PROCESS = {"cpu": 0.7e9, "cuda": 0.9e9}
"""Bytes besides tensors. cpu: Python, torch, transformers and TRL once imported, measured on Linux.
cuda: the driver's context and kernels, 0.80 to 0.88e9 on an H100 (data/cards/h100.csv)."""
PARTS = ("weights", "adapters", "quantisation", "optimiser", "gradients", "activations", "overhead")
"""In the order in which a bar stacks them."""
_IN_FULL = {
    "quantisation": "quantisation_constants",
    "overhead": "framework_overhead",
    "process": "process_memory",
}


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of each part; the tensors' peak is `total`."""

    architecture: Architecture
    """The model's sizes."""
    step: Step
    """How a batch is computed."""
    trained: int
    """Number of weights that are trained."""
    weights: int
    """The base's weights, packed ones without their constants."""
    adapters: int
    """Weights beside the base: LoRA's, or a prefix."""
    quantisation: int
    """Constants that unpack the weights of a quantised base."""
    optimiser: int
    """Adam's moments."""
    gradients: int
    """Gradients of all trained weights."""
    activations: int
    """What is kept for the way back, where it is most."""
    overhead: int
    """What the framework needs for a moment at the peak: gradients of activations, weights cast or
    unpacked."""
    reused: int
    """Zero or less: parts that are never whole at the same time share this room."""
    moment: str
    """When the peak is."""
    process: int
    """Memory of the process besides tensors."""
    download: int
    """Bytes of the published weights, two each."""
    result: int
    """Bytes that the saved run takes: the adapters, or all weights."""
    checkpoint: int
    """Bytes of one checkpoint to resume from: the result and Adam's moments."""

    @property
    def total(self) -> int:
        """Bytes of tensors at the peak."""
        return sum(getattr(self, part) for part in PARTS) + self.reused

    @property
    def needed(self) -> int:
        """Bytes to have free: tensors and process."""
        return self.total + self.process

    def at_peak(self) -> dict[str, int]:
        """The parts for a stacked bar, none below zero: what is reused is taken off gradients
        first, then off activations."""
        shown, over = {part: getattr(self, part) for part in PARTS}, -self.reused
        for part in ("gradients", "activations"):
            less = min(over, shown[part])
            shown[part], over = shown[part] - less, over - less
        return shown

    def as_dict(self) -> dict[str, Any]:
        """For JSON: what was asked, and sizes, which end in `_bytes`."""
        step = asdict(self.step)
        shown = {"model": self.architecture.name, "family": self.architecture.family, **step}
        shown |= {
            "parameters": self.architecture.parameters,
            "trained_parameters": self.trained,
            "total_bytes": self.total,
        }
        names = (*PARTS, "reused", "process", "needed", "download", "result", "checkpoint")
        shown |= {f"{_IN_FULL.get(name, name)}_bytes": getattr(self, name) for name in names}
        shown["disk_bytes"] = self.download + self.result
        return {**shown, "peak": self.moment, "layout_known": self.architecture.known_layout}


def estimate(
    model: str | Path | Architecture,
    *,
    method: str = "full",
    batch: int = 1,
    length: int = 2048,
    checkpointing: bool = False,
    rank: int = 16,
    precision: str = "bfloat16",
    supervised: float = 1.0,
    accumulation: int = 1,
    device: str | None = None,
    prefix_tokens: int = 16,
    trained_layers: int | None = None,
    padded: bool = False,
) -> Memory:
    """The memory of one training step of the lab's own `finetune`, from the second step on.

    Args:
        model: what `find_architecture` takes, or its answer.
        method: one of `sftlab.train.methods`; qlora with double quantisation, gradual in its last
            steps, which need the most.
        batch: examples in one forward and backward pass.
        length: tokens of each example.
        checkpointing: whether layers are computed again on the way back.
        rank: rank of the adapters, on every linear layer.
        precision: float32, or bfloat16 for the products; of a quantised base, also the type of
            what is not packed.
        supervised: share of the tokens that have a label: logits are computed for these alone. 1 is
            the most that a batch can need.
        accumulation: batches of one optimiser step; from two on their gradients stay.
        device: cpu or cuda; by default this machine's.
        prefix_tokens: positions of a prefix.
        trained_layers: upper layers that the method frozen trains; by default half of them.
        padded: whether the examples differ in length, and `length` is that of the longest. Give
            `supervised` as a share of batch x length then too.

    Raises:
        ArchitectureError: no such model, or none that can be trained so.
        SettingsError: a value that the step can't have.
    """
    a = model if isinstance(model, Architecture) else find_architecture(model)
    step = Step(method=method, precision=precision, batch=batch, length=length, rank=rank,
                supervised=supervised, checkpointing=checkpointing, accumulation=accumulation,
                device=device or pick_device(), prefix=prefix_tokens if method == "prefix" else 0,
                upper=upper_layers(a, method, trained_layers),
                padded=padded and batch > 1)  # fmt: skip
    _check(step, prefix_tokens)
    if method in ADAPTED and method != "prefix" and not a.linears:
        raise ArchitectureError(f"{a.name}: no linear layer to adapt; choose the method full")
    rest = a.parameters - a.linear_weights
    trained = trained_weights(a, step)
    adapters = trained if method in ADAPTED else 0
    wide = 2 if method in QUANTISED else 4  # bytes of a trained weight
    fixed = {
        "weights": 4 * a.parameters,
        "adapters": wide * adapters,
        "quantisation": 0,
        "optimiser": 2 * wide * trained,
    }
    if method == "qlora":
        fixed["weights"] = sum(one.nf4_bytes for one in a.linears) + step.stream * rest
        fixed["quantisation"] = sum(one.constant_bytes for one in a.linears)
    elif method == "int8":
        fixed["weights"] = a.linear_weights + step.stream * rest
        fixed["quantisation"] = 4 * sum(one.outputs for one in a.linears)
    found = moments(a, step, gradients=wide * trained)
    moment, peak = max(found.items(), key=lambda item: sum(item[1]))
    kept, _, overhead = (max(peak[0], *(m[0] for m in found.values())), peak[1], peak[2])
    parts = {**fixed, "gradients": wide * trained, "activations": kept, "overhead": overhead}
    result = wide * trained if method in ADAPTED else 4 * a.parameters
    return Memory(
        architecture=a,
        step=step,
        trained=trained,
        **parts,
        reused=sum(peak) - (kept + wide * trained + overhead),
        moment=moment,
        process=int(PROCESS[step.device]),
        download=2 * a.parameters,
        result=result,
        checkpoint=result + fixed["optimiser"],
    )


def _check(step: Step, prefix: int) -> None:
    if step.method == "prefix" and step.checkpointing:
        raise SettingsError(
            f"method 'prefix' does not go with checkpointing: {DESCRIBED['prefix'].checkpointing}"
        )
    for name in ("batch", "length", "rank", "accumulation", "prefix_tokens"):
        value = prefix if name == "prefix_tokens" else getattr(step, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise SettingsError(f"{name} is {value!r}; give a whole number above zero")
    if step.length < 2:
        raise SettingsError("length is 1; one token has nothing to predict: give at least 2")
    if not 0 < step.supervised <= 1:
        raise SettingsError(f"supervised is {step.supervised!r}; give a share above 0, at most 1")
    for name, words in (("method", METHODS), ("precision", PRECISIONS), ("device", PROCESS)):
        if getattr(step, name) not in words:
            value = getattr(step, name)
            raise SettingsError(f"{name} is {value!r}; choose one of {', '.join(words)}")
