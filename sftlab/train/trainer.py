"""TRL's trainer, set up for a small machine, and the one bar that shows it at work."""

from pathlib import Path

from sftlab.machine import pick_device, progress_stream
from sftlab.models import ADAPTED
from sftlab.train import adapters, freezing
from sftlab.train.checkpoints import mark_whole
from sftlab.train.speech import control_tokens


def make_trainer(
    model, tokenizer, rows, settings, added, *, folder: Path, bar=None, save_steps: int | None,
    callbacks=(),
):  # fmt: skip
    """TRL's trainer, with the defaults that a small machine needs.

    `rows` hold `input_ids` and `labels`, unshifted and cut to length: TRL prepares nothing. With
    `save_steps` it writes a checkpoint to `folder` every so many steps, and keeps the newest two.
    `callbacks` are called before a checkpoint is marked as whole, so they may add to it.
    """
    from datasets import Dataset
    from transformers import PrinterCallback, TrainerCallback
    from trl import SFTConfig

    from sftlab.train import step

    cpu = pick_device() == "cpu"
    options = SFTConfig(
        output_dir=str(folder),
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=settings.max_length,
        eos_token=tokenizer.eos_token,
        per_device_train_batch_size=settings.per_device_train_batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        num_train_epochs=settings.num_train_epochs,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.lr_scheduler_type,
        warmup_steps=settings.warmup_steps,  # below 1 it is read as a share
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        seed=settings.seed,
        use_cpu=cpu,
        bf16=settings.bf16,
        activation_checkpointing=settings.gradient_checkpointing,
        dataloader_pin_memory=not cpu,
        logging_steps=1,
        logging_nan_inf_filter=False,  # a diverged run must show it
        save_strategy="steps" if save_steps else "no",
        save_steps=save_steps or 500,
        save_total_limit=None,  # `mark_whole` removes the old ones, and nothing else
        report_to="none",
        disable_tqdm=True,
    )
    # Tokens that were added have no meaning yet: their rows are trained, whatever else is.
    first = model.get_input_embeddings().weight.shape[0] - len(added)
    new = range(first, first + len(added)) if settings.train_control_tokens else ()
    beside = settings.method in ADAPTED
    freezing.choose(model, settings.method, layers=settings.trained_layers, added=new)
    trainer = step.SupervisedTrainer(
        model=model,
        args=options,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        data_collator=step.packing_collator(tokenizer.pad_token_id)
        if settings.padding_free
        else None,
        peft_config=adapters.adapter_config(model, settings, added=new) if beside else None,
    )
    if beside:
        trainer.adapter_dtype = settings.adapter_dtype
        adapters.cast(trainer.model, settings.adapter_dtype)
    if settings.method == "gradual":
        trainer.add_callback(freezing.gradual(model, added=new))
    trainer.order = step.Batches(
        [len(row["input_ids"]) for row in rows],
        size=settings.per_device_train_batch_size * settings.gradient_accumulation_steps,
        pool=step.POOL if settings.train_sampling_strategy == "group_by_length" else 1,
        seed=settings.seed,
        shuffled=settings.train_sampling_strategy != "sequential",
    )
    head = trainer.model.get_output_embeddings()
    if not hasattr(head, "bias"):
        # TRL 1.16 reads `lm_head.bias`, which PEFT 0.21's wrapper of trainable rows hides.
        head.bias = None
    if not settings.train_control_tokens:
        still = {*control_tokens(settings.template), *added}
        _freeze_rows(trainer.model, tokenizer.convert_tokens_to_ids(sorted(still)))
    trainer.remove_callback(PrinterCallback)  # comes with disable_tqdm, and prints every step

    class Advance(TrainerCallback):
        def on_log(self, args, state, control, logs, **kwargs):
            if bar and "loss" in logs:
                bar.show(state.global_step, state.max_steps, logs["loss"])

        def on_save(self, args, state, control, **kwargs):
            mark_whole(folder, state.global_step)

    for callback in (*callbacks, Advance()):
        trainer.add_callback(callback)
    return trainer


def _freeze_rows(model, rows: list[int]) -> None:
    """Keep some rows of the embeddings, in and out, as they are."""

    def still(gradient):
        gradient = gradient.clone()
        gradient[rows] = 0
        return gradient

    ends = (model.get_input_embeddings().weight, model.get_output_embeddings().weight)
    for weight in {id(one): one for one in ends}.values():
        if weight.requires_grad:
            weight.register_hook(still)
            weight.still = True


def without_checkpointing(model) -> None:
    """Make a model plain again that was trained with checkpointing."""
    model.activation_checkpointing_disable()
    # That inputs want gradients is asked for by TRL, PEFT and transformers, each with a hook of its
    # own, of which `disable_input_require_grads` finds the last.
    for module in model.modules():
        for key, hook in [*module._forward_hooks.items()]:
            if getattr(hook, "__name__", "").startswith("make_inputs_require_grad"):
                del module._forward_hooks[key]


class Bar:
    """One bar of plain text: it renders alike in a terminal, in Jupyter and in an exported page."""

    def __init__(self, name: str) -> None:
        from tqdm import tqdm

        stream = progress_stream()
        self._bar = tqdm(desc=f"fine-tuning {name}", unit="step", file=stream, mininterval=0.5,
                         dynamic_ncols=stream.isatty())  # fmt: skip

    def show(self, step: int, steps: int, loss: float) -> None:
        """Advance to a step, with its loss (nats a supervised token)."""
        self._bar.total = steps
        self._bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
        self._bar.update(step - self._bar.n)

    def close(self) -> None:
        self._bar.close()
