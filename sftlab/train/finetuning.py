"""Supervised fine-tuning: one call over TRL's `SFTTrainer`."""

import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from numbers import Integral
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerState

from sftlab.chat import (
    FAMILIES,
    control_tokens,
    find_template,
    installed_templates,
    setup_chat_template,
)
from sftlab.machine import keep_freed_memory, pick_device
from sftlab.models import ADAPTED, Profile, find_profile, load, local_folder, weights_hash
from sftlab.quiet import quiet_libraries, randomness_kept
from sftlab.train.checkpoints import newest_checkpoint, state_of, step_of, stopped_early
from sftlab.train.examples import VALIDATION, check_examples, data_hash, supervise
from sftlab.train.logs import ProgressBar, Report, event_files, history, validation_losses
from sftlab.train.methods import cast_adapters, count_weights, dropping, load_base
from sftlab.train.run import Run
from sftlab.train.settings import Settings, SettingsError, added_refusal
from sftlab.train.trainer import make_trainer


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

    On a CPU the same seed and number of threads give the same weights, bit for bit. The caller's
    random generators are left as they were. Interrupted, it leaves nothing behind. With
    `output_dir` the same call goes on from the last checkpoint, also after a kill, and ends at the
    weights that it would have had, bit for bit on the same CPU.

    Args:
        profile: a profile, its name, a model folder, or a hub id.
        examples: rows `{"messages": [{"role", "content"}, ...]}`, a list or a `datasets.Dataset`.
        settings: how to train; what is `None` in it comes from the profile.
        eval_dataset: examples to measure the loss on after each epoch. Nothing is learned from
            them; with `early_stopping_patience` they decide when the training ends and whose
            weights are kept.
        progress: show one bar with step, loss and time left.
        output_dir: a folder for checkpoints, new or of this very run; by default none is written.
        save_steps: steps from one checkpoint to the next, 1 or more; with early stopping one is
            written after each epoch.
        on_step: called after each step with its row of `Run.history`, and after each evaluation
            with epoch, step and eval_loss; of a resumed run with what is new. What it raises ends
            the training.
        logging_dir: a new folder for TensorBoard's event files; `read_logs` reads them.
        **overrides: single settings by name, such as `learning_rate=1e-3`.

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
    _check_arguments(settings, eval_dataset, save_steps, on_step)
    with ExitStack() as stack:
        stack.enter_context(quiet_libraries())
        stack.enter_context(randomness_kept())
        scratch = Path(stack.enter_context(TemporaryDirectory()))
        start = prepare_training(profile, examples, settings, eval_dataset)
        profile = replace(profile, method=settings.method)
        provenance = _provenance(profile, start.examples, start.added, start.eval_examples)
        folder, resumed = scratch, None
        if output_dir is not None:
            folder = Path(output_dir)
            resumed = newest_checkpoint(folder, {"settings": asdict(start.settings), **provenance})
        callbacks = [Report(on_step)] if on_step else []
        if progress:
            callbacks.append(stack.enter_context(closing(ProgressBar(profile.name))))
        if logging_dir is not None:
            step = None if output_dir is None else step_of(resumed)
            callbacks.append(stack.enter_context(event_files(Path(logging_dir), step)))
        trainer = make_trainer(
            start.model, start.tokenizer, start.rows, start.settings, start.added,
            folder=folder, eval_rows=start.eval_rows, callbacks=callbacks,
            save_steps=None if output_dir is None else int(save_steps),
        )  # fmt: skip
        if resumed and stopped_early(resumed, settings):
            trainer.args.num_train_epochs = state_of(resumed).epoch  # or it would train on
        trained, weights = count_weights(trainer.model, settings.method)
        keep_initial_adapter(trainer.model, settings, scratch)
        keep_freed_memory()
        begun = time.perf_counter()
        with dropping(trainer.model, settings.dropout):
            trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
        seconds = time.perf_counter() - begun
        model = plain_model(trainer, start, profile, scratch)
        log = trainer.state.log_history
        return Run(
            model=model.eval(),
            tokenizer=start.tokenizer,
            history=history(log),
            validation=validation_losses(log),
            kept_epoch=_kept_epoch(trainer.state) if settings.early_stopping_patience else None,
            trained=trained,
            weights=weights,
            settings=start.settings,
            seconds=seconds,
            tokens=start.tokens,
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
        weights=count_weights(model, "full")[1],
        settings=Settings(num_train_epochs=1).filled(profile),
        seconds=0.0,
        tokens={"total": 0, "supervised": 0, "examples": 0, "longest": 0, "cut": 0},
        provenance=_provenance(profile, [], []),
    )


def _check_arguments(settings: Settings, eval_dataset, save_steps, on_step) -> None:
    if settings.early_stopping_patience and eval_dataset is None:
        raise SettingsError(
            f"early_stopping_patience={settings.early_stopping_patience} requires the loss on "
            "eval_dataset; give `eval_dataset`"
        )
    if on_step is not None and not callable(on_step):
        raise SettingsError(f"on_step is {on_step!r}; give a function that takes a row")
    # The Trainer takes more: with 0 it writes none, 0.5 is a share of the steps, True is 1.
    counted = isinstance(save_steps, Integral) and not isinstance(save_steps, bool)
    if not counted or save_steps < 1:
        raise SettingsError(
            f"save_steps is {save_steps!r}; give a whole number of steps, 1 or more"
        )


