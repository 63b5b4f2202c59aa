"""TRL's trainer, set up for a small machine, and the one bar that shows it at work."""

import sys

from sftlab.machine import pick_device
from sftlab.train.settings import Settings


def make_trainer(profile, model, tokenizer, examples, settings, added, scratch, bar):
    """TRL's trainer, with the defaults that a small machine needs."""
    import torch
    from datasets import Dataset
    from transformers import PrinterCallback, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    cpu = pick_device() == "cpu"
    options = SFTConfig(
        output_dir=scratch,
        assistant_only_loss=True,
        max_length=settings.max_length,
        eos_token=tokenizer.eos_token,
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.accumulation,
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.schedule,
        warmup_steps=settings.warmup_share,  # below 1 it is read as a share
        weight_decay=settings.weight_decay,
        seed=settings.seed,
        use_cpu=cpu,
        # The embedded models stay in float32 everywhere, so that results compare; the large ones
        # on a card that knows bfloat16 are trained in it, with float32 weights.
        bf16=not cpu and not profile.embedded and torch.cuda.is_bf16_supported(False),
        activation_checkpointing=settings.method == "qlora",
        dataloader_pin_memory=not cpu,
        logging_steps=1,
        logging_nan_inf_filter=False,  # a diverged run must show it
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    rows = Dataset.from_list([{**row, "row": index} for index, row in enumerate(examples)])
    trainer = SFTTrainer(
        model=model,
        args=options,
        train_dataset=rows,
        processing_class=tokenizer,
        peft_config=None if settings.method == "full" else _adapters(model, settings, added),
    )
    head = trainer.model.get_output_embeddings()
    if not hasattr(head, "bias"):
        # TRL 1.16 reads `lm_head.bias`, which PEFT 0.21's wrapper of trainable rows hides.
        head.bias = None
    trainer.remove_callback(PrinterCallback)  # comes with disable_tqdm, and prints every step
    if bar:

        class Advance(TrainerCallback):
            def on_log(self, args, state, control, logs, **kwargs):
                if "loss" in logs:
                    bar.show(state.global_step, state.max_steps, logs["loss"])

        trainer.add_callback(Advance())
    return trainer


def _adapters(model, settings: Settings, added: list[str]):
    from peft import LoraConfig

    # Tokens that were added have no meaning yet: their rows are trained whole, in and out.
    rows = {}
    if added:
        first = model.get_input_embeddings().weight.shape[0] - len(added)
        ends = [model.get_input_embeddings()]
        if not model.config.get_text_config().tie_word_embeddings:
            ends.append(model.get_output_embeddings())
        rows = {
            name.rsplit(".", 1)[-1]: list(range(first, first + len(added)))
            for name, module in model.named_modules()
            if any(module is end for end in ends)
        }
    return LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
        trainable_token_indices=rows or None,
    )


class Bar:
    """One bar of plain text: it renders alike in a terminal, in Jupyter and in an exported page."""

    def __init__(self, name: str) -> None:
        from tqdm import tqdm

        # Jupyter paints the error stream red.
        stream = sys.stdout if "ipykernel" in sys.modules else sys.stderr
        self._bar = tqdm(desc=f"fine-tuning {name}", unit="step", file=stream, mininterval=0.5,
                         dynamic_ncols=stream.isatty())  # fmt: skip

    def show(self, step: int, steps: int, loss: float) -> None:
        """Advance to a step, with its loss (nats a supervised token)."""
        self._bar.total = steps
        self._bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
        self._bar.update(step - self._bar.n)

    def close(self) -> None:
        self._bar.close()
