"""TRL's trainer with a faster step, which `benchmarks/step.py` measures:

    examples of like length share a batch        nothing is computed for padding
    logits only where a label is                 a vocabulary's width for each supervised position
    no columns right of the last prediction      a decoder looks only to the left
    plain attention for short rows on a CPU      flash attention's backward pass is slow there

Early stopping, the best weights and checkpoints are the Trainer's own.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path

import torch
from datasets import Dataset
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Sampler
from transformers import EarlyStoppingCallback, PrinterCallback, TrainerCallback, get_scheduler
from trl import SFTConfig, SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from sftlab.chat import IGNORED, control_tokens
from sftlab.machine import pick_device, processes
from sftlab.train import methods
from sftlab.train.checkpoints import KeepNewestCheckpoints, TrainingError
from sftlab.train.settings import SFT_CONFIG, Settings

# So it is called since transformers 5.23, where the old name warns.
CHECKPOINTING = "activation_checkpointing"
if CHECKPOINTING not in {one.name for one in fields(SFTConfig)}:
    CHECKPOINTING = "gradient_checkpointing"

# Batches whose examples are sorted by length together: enough that there is next to no padding, few
# enough that which examples meet changes with every epoch.
POOL = 8


class Batches(Sampler):
    """Order of the examples of an epoch, the same for the same seed and epoch.

    All are shuffled. Then, unless `pool` is 1, those of `pool` batches are sorted by length and cut
    into batches of `size`, which are shuffled: `size` is that of a whole optimiser step. It is
    divided among accumulated batches and processes, so the steps are the same however it is.

        lengths 9 3 8 4 2 7   size 2, pool 3   ->   [3 2] [9 8] [7 4], in a random order
    """

    def __init__(
        self, lengths: Sequence[int], *, size: int, pool: int, seed: int, missing: int = 0
    ) -> None:
        self._lengths, self._size, self._pool = list(lengths), size, pool
        self._seed, self._epoch, self._missing = seed, 0, missing

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer; a resumed run thereby finds the order it left."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths) + self._missing

    def __iter__(self) -> Iterator[int]:
        draw = torch.Generator().manual_seed(self._seed * 100_003 + self._epoch)
        order = torch.randperm(len(self._lengths), generator=draw).tolist()
        batches = []
        for start in range(0, len(order), self._size * self._pool):
            chunk = order[start : start + self._size * self._pool]
            if self._pool > 1:
                chunk.sort(key=lambda index: self._lengths[index])
            batches += [chunk[n : n + self._size] for n in range(0, len(chunk), self._size)]
        # One that is not full stays the last: batches are cut from the order by their size.
        full = len(order) // self._size
        for place in [*torch.randperm(full, generator=draw).tolist(), *range(full, len(batches))]:
            yield from batches[place]
        yield from range(len(order), len(self))


def trimmed(inputs: dict, labels: torch.Tensor) -> tuple[dict, torch.Tensor]:
    """Inputs, and what each position predicts (the label after it), without columns on the right.

    labels    . . . A B . .          targets   . . A B
    """
    targets = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED)
    columns = (targets != IGNORED).any(dim=0).nonzero()
    width = int(columns[-1]) + 1 if len(columns) else targets.shape[1]
    tensors = {name: value for name, value in inputs.items() if isinstance(value, torch.Tensor)}
    if any(value.shape != targets.shape for value in tensors.values()):  # bounds of packed examples
        return inputs, targets
    return inputs | {name: one[:, :width] for name, one in tensors.items()}, targets[:, :width]


def supervised_loss(model, inputs: dict, labels: torch.Tensor, count=None) -> torch.Tensor:
    """Sum of the losses over `count`, by default the mean, in nats a supervised token, of labels
    (batch, length) that are not shifted yet. Logits are computed for these alone, by a hook before
    the model's own head: what it does to them afterwards (Gemma's soft cap) still happens."""
    inputs, targets = trimmed(inputs, labels)
    kept = targets != IGNORED
    head = getattr(model, "module", model).get_output_embeddings()  # DistributedDataParallel's
    with head.register_forward_pre_hook(lambda _, given: (given[0][kept][None], *given[1:])):
        logits = model(**inputs, use_cache=False).logits[0].float()
    targets = targets[kept]
    loss = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
    return loss / (max(len(targets), 1) if count is None else count)


@torch.no_grad()
def mean_loss(model, rows: Sequence[dict], pad: int, *, batch_size: int = 64) -> float:
    """Mean loss of the supervised tokens of labelled rows, in nats and the model's precision."""
    collate = DataCollatorForLanguageModeling(pad_token_id=pad)
    rows = sorted(rows, key=lambda row: len(row["input_ids"]))
    training = model.training
    model.eval()
    total = count = 0
    for start in range(0, len(rows), batch_size):
        batch = collate(rows[start : start + batch_size])
        inputs = {name: value.to(model.device) for name, value in batch.items()}
        labels = inputs.pop("labels")
        total += supervised_loss(model, inputs, labels, count=1).item()
        count += int((labels[:, 1:] != IGNORED).sum())
    model.train(training)
    return total / count