class Prepared(NamedTuple):
    """What a training starts from."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    added: list[str]  # tokens that the template added to the vocabulary
    settings: Settings  # all filled in, max_length within what the model reads
    examples: list[dict[str, Any]]
    eval_examples: list[dict[str, Any]] | None
    rows: list[dict[str, Any]]
    eval_rows: list[dict[str, Any]] | None
    tokens: dict[str, int]
    forward: Any  # the model's own, where it has one in place of its class's


def prepare_training(
    profile: Profile,
    examples: Iterable,
    settings: Settings,
    eval_dataset: Iterable | None = None,
) -> Prepared:
    """Check the examples, load the base, set up its template, make rows; errors as `finetune`."""
    control = control_tokens(settings.template)
    checked = {"example": check_examples(examples, control=control)}
    if eval_dataset is not None:
        checked[VALIDATION] = check_examples(eval_dataset, control=control, name=VALIDATION)
    if settings.template not in {*FAMILIES, *installed_templates()}:
        # Its text instead of a path, which means nothing on another machine.
        settings = replace(settings, template=find_template(settings.template).text)
    model, tokenizer = load_base(profile, settings)
    added = setup_chat_template(model, tokenizer, template=settings.template)
    if why := added_refusal(settings.method, added):
        raise SettingsError(why)
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    most = min(settings.max_length, limit or settings.max_length)
    settings = replace(settings, max_length=most)
    # Only now it is known what ends a text: where a family ends turns with the base's own eos,
    # a content that holds it would end its turn as a control token would.
    stops = tokenizer.convert_ids_to_tokens(model.generation_config.eos_token_id)
    made = {}
    for name, conversations in checked.items():
        check_examples(conversations, control=stops, name=name)
        made[name] = supervise(conversations, tokenizer, settings, name=name)
    rows, tokens = made["example"]
    eval_rows, _ = made.get(VALIDATION, (None, None))
    return Prepared(
        model, tokenizer, added, settings, checked["example"], checked.get(VALIDATION), rows,
        eval_rows, tokens, vars(model).get("forward"),
    )  # fmt: skip


def keep_initial_adapter(model, settings: Settings, scratch: Path) -> None:
    """Save the adapter that PiSSA starts with: PEFT needs it to make an ordinary one at the end."""
    if isinstance(model, PeftModel) and settings.init_lora_weights == "pissa":
        model.peft_config["default"].init_lora_weights = True  # or loading it would start anew
        model.save_pretrained(scratch / "initial", save_embedding_layers=False)


def plain_model(trainer, start: Prepared, profile: Profile, scratch: Path):
    """The trained model without what the training put on it.

    PiSSA takes a part out of the base's weights and trains it, so its adapter means nothing on the
    base. PEFT turns it into one of twice the rank that does (arXiv 2404.02948, appendix C).
    """
    trained, base = trainer.model, start.model
    cast_adapters(trained, start.settings.adapter_dtype)  # the best ones were read as float32
    if start.settings.gradient_checkpointing:
        # The old name, which older versions of transformers have alone, warns in newer ones.
        disable = getattr(base, "activation_checkpointing_disable", None)
        (disable or base.gradient_checkpointing_disable)()
        # TRL, PEFT and transformers each add a hook so that inputs want gradients, of which
        # `disable_input_require_grads` finds the last.
        for module in base.modules():
            for key, hook in [*module._forward_hooks.items()]:
                if getattr(hook, "__name__", "").startswith("make_inputs_require_grad"):
                    del module._forward_hooks[key]
    # TRL's and accelerate's forward is bound to this very object: a copy of the model would go on
    # computing with the weights of the original.
    for part in (trained, base):
        vars(part).pop("_original_forward", None)
        vars(part).pop("forward", None)
    if start.forward is not None:
        base.forward = start.forward
    if not (scratch / "initial").exists():
        return trained
    trained.save_pretrained(
        scratch / "converted",
        save_embedding_layers=False,
        path_initial_model_for_weight_conversion=str(scratch / "initial"),
    )
    base, tokenizer = load_base(profile, start.settings)
    setup_chat_template(base, tokenizer, template=start.settings.template)
    return PeftModel.from_pretrained(base, scratch / "converted")


def _kept_epoch(state: TrainerState) -> float | None:
    points = validation_losses(state.log_history)
    return next((p["epoch"] for p in points if p["step"] == state.best_global_step), None)


def _provenance(
    profile: Profile,
    examples: Sequence,
    added: list[str],
    eval_examples: Sequence | None = None,
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
        "validation": None if eval_examples is None else data_hash(eval_examples),
        "added_tokens": added,
        "device": pick_device(),
        "packages": packages,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
