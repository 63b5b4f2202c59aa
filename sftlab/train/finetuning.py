"""Supervised fine-tuning: one thin call over TRL's `SFTTrainer`."""

import gc
import platform
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from numbers import Integral
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sftlab.chat import FAMILIES, find_template, installed_templates
from sftlab.machine import keep_freed_memory, pick_device
from sftlab.models import ADAPTED, Profile, find_profile, load, local_folder, weights_hash
from sftlab.quiet import quiet_libraries, randomness_kept
from sftlab.train import adapters
from sftlab.train.checkpoints import CheckpointError, newest_checkpoint, step_of
from sftlab.train.conversations import VALIDATION, ExampleError, check_examples, data_hash
from sftlab.train.dropout import dropping
from sftlab.train.freezing import counts
from sftlab.train.logs import LogError, history, teller, written
from sftlab.train.methods import added_refusal
from sftlab.train.run import Run
from sftlab.train.saved_run import load_run
from sftlab.train.settings import Settings, SettingsError
from sftlab.train.speech import control_tokens, teach_tokens
from sftlab.train.supervision import supervise
from sftlab.train.trainer import Bar, make_trainer, without_checkpointing
from sftlab.train.validation import Curve, points

__all__ = [
    "CheckpointError",
    "ExampleError",
    "LogError",
    "Run",
    "Settings",
    "SettingsError",
    "finetune",
    "load_run",
    "untrained",
]


def finetune(
    profile: str | Path | Profile,
    examples: Iterable[Mapping[str, Any]],
    *,
    settings: Settings | None = None,
    eval_dataset: Iterable[Mapping[str, Any]] | None = None,
    progress: bool = True,
    output_dir: str | Path | None = None,
    save_steps: int = 50,
    on_step: Callable[[dict[str, float]], object] | None = None,
    logging_dir: str | Path | None = None,
    **overrides: Any,
) -> Run:
    """Fine-tune a fresh copy of a profile's model on conversations, and return the run.

    Only the assistant's words and their ends of turn are supervised. On a CPU the same seed (and
    number of threads) gives the same weights, bit for bit. The caller's random generators are left
    as they were. Interrupted (Ctrl-C, or stop in Jupyter), it raises `KeyboardInterrupt` and leaves
    nothing behind: the half-trained model was its own copy. With `output_dir` the same call goes
    on from the last one, also after a kill, and ends at the weights that it would have had, bit for
    bit on the same CPU. A changed kernel, or a new machine with the same versions, may go on too.

    Args:
        profile: a profile, its name, a model folder, or a hub id.
        examples: rows `{"messages": [{"role", "content"}, ...]}`, a list or a `datasets.Dataset`.
        settings: how to train; what is `None` in it comes from the profile.
        eval_dataset: examples to measure the loss on after each epoch. Nothing is learned from
            them; with `early_stopping_patience` they decide when the training ends and whose
            weights are kept.
        progress: show one bar with step, loss and time left.
        output_dir: a folder for checkpoints, new or of this very run; by default none is written.
        save_steps: steps from one checkpoint to the next, 1 or more.
        on_step: called after each step with its row of `Run.history`, and after each measurement on
            validation with epoch, step and eval_loss; of a resumed run with what is new. What
            it raises ends the training.
        logging_dir: a new folder for TensorBoard's event files; `sftlab.train.logs` reads them.
        **overrides: single settings by name, such as `learning_rate=1e-3`.

    Returns:
        The run: the model in evaluation mode on the device it was trained on, its tokenizer with
        the chat template, the loss of each step, and where all of it came from.

    Raises:
        UnknownProfileError, ModelNotAvailableError: no such model, or it can't be loaded.
        SettingsError: an unknown setting, a value it can't have, or `early_stopping_patience`
            without `eval_dataset`.
        ExampleError: an example that can't be trained on, with its index and the remedy.
        CheckpointError: `output_dir` holds another run.
        LogError: `logging_dir` holds a run already.
    """
    profile = find_profile(profile)
    settings = (settings or Settings()).changed(**overrides).filled(profile)
    if settings.early_stopping_patience and eval_dataset is None:
        raise SettingsError(
            f"early_stopping_patience={settings.early_stopping_patience} waits for the loss on "
            "eval_dataset, and there is none; give `eval_dataset`"
        )
    if on_step is not None and not callable(on_step):
        raise SettingsError(f"on_step is {on_step!r}; give a function that takes a row")
    # The trainer takes more: with 0 it writes none, 0.5 is a share of the steps, True is 1.
    counted = isinstance(save_steps, Integral) and not isinstance(save_steps, bool)
    if not counted or save_steps < 1:
        raise SettingsError(
            f"save_steps is {save_steps!r}; give a whole number of steps, 1 or more"
        )
    examples = check_examples(examples, control=control_tokens(settings.template))
    if eval_dataset is not None:
        eval_dataset = check_examples(
            eval_dataset, control=control_tokens(settings.template), name=VALIDATION
        )
    settings = _with_template_inside(settings)
    profile = replace(profile, method=settings.method)
    with quiet_libraries(), randomness_kept(), TemporaryDirectory() as scratch:
        model, tokenizer = adapters.load_base(profile, settings)
        added = teach_tokens(model, tokenizer, template=settings.template)
        if why := added_refusal(settings.method, added):
            raise SettingsError(why)
        settings = _fit_length(settings, model)
        # Only now it is known what ends a text: where a family ends turns with the base's own eos,
        # a content that holds it would end its turn as a control token would.
        stops = tokenizer.convert_ids_to_tokens(model.generation_config.eos_token_id)
        check_examples(examples, control=stops)
        if eval_dataset is not None:
            check_examples(eval_dataset, control=stops, name=VALIDATION)
        rows, tokens = supervise(examples, tokenizer, settings, max_length=settings.max_length)
        # Before training: what fails here, such as weights removed meanwhile, must not cost a run.
        provenance = _provenance(profile, examples, added, eval_dataset)
        folder, resumed = Path(scratch), None
        if output_dir is not None:
            folder = Path(output_dir)
            resumed = newest_checkpoint(folder, {"settings": asdict(settings), **provenance})
        bar = Bar(profile.name) if progress else None
        forward = model.__dict__.get("forward")
        curve = Curve.of(eval_dataset, tokenizer, settings)
        callbacks = [curve.callback()] if curve else []
        if on_step:
            callbacks.append(teller(on_step))
        trainer = make_trainer(
            model, tokenizer, rows, settings, added,
            folder=folder, bar=bar, save_steps=int(save_steps) if output_dir is not None else None,
            callbacks=callbacks,
        )  # fmt: skip
        trained_weights, weights = counts(trainer.model, settings.method)
        pissa = settings.method == "lora" and settings.init_lora_weights == "pissa"
        begun = adapters.start(trainer.model) if pissa else None
        stopped = curve.go_on_from(resumed) if curve and resumed else None
        keep_freed_memory()
        # accelerate collects garbage first: a quarter of a second among the libraries' own objects,
        # which `freeze` leaves out.
        gc.freeze()
        start = time.perf_counter()
        try:
            if stopped:  # it had ended early, and would go on now
                trainer.state.log_history = stopped
            else:
                step = None if output_dir is None else step_of(resumed)
                with (
                    dropping(trainer.model, settings.dropout),
                    written(logging_dir, step=step) as events,
                ):
                    for callback in events:
                        trainer.add_callback(callback)
                    trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
        finally:
            gc.unfreeze()
            if bar:
                bar.close()
        seconds = time.perf_counter() - start
        trained = trainer.model.eval()
        kept = curve.put_back(trained, trainer.state.log_history) if curve else None
        if settings.gradient_checkpointing:
            without_checkpointing(model)
        # The trainer's forward is bound to this very object: a copy of the model would go on
        # computing with the weights of the original.
        for part in {id(m): m for m in (trained, model)}.values():
            part.__dict__.pop("_original_forward", None)
            part.__dict__.pop("forward", None)
        if forward is not None:
            model.forward = forward
        if pissa:
            base, again = adapters.load_base(profile, settings)
            teach_tokens(base, again, template=settings.template)
            trained = adapters.plain_again(trained, begun, base).eval()
    return Run(
        model=trained,
        tokenizer=tokenizer,
        history=history(trainer.state.log_history),
        validation=points(trainer.state.log_history),
        kept_epoch=kept,
        trained=trained_weights,
        weights=weights,
        settings=settings,
        seconds=seconds,
        tokens=tokens,
        provenance=provenance,
    )


