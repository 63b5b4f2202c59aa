"""Supervised fine-tuning: one call over TRL's `SFTTrainer`."""

import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from numbers import Integral
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sftlab import __version__
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
from sftlab.train.checkpoints import last_step, newest_checkpoint, stopped_at
from sftlab.train.examples import VALIDATION, check_examples, data_hash, supervise
from sftlab.train.logs import history, listeners, validation_losses
from sftlab.train.methods import cast_adapters, count_weights, dropping, load_base
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
    on_step: Callable[[dict[str, float]], object] | None = None,
    logging_dir: str | Path | None = None,
    **overrides: Any,
) -> Run:
    """Fine-tune a fresh copy of a profile's model on conversations, and return the run.

    On a CPU the same seed and number of threads give the same weights, bit for bit. With
    `output_dir` the same call goes on from the last checkpoint, also after a kill, and ends at the
    weights that it would have had.

    Args:
        profile: a profile, its name, a model folder, or a hub id.
        examples: rows `{"messages": [{"role", "content"}, ...]}`, a list or a `datasets.Dataset`.
        settings: how to train; single ones by name, such as `learning_rate=1e-3`, replace its own.
        eval_dataset: examples to measure the loss on after each epoch, for early stopping too.
        progress: show one bar with step, loss and time left.
        output_dir: a folder for checkpoints every `save_steps` steps, new or of this very run.
        on_step: called with each new row of `Run.history`, and with each eval_loss.
        logging_dir: a new folder for TensorBoard's event files; `read_logs` reads them.

    Errors of the profile, the settings, an example or a folder say what is wrong and what to do.
    """
    profile = find_profile(profile)
    settings = (settings or Settings()).changed(**overrides).filled(profile)
    patience = settings.early_stopping_patience
    if not isinstance(save_steps, Integral) or save_steps < 1:  # with 0 the Trainer writes none
        raise SettingsError(
            f"save_steps is {save_steps!r}; give a whole number of steps, 1 or more"
        )
    if patience and eval_dataset is None:
        raise SettingsError(
            f"early_stopping_patience={patience} requires the loss on eval_dataset; give "
            "`eval_dataset`"
        )
    with quiet_libraries(), randomness_kept(), TemporaryDirectory() as scratch:
        start = prepare_training(profile, examples, settings, eval_dataset)
        settings, initial = start.settings, Path(scratch) / "initial"
        resumed = step = None
        if output_dir:
            run = {"settings": asdict(settings), **start.provenance}
            resumed = newest_checkpoint(Path(output_dir), run)
            step = last_step(Path(output_dir))
        with listeners(profile.name, progress, on_step, logging_dir, step=step) as callbacks:
            saving = int(save_steps) if output_dir else None
            trainer = start.trainer(output_dir or scratch, save_steps=saving, callbacks=callbacks)
            if resumed and (end := stopped_at(resumed, patience)):
                trainer.args.num_train_epochs = end  # or it would train on
            trained, weights = count_weights(trainer.model, settings.method)
            if settings.method == "lora" and settings.init_lora_weights == "pissa":
                # PEFT needs the adapter it starts with to make an ordinary one at the end.
                config = trainer.model.peft_config["default"]
                config.init_lora_weights = True  # or loading it would start anew
                trainer.model.save_pretrained(initial, save_embedding_layers=False)
            keep_freed_memory()
            begun = time.perf_counter()
            with dropping(trainer.model, settings.dropout):
                trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
            seconds = time.perf_counter() - begun
        log, best = trainer.state.log_history, trainer.state.best_global_step
        validation = validation_losses(log)
        kept = [point["epoch"] for point in validation if patience and point["step"] == best]
        return Run(
            model=plain_model(trainer, start, profile, initial).eval(),
            tokenizer=start.tokenizer,
            history=history(log),
            validation=validation,
            kept_epoch=kept[0] if kept else None,
            trained=trained,
            weights=weights,
            settings=settings,
            seconds=seconds,
            tokens=start.tokens,
            provenance=start.provenance,
        )


