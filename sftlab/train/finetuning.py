"""Supervised fine-tuning: one call over TRL's `SFTTrainer`.

With `output_dir` a run that was stopped, or killed, goes on where it was:

    output_dir/training.json      what the run is: settings, data, base, versions
    output_dir/checkpoint-50/     the Trainer's own, and last a list of hashes: `checkpoints`
    output_dir/checkpoint-100/    the newest two are kept

Whatever else lies in the folder is neither read nor removed.
"""

import platform
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import torch
from accelerate.utils import broadcast_object_list
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm
from transformers import TrainerCallback

from sftlab import __version__
from sftlab.chat import (
    FAMILIES,
    IGNORED,
    control_tokens,
    find_system_prompt,
    find_template,
    installed_templates,
    setup_chat_template,
)
from sftlab.integrity import ADAPTERS
from sftlab.machine import keep_freed_memory, pick_device, processes, progress_stream
from sftlab.models import load, weights_hash
from sftlab.profiles import ADAPTED, Profile, find_profile, local_folder
from sftlab.quiet import quiet_libraries, randomness_kept
from sftlab.train.checkpoints import newest_checkpoint, state_of, writing
from sftlab.train.examples import VALIDATION, check_examples, data_hash, supervise
from sftlab.train.methods import cast_adapters, count_weights, load_base, trained_bits
from sftlab.train.run import Run
from sftlab.train.settings import Settings, SettingsError, check_added
from sftlab.train.trainer import SupervisedTrainer, make_trainer


def finetune(
    profile: str | Path | Profile,
    examples: Iterable[Mapping[str, Any]],
    *,
    settings: Settings | None = None,
    eval_dataset: Iterable[Mapping[str, Any]] | None = None,
    progress: bool = True,
    output_dir: str | Path | None = None,
    save_steps: int = 50,
    **overrides: Any,
) -> Run:
    """Fine-tune a fresh copy of a profile's model on conversations, and return the run.

    On a CPU the same seed and number of threads give the same weights, bit for bit. With
    `output_dir` the same call goes on from the last checkpoint, also after a kill, and ends at the
    weights that it would have had. In a script that `torchrun` starts as several processes, each
    takes its part of every step: two of batch 8 train as one of batch 16, and get the same run.

    Args:
        profile: a profile, its name, a model folder, or a hub id.
        examples: rows `{"messages": [{"role", "content"}, ...]}`, a list or a `datasets.Dataset`;
            with `tools` that an answer may call, and with `reasoning_content` of an answer.
        settings: how to train; single ones by name, such as `learning_rate=1e-3`, replace its own.
        eval_dataset: examples to measure the loss on after each epoch, for early stopping too.
        output_dir: a folder for checkpoints every `save_steps` steps, new or of this very run.

    A loss that is not finite, or a full disk, ends it with a TrainingError; checkpoints stay.
    """
    profile = find_profile(profile)
    settings = (settings or Settings()).changed(**overrides).filled(profile)
    patience = settings.early_stopping_patience
    if patience and eval_dataset is None:
        raise SettingsError(
            f"early_stopping_patience={patience} waits for the loss on validation examples, and "
            "there are none; give `eval_dataset`, or leave it out"
        )
    with quiet_libraries(), randomness_kept(), TemporaryDirectory() as scratch:
        group = processes()
        (shared,) = broadcast_object_list([scratch])  # that of the main process
        saving = {"folder": output_dir or shared, "save_steps": save_steps if output_dir else None}
        trainer, settings, provenance = prepare_training(
            profile, examples, settings, eval_dataset, **saving
        )
        wanted = {"settings": asdict(settings), **provenance}
        with group.main_process_first():
            resumed = newest_checkpoint(Path(output_dir), wanted) if output_dir else None
        if resumed and (end := stopped_at(resumed, patience)):
            trainer.args.num_train_epochs = end  # early stopping had ended it: or it would train on
        trained, weights = count_weights(trainer.model, settings.method)
        cast_adapters(trainer.model, settings.adapter_dtype)  # as the optimizer will
        start = trained_bits(trainer.model)
        keep_freed_memory()
        begun = time.perf_counter()
        with progress_bar(profile.name, progress and group.is_main_process) as bar:
            trainer.add_callback(Listener(bar))
            with writing(Path(output_dir or scratch)):
                trainer.train(resume_from_checkpoint=resumed and str(resumed))
        group.wait_for_everyone()  # one may still read the best weights
        seconds = time.perf_counter() - begun
        model = unwrapped(trainer, settings).eval()
        if trained_bits(model, start) == start:
            trained = 0
            warnings.warn(
                f"no weight changed in {trainer.state.global_step:g} steps: the learning rate "
                f"({settings.learning_rate:g}) or the gradients are too small to move any; give a "
                "larger learning_rate, and look at grad_norm in the history",
                stacklevel=2,
            )
        log, best = trainer.state.log_history, trainer.state.best_global_step
        validation = validation_losses(log)
        kept = [point["epoch"] for point in validation if patience and point["step"] == best]
        rows = [row for row in trainer.train_dataset["labels"] if len(row) > 1]  # no filler
        labels = [label for row in rows for label in row]
        return Run(
            model=model,
            tokenizer=trainer.processing_class,
            history=history(log),
            validation=validation,
            kept_epoch=kept[0] if kept else None,
            trained=trained,
            weights=weights,
            settings=settings,
            seconds=seconds,
            tokens={"total": len(labels), "supervised": len(labels) - labels.count(IGNORED)},
            provenance=provenance,
        )