def quick_attention(labels: torch.Tensor):
    """On a CPU in bfloat16, torch 2.13's flash attention takes 4 ms a layer for the backward pass
    of rows of 25 tokens, ten times the plain one, whose memory grows with the length's square."""
    short = labels.device.type == "cpu" and labels.shape[1] <= 512
    return sdpa_kernel(SDPBackend.MATH) if short else nullcontext()


class SupervisedTrainer(SFTTrainer):
    """TRL's trainer, which computes logits where labels are, and takes batches in a given order."""

    order: Sequence[int]  # set before training, such as `Batches`
    adapter_dtype: str | None = None

    def get_train_dataloader(self) -> DataLoader:
        """Of the examples in their order; `accelerate` tells it the epoch."""
        how = {"batch_size": self.args.per_device_train_batch_size, "sampler": self.order}
        loader = DataLoader(self.train_dataset, collate_fn=self.data_collator, **how)
        return self.accelerator.prepare(loader)

    def create_optimizer(self, *given):
        """PEFT reads a checkpoint's adapters as float32; the optimizer's state takes their type."""
        methods.cast_adapters(self.model, self.adapter_dtype)
        return super().create_optimizer(*given)

    def create_scheduler(self, num_training_steps, optimizer=None):
        """The Trainer's schedule, but for a warm-up that begins above zero and reaches the peak.

        5 steps, 2 of warm-up   1/3  2/3   1   2/3  1/3     transformers: 0  1/2  1  2/3  1/3
        1 step,  1 of warm-up    1                                        0: nothing is trained
        """
        if self.lr_scheduler is None:
            steps, optimizer = num_training_steps, optimizer or self.optimizer
            warmup = min(self.args.get_warmup_steps(steps), steps - 1)
            kind = self.args.lr_scheduler_type
            decay = get_scheduler(kind, optimizer, 0, steps - warmup).lr_lambdas[0]
            self.lr_scheduler = LambdaLR(
                optimizer,
                lambda n: (n + 1) / (warmup + 1) if n < warmup else decay(n - warmup),
            )
        return self.lr_scheduler

    def get_decay_parameter_names(self, model):
        """A matrix of which some rows are frozen does not decay: those rows would too."""
        partial = {name for name, one in model.named_parameters() if hasattr(one, "partial")}
        return [name for name in super().get_decay_parameter_names(model) if name not in partial]

    def create_model_card(self, *args, **kwargs) -> None:
        """None is written with a checkpoint: TRL's describes a model that is on the hub."""

    def training_step(self, model, inputs, num_items_in_batch=None):
        # Around the backward pass too: with activation checkpointing it computes attention again.
        with quick_attention(inputs["labels"]):
            return super().training_step(model, inputs, num_items_in_batch)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The mean over the tokens of all processes, whose gradients are averaged: a mean of the
        processes' means would weigh tokens by who else is in the batch."""
        loss = supervised_loss(model, inputs, inputs.pop("labels"), num_items_in_batch)
        return loss if num_items_in_batch is None else loss * self.accelerator.num_processes

    def evaluate(self, eval_dataset=None, *args, **kwargs):
        """The mean over tokens; the Trainer's own is one of batches' means."""
        rows = self.eval_dataset if eval_dataset is None else eval_dataset
        metrics = {"eval_loss": mean_loss(self.model, rows, self.processing_class.pad_token_id)}
        self.log(metrics)
        answered = self.callback_handler.on_evaluate
        self.control = answered(self.args, self.state, self.control, metrics)
        return metrics


