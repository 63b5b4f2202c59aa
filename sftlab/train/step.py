"""One step of training: which examples it holds, what of them is computed, and in which precision.

TRL's trainer with five changes, each of which `benchmarks/step.py` measures:

    examples of like length share a batch        nothing is computed for padding
    logits only where a label is                 a vocabulary's width for each supervised position
    nothing that no label depends on             see `positions.py`
    bfloat16 products where the processor can    weights and sums stay in float32
    memory that was freed is kept                the system need not clear it anew each step
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from trl import SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from sftlab.train.adapters import cast
from sftlab.train.positions import IGNORED, last_mlp_at, shifted, trimmed

POOL = 8
"""Batches whose examples are sorted by length together: enough that a batch has next to no padding,
few enough that which examples meet still changes with every epoch."""


class Batches(torch.utils.data.Sampler):
    """Order of the examples of an epoch, the same for the same seed and epoch.

    All are shuffled. Then, unless `pool` is 1, those of `pool` batches are sorted by length and cut
    into batches, and the batches are shuffled. `size` counts the examples of a whole optimiser
    step, so that accumulating parts of a step sees the same examples as one large batch. Not
    `shuffled`, they come in every epoch as they stand.

        lengths 9 3 8 4 2 7   size 2, pool 3   ->   [3 2] [9 8] [7 4], in a random order
    """

    def __init__(
        self, lengths: Sequence[int], *, size: int, pool: int, seed: int, shuffled: bool = True
    ) -> None:
        self._lengths, self._size, self._pool, self._seed = list(lengths), size, pool, seed
        self._shuffled = shuffled
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer; a resumed run thereby finds the order it left."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        if not self._shuffled:
            yield from range(len(self))
            return
        draw = torch.Generator().manual_seed(self._seed * 100_003 + self._epoch)
        order = torch.randperm(len(self), generator=draw).tolist()
        batches = []
        for start in range(0, len(order), self._size * self._pool):
            chunk = order[start : start + self._size * self._pool]
            if self._pool > 1:
                chunk.sort(key=lambda index: self._lengths[index])
            batches += [chunk[n : n + self._size] for n in range(0, len(chunk), self._size)]
        # One that is not full stays the last: batches are cut from the order by their size.
        full = [batch for batch in batches if len(batch) == self._size]
        for place in torch.randperm(len(full), generator=draw).tolist():
            yield from full[place]
        for batch in batches:
            if len(batch) < self._size:
                yield from batch


def packing_collator(pad: int):
    """TRL's collator that lays a batch's examples end to end in one row, without padding.

        input_ids      a a a a b b c c c
        position_ids   0 1 2 3 0 1 0 1 2     restart with each example
        labels         . . a a . b . . c     the first of an example is never a label

    transformers builds from the restarts a mask that keeps neighbours blind to each other, but
    only in a forward call without a cache (`use_cache=False`).
    """
    return DataCollatorForLanguageModeling(pad_token_id=pad, padding_free=True)


@contextmanager
def only_positions(model: torch.nn.Module, kept: torch.Tensor) -> Iterator[None]:
    """Compute logits for some positions only, in whatever way the model computes them.

    `kept` is boolean, (batch, length). Within the context the model's logits have the shape
    (1, positions kept, vocabulary). What a model does to its logits afterwards, such as Gemma's
    soft cap, still happens.
    """
    head = model.get_output_embeddings()
    hook = head.register_forward_pre_hook(lambda _, given: (given[0][kept][None], *given[1:]))
    try:
        yield
    finally:
        hook.remove()


def supervised_loss(model, inputs: dict, labels: torch.Tensor, count=None):
    """Loss of the supervised tokens, and whether each was the likeliest.

    Args:
        model: what is called, perhaps wrapped; it has `get_output_embeddings`.
        inputs: what it is called with, without labels.
        labels: (batch, length), unshifted; -100 is ignored.
        count: the loss's divisor; by default the number of supervised tokens here.

    Returns:
        The sum of the losses over `count`, in nats a token, and a boolean tensor (supervised,).
    """
    inputs, targets = trimmed(inputs, shifted(labels))
    kept = targets != IGNORED
    with only_positions(model, kept):
        logits = model(**inputs, use_cache=False).logits[0].float()
    targets = targets[kept]
    loss = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
    return loss / (max(len(targets), 1) if count is None else count), logits.argmax(-1) == targets


def quick_attention(labels: torch.Tensor):
    """On a CPU in bfloat16, torch 2.13's flash attention takes 4 ms a layer to go back through rows
    of 25 tokens, ten times the plain products; those need memory with the length's square."""
    short = labels.device.type == "cpu" and labels.shape[1] <= 512
    return sdpa_kernel(SDPBackend.MATH) if short else nullcontext()


class SupervisedTrainer(SFTTrainer):
    """TRL's trainer, which computes logits where labels are, and takes batches in a given order."""

    order: Batches
    """Set before training: it needs the lengths that TRL's tokenising gives."""
    adapter_dtype: str | None = None
    """Type of the adapters' weights, where there are any."""

    def _get_train_sampler(self, train_dataset=None):
        return self.order

    def get_decay_parameter_names(self, model):
        """A matrix with rows that stay as they are does not decay."""
        still = {name for name, weight in model.named_parameters()
                 if hasattr(weight, "partial") or hasattr(weight, "still")}  # fmt: skip
        return [name for name in super().get_decay_parameter_names(model) if name not in still]

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        cast(self.model, self.adapter_dtype)  # PEFT reads bfloat16 adapters as float32

    def floating_point_ops(self, inputs) -> int:
        """A count that nobody reads: each step would walk all weights for it."""
        return 0

    def create_model_card(self, *args, **kwargs) -> None:
        """None is written beside a checkpoint: TRL's describes a model that is on the hub."""

    def training_step(self, model, inputs, num_items_in_batch=None):
        given = {name: value for name, value in inputs.items() if name != "labels"}
        _, targets = trimmed(given, shifted(inputs["labels"]))
        # Around the way back too: with activation checkpointing it computes attention again.
        with quick_attention(inputs["labels"]), last_mlp_at(self.model, targets != IGNORED):
            return super().training_step(model, inputs, num_items_in_batch)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        if return_outputs or self.aux_loss_enabled:  # experts' balance needs all of the outputs
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        labels = inputs.pop("labels")
        loss, right = supervised_loss(model, inputs, labels, num_items_in_batch)
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes  # which divides by it
        mode = "train" if self.model.training else "eval"
        self._metrics[mode]["mean_token_accuracy"].append(right.float().mean().item())
        return loss