def untrained(profile: str | Path | Profile, settings: Settings | None = None) -> Run:
    """The profile's model as it is, in the form of a run: with the settings of a training in its
    precision and with its template, to be compared with it; without them its tokenizer has none."""
    profile = find_profile(profile)
    settings = settings and settings.filled(profile)
    model, tokenizer = load_base(profile, settings) if settings else load(profile)
    if settings:
        setup_chat_template(model, tokenizer, template=settings.template)
    settings = settings or Settings().filled(profile)
    return Run(
        model=model.eval(),
        tokenizer=tokenizer,
        history=[],
        weights=count_weights(model, "full")[1],
        settings=settings,
        seconds=0.0,
        tokens={"total": 0, "supervised": 0},
        provenance=_provenance(profile, settings),
    )


def prepare_training(
    profile: Profile,
    examples: Iterable,
    settings: Settings,
    eval_dataset: Iterable | None = None,
    **saving: Any,
) -> tuple[SupervisedTrainer, Settings, dict[str, Any]]:
    """The trainer that `finetune` starts, the settings as they are used, and where the run comes
    from."""
    control = control_tokens(settings.template)
    checked = {"example": check_examples(examples, control=control)}
    if eval_dataset is not None:
        checked[VALIDATION] = check_examples(eval_dataset, control=control, name=VALIDATION)
    if settings.template not in {"own", *FAMILIES, *installed_templates()}:
        # Its text instead of a path, which means nothing on another machine.
        settings = replace(settings, template=find_template(settings.template).text)
    model, tokenizer = load_base(profile, settings)
    added = setup_chat_template(model, tokenizer, template=settings.template)
    check_added(settings.method, added)
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    most = min(settings.max_length, limit or settings.max_length)
    settings = replace(settings, max_length=most)
    # Checked again, now that the model's own tokens are known: a content that holds one would end
    # its turn, or begin one, as the template's tokens would. Thinking's are an answer's own.
    stops = tokenizer.convert_ids_to_tokens(model.generation_config.eos_token_id)
    stops += [one.content for one in tokenizer.added_tokens_decoder.values() if one.special]
    stops = [one for one in stops if one not in ("<think>", "</think>")]
    rows = {}
    for name, conversations in checked.items():
        check_examples(conversations, control=stops, name=name)
        rows[name] = supervise(conversations, tokenizer, settings, name=name)
    provenance = _provenance(profile, settings, *checked.values(), added=added)
    saving |= {"eval_rows": rows.get(VALIDATION)}
    trainer = make_trainer(model, tokenizer, rows["example"], settings, added, **saving)
    return trainer, settings, provenance