class StopWhenDiverged(TrainerCallback):
    """End a training whose loss or gradient is not finite, before the step's checkpoint is written:
    every weight is NaN from then on."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def on_log(self, args, state, control, **kwargs):
        last = state.log_history[-1]
        found = {name: last[name] for name in ("loss", "grad_norm", "eval_loss") if name in last}
        if all(map(math.isfinite, found.values())):
            return
        wrong = ", ".join(f"{name} {value:g}" for name, value in found.items())
        rate = last.get("learning_rate", self._settings.learning_rate)
        remedies = "a lower learning_rate (--rate), more warmup_steps (--set warmup_steps=0.2)"
        remedies += ", or a smaller max_grad_norm (--set max_grad_norm=0.3)"
        remedies += ", or bf16=False (--set bf16=False)" if self._settings.bf16 else ""
        if state.global_step == 1 and "loss" in last:
            remedies = f"another base (no weight had changed yet: its own do it), or {remedies}"
        raise TrainingError(
            f"the training diverged at step {state.global_step}, learning rate {rate:g}: {wrong}; "
            f"train again in a new folder (--out) with {remedies}"
        )


def same_options(settings: Settings) -> dict:
    """The settings that `SFTConfig` takes as they are, in its names."""
    same = {name: getattr(settings, name) for name in SFT_CONFIG}
    same[CHECKPOINTING] = same.pop("gradient_checkpointing")
    return same


def make_trainer(
    model,
    tokenizer,
    rows: Sequence[dict],
    settings: Settings,
    added: Sequence[str],
    *,
    folder: Path,
    eval_rows: Sequence[dict] | None = None,
    save_steps: int | None = None,
) -> SupervisedTrainer:
    """TRL's trainer for a model, whose embeddings hold the tokens that the template `added`, and
    rows of unshifted labels that are cut to length; the model is changed by it. With early stopping
    a checkpoint is written after each epoch, from which the best one's weights are read."""
    at_once = settings.per_device_train_batch_size * processes().num_processes
    step_size = at_once * settings.gradient_accumulation_steps
    epoch = -(-len(rows) // step_size)
    # Each process gets a batch each time. Where the last ones lack rows, accelerate would take some
    # twice; here they get rows of one token, of which nothing is learned.
    missing = -len(rows) % at_once if processes().num_processes > 1 else 0
    nothing = [{"input_ids": rows[0]["input_ids"][:1], "labels": [IGNORED]}] * missing
    stops_early = settings.early_stopping_patience is not None
    options = SFTConfig(
        **same_options(settings),
        output_dir=str(folder),
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,  # the rows are cut already
        eos_token=tokenizer.eos_token,
        use_cpu=pick_device() == "cpu",
        logging_steps=1,
        logging_nan_inf_filter=False,  # or a loss that is NaN would be logged as the one before
        # By steps, not by epochs: so a checkpoint of an epoch's last step holds its evaluation. The
        # last step is always evaluated.
        eval_strategy="steps" if eval_rows else "no",
        eval_steps=epoch if stops_early or settings.eval_strategy == "epoch" else 10**9,
        save_strategy="steps" if save_steps or stops_early else "no",
        save_steps=epoch if stops_early else save_steps or 500,
        load_best_model_at_end=stops_early,
        restore_callback_states_from_checkpoint=stops_early,
        report_to="none",
        disable_tqdm=True,
    )
    # Tokens that were added have no meaning yet: their rows are trained, whatever else is.
    new = tokenizer.convert_tokens_to_ids(list(added)) if settings.train_control_tokens else []
    methods.freeze(model, settings, added=new)
    trainer = SupervisedTrainer(
        model=model,
        args=options,
        train_dataset=Dataset.from_list([*rows, *nothing]),
        eval_dataset=Dataset.from_list(list(eval_rows)) if eval_rows else None,
        processing_class=tokenizer,
        peft_config=methods.adapter_config(model, settings, added=new),
    )
    trainer.adapter_dtype = settings.adapter_dtype
    if getattr(config := model.config.get_text_config(), "output_router_logits", False):
        config.output_router_logits = False  # TRL turns it on, and the loss here is of labels alone
    lengths = [len(row["input_ids"]) for row in rows]
    pool = POOL if settings.train_sampling_strategy == "group_by_length" else 1
    trainer.order = Batches(lengths, size=step_size, pool=pool, seed=settings.seed, missing=missing)
    if settings.train_sampling_strategy == "sequential":
        trainer.order = range(len(rows) + missing)
    methods.add_dropout(model, settings.dropout)  # where it is 0, a model's own is off too
    head = trainer.model.get_output_embeddings()
    if not hasattr(head, "bias"):
        # TRL 1.16 reads `lm_head.bias`, which PEFT 0.21's wrapper of trainable rows hides.
        head.bias = None
    if not settings.train_control_tokens:
        still = sorted({*control_tokens(settings.template), *added})
        methods.freeze_rows(trainer.model, tokenizer.convert_tokens_to_ids(still))
    trainer.remove_callback(PrinterCallback)  # comes with disable_tqdm, and prints every step
    trainer.add_callback(StopWhenDiverged(settings))
    trainer.add_callback(KeepNewestCheckpoints)  # a kill while one is written leaves one
    if settings.method == "gradual":
        trainer.add_callback(methods.GradualUnfreezing(model))
    if stops_early:
        trainer.add_callback(EarlyStoppingCallback(settings.early_stopping_patience))
    return trainer