def untrained(profile: str | Path | Profile, settings: Settings | None = None) -> Run:
    """The profile's model as it is, in the form of a run: what a fine-tune is compared with.

    With the settings of a training it is in that one's precision and has its template; without, its
    tokenizer has none, and `answer` and `chat` are for runs that were trained.
    """
    profile = find_profile(profile)
    model, tokenizer = load_base(profile, settings) if settings else load(profile)
    if settings:
        setup_chat_template(model, tokenizer, template=settings.template)
    settings = settings or Settings(num_train_epochs=1).filled(profile)
    return Run(
        model=model.eval(),
        tokenizer=tokenizer,
        history=[],
        weights=count_weights(model, "full")[1],
        settings=settings,
        seconds=0.0,
        tokens={"total": 0, "supervised": 0, "examples": 0, "longest": 0, "cut": 0},
        provenance=_provenance(profile, settings, []),
    )


class Prepared(NamedTuple):
    """What a training starts from."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    settings: Settings  # all filled in, max_length within what the model reads
    added: Sequence[str]  # tokens that the template added to the vocabulary
    rows: Sequence[dict[str, Any]]
    eval_rows: Sequence[dict[str, Any]] | None
    tokens: Mapping[str, int]
    forward: Any  # the model's own, where it has one in place of its class's
    provenance: dict[str, Any]

    def trainer(self, folder: str | Path, **options: Any) -> SupervisedTrainer:
        """The trainer for it, which writes to a folder; the model is changed."""
        options |= {"folder": Path(folder), "eval_rows": self.eval_rows}
        return make_trainer(
            self.model, self.tokenizer, self.rows, self.settings, self.added, **options
        )


def prepare_training(
    profile: Profile, examples: Iterable, settings: Settings, eval_dataset: Iterable | None = None
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
    forward = vars(model).get("forward")
    added = setup_chat_template(model, tokenizer, template=settings.template)
    check_added(settings.method, added)
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    most = min(settings.max_length, limit or settings.max_length)
    settings = replace(settings, max_length=most)
    # Only now it is known what ends a text: where a family ends turns with the base's own eos,
    # a content that holds it would end its turn as a control token would.
    stops = tokenizer.convert_ids_to_tokens(model.generation_config.eos_token_id)
    made = {VALIDATION: (None, None)}
    for name, conversations in checked.items():
        check_examples(conversations, control=stops, name=name)
        made[name] = supervise(conversations, tokenizer, settings, name=name)
    return Prepared(
        model=model,
        tokenizer=tokenizer,
        settings=settings,
        added=added,
        rows=made["example"][0],
        eval_rows=made[VALIDATION][0],
        tokens=made["example"][1],
        forward=forward,
        provenance=_provenance(profile, settings, *checked.values(), added=added),
    )


def plain_model(trainer, start: Prepared, profile: Profile, initial: Path):
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
        base.disable_input_require_grads()
    # TRL's and accelerate's forward is bound to this very object: a copy of the model would go on
    # computing with the weights of the original.
    trainer.accelerator.unwrap_model(trained, keep_fp32_wrapper=False)
    for part in (trained, base):
        vars(part).pop("forward", None)
    if start.forward is not None:
        base.forward = start.forward
    if not initial.exists():
        return trained
    converted = initial.with_name("converted")
    options = {"path_initial_model_for_weight_conversion": str(initial)}
    trained.save_pretrained(converted, save_embedding_layers=False, **options)
    base, tokenizer = load_base(profile, start.settings)
    setup_chat_template(base, tokenizer, template=start.settings.template)
    return PeftModel.from_pretrained(base, converted)


def _provenance(profile: Profile, settings: Settings, examples, apart=None, *, added=()) -> dict:
    packages = {
        name: version(name) for name in ("torch", "transformers", "trl", "peft", "datasets")
    }
    described = asdict(profile) | {"method": settings.method}
    # A path of this machine means nothing on another, and may name its user: it is kept only where
    # a saved run would not find its base without it.
    if profile.embedded:
        described["source"] = profile.name
    elif not profile.on_hub:
        folder = Path(profile.source).expanduser().resolve()
        described["name"] = folder.name
        described["source"] = str(folder) if settings.method in ADAPTED else folder.name
    return {
        "profile": described,
        "base_weights": weights_hash(local_folder(profile)),
        "data": data_hash(examples),
        "validation": None if apart is None else data_hash(apart),
        "added_tokens": list(added),
        "device": pick_device(),
        "packages": {"sftlab": __version__, **packages},
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