def history(log: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """One row a step of the Trainer's log."""
    names = ("step", "epoch", "loss", "learning_rate", "grad_norm")
    return [{name: row[name] for name in names if name in row} for row in log if "loss" in row]


def validation_losses(log: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """One row an evaluation in the Trainer's log: epoch, step, loss."""
    rows = [row for row in log if "eval_loss" in row]
    return [{"epoch": row["epoch"], "step": row["step"], "loss": row["eval_loss"]} for row in rows]


def progress_bar(name: str, shown: bool) -> tqdm:
    """The bar of a training: one line of plain text, alike in a terminal, Jupyter and a page."""
    stream = progress_stream()
    how = {"file": stream, "dynamic_ncols": stream.isatty(), "mininterval": 0.5, "unit": "step"}
    return tqdm(desc=f"fine-tuning {name}", disable=not shown, **how)


class Listener(TrainerCallback):
    """Moves a bar with each step."""

    def __init__(self, bar: tqdm) -> None:
        self._bar = bar

    def on_log(self, args, state, control, logs, **kwargs):
        if "loss" in logs:
            self._bar.total = state.max_steps
            self._bar.set_postfix(loss=f"{logs['loss']:.3f}", refresh=False)
            self._bar.update(state.global_step - self._bar.n)


def unwrapped(trainer: SupervisedTrainer, settings: Settings):
    """The trained model without what TRL and accelerate put around it: their forward is bound to
    this very object, and a copy would compute with its weights."""
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    base = model.get_base_model() if settings.method in ADAPTED else model
    for part in (model, base):
        vars(part).pop("forward", None)
    cast_adapters(model, settings.adapter_dtype)  # the best ones were read as float32
    return model


def stopped_at(checkpoint: Path, patience: int | None) -> float | None:
    """The epoch at which early stopping had ended the training; resumed, it would go on."""
    state = state_of(checkpoint)
    found = state.stateful_callbacks.get("EarlyStoppingCallback")
    if patience and found and found["attributes"]["early_stopping_patience_counter"] >= patience:
        return state.epoch
    return None


def _provenance(
    profile: Profile, settings: Settings, examples=(), held_out=None, *, added=()
) -> dict:
    names = ("torch", "transformers", "trl", "peft", "datasets")
    packages = {name: version(name) for name in names}
    described = asdict(profile) | {"method": settings.method}
    # A path of this machine means nothing on another, and may name its user: it is kept only where
    # a saved run would not find its base without it.
    if profile.embedded or profile.fetched:
        described["source"] = profile.name
    elif not profile.on_hub:
        folder = Path(profile.source)
        described["name"] = folder.name
        described["source"] = str(folder) if settings.method in ADAPTED else folder.name
    return {
        "profile": described,
        "base_weights": weights_hash(folder := local_folder(profile)),
        "on_adapters": (folder / ADAPTERS).is_file(),  # whether the base is a run of adapters
        "data": data_hash(examples),
        "validation": None if held_out is None else data_hash(held_out),
        "system_prompt": find_system_prompt(examples) if examples else {},
        "added_tokens": list(added),
        "device": pick_device(),
        "processes": processes().num_processes,
        "packages": {"sftlab": __version__, **packages},
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def batch_costs(
    profile: str | Path | Profile, examples: Iterable, *, settings: Settings
) -> pd.DataFrame:
    """What the batches of a fine-tune's first optimizer step cost, a row each.

    Columns: operations (of matrix multiplications, forward and backward; of rows of up to 512
    tokens on a CPU, where torch 2.13 counts attention) and kept (bytes that autograd saves).
    """
    profile, found, saved = find_profile(profile), [], {}
    with quiet_libraries(), randomness_kept(), TemporaryDirectory() as scratch:
        filled = settings.filled(profile)
        trainer = prepare_training(profile, examples, filled, folder=scratch)[0]
        step, loss = trainer.training_step, trainer.compute_loss

        def counted_loss(model, *given, **named):
            weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}

            def save(tensor):
                storage = tensor.untyped_storage()
                if storage.data_ptr() not in weights:  # views of one storage count once
                    saved[storage.data_ptr()] = storage.nbytes()
                return tensor

            saved.clear()
            with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
                return loss(model, *given, **named)

        def counted_step(model, *given):
            with FlopCounterMode(display=False) as counter:
                made = step(model, *given)
            found.append({"operations": counter.get_total_flops(), "kept": sum(saved.values())})
            return made

        trainer.training_step, trainer.compute_loss = counted_step, counted_loss
        trainer.args.max_steps = 1
        trainer.train()
    return pd.DataFrame(found)