def untrained(profile: str | Path | Profile) -> Run:
    """The profile's model as it is, in the form of a run: what a fine-tune is compared with.

    Its tokenizer has no chat template, so `answer` and `chat` are for runs that were trained.

    Raises:
        UnknownProfileError, ModelNotAvailableError: no such model, or it can't be loaded.
    """
    profile = find_profile(profile)
    model, tokenizer = load(profile)
    return Run(
        model=model,
        tokenizer=tokenizer,
        history=[],
        trained=0,
        weights=counts(model, "full")[1],
        settings=Settings(num_train_epochs=1).filled(profile),
        seconds=0.0,
        tokens={"total": 0, "supervised": 0, "examples": 0, "longest": 0, "cut": 0},
        provenance=_provenance(profile, [], []),
    )


def _with_template_inside(settings: Settings) -> Settings:
    """The text of a template instead of its path, which means nothing on another machine."""
    found = find_template(settings.template)
    known = settings.template in {*FAMILIES, *installed_templates()}
    return settings if known else replace(settings, template=found.text)


def _fit_length(settings: Settings, model) -> Settings:
    """No example may be longer than the model's positions."""
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return replace(settings, max_length=min(settings.max_length, limit or settings.max_length))


def _provenance(
    profile: Profile, examples, added: list[str], validation: list | None = None
) -> dict[str, Any]:
    packages = {}
    for name in ("sftlab", "torch", "transformers", "trl", "peft", "datasets"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:  # run from a clone that is not installed
            packages[name] = "not installed"
    described = asdict(profile)
    # A path of this machine means nothing on another, and may name its user: it is kept only where
    # a saved run would not find its base without it.
    if profile.embedded:
        described["source"] = profile.name
    elif not profile.on_hub:
        folder = Path(profile.source).expanduser().resolve()
        described["name"] = folder.name
        described["source"] = folder.name if profile.method not in ADAPTED else str(folder)
    return {
        "profile": described,
        "base_weights": weights_hash(local_folder(profile)),
        "data": data_hash(examples),
        "validation": None if validation is None else data_hash(validation),
        "added_tokens": added,
        "device": pick_device(),
        "packages": packages,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
