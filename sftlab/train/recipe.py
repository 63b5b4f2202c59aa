"""A run as a Python script in plain TRL, PEFT and bitsandbytes: `recipe.jinja` is its text."""

from pathlib import Path
from pprint import pformat
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from sftlab.models import ADAPTED, find_profile
from sftlab.train.settings import Settings

if TYPE_CHECKING:
    from sftlab.train.run import Run

SAME_NAME = (
    "per_device_train_batch_size", "gradient_accumulation_steps", "num_train_epochs",
    "learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay", "max_grad_norm", "seed",
    "bf16", "gradient_checkpointing", "train_sampling_strategy", "padding_free",
)  # fmt: skip
"""Settings that `SFTConfig` takes as they are."""


class RecipeError(ValueError):
    """A run that plain TRL and PEFT can't do."""


def recipe_text(run: "Run") -> str:
    """The script; `Run.recipe` says how to use it.

    Raises:
        RecipeError: the run used what the libraries do not have, such as gradual unfreezing.
    """
    settings, tokenizer, profile = (
        run.settings,
        run.tokenizer,
        run.provenance["profile"],
    )
    lacking = {
        "method='gradual'": settings.method == "gradual",
        "dropout": settings.dropout,
        "train_control_tokens=False": not settings.train_control_tokens,
    }
    if named := [name for name, used in lacking.items() if used]:
        raise RecipeError(f"TRL and PEFT have no {', '.join(named)}: train a run without")
    options = {name: getattr(settings, name) for name in SAME_NAME}
    options |= {"max_length": None, "logging_steps": 1, "report_to": "none"}
    if settings.early_stopping_patience:
        options |= {"eval_strategy": "epoch", "load_best_model_at_end": True}
    options["save_strategy"] = "epoch" if settings.early_stopping_patience else "no"
    quantised = {"qlora", "int8"} & {settings.method}
    source = find_profile(profile["name"]).source if profile["embedded"] else profile["source"]
    revision = profile["revision"]
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("recipe.jinja").render(
        libraries="TRL"
        + ", PEFT" * (settings.method in ADAPTED)
        + " and bitsandbytes" * bool(quantised),
        model=repr(source),
        revision="" if revision == "main" else f", revision={revision!r}",
        dtype=settings.dtype if quantised else "float32",
        quantisation=_quantisation(settings) if quantised else "",
        max_length=settings.max_length,
        seed=settings.seed,
        template="(\n" + "".join(f"    {one!r}\n" for one in _lines(tokenizer.chat_template)) + ")",
        end=repr(tokenizer.eos_token),
        pad=repr(tokenizer.pad_token),
        added=pformat(run.provenance["added_tokens"], width=90),
        supervised=settings.supervised,
        end_of_turn=settings.end_of_turn,
        frozen=_unfrozen(run),
        peft_config=_peft_config(run) if settings.method in ADAPTED else "",
        patience=settings.early_stopping_patience,
        options={name: repr(value) for name, value in options.items()},
    )


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def _quantisation(settings: Settings) -> str:
    if settings.method == "int8":
        return ", quantization_config=BitsAndBytesConfig(load_in_8bit=True)"
    return (
        ",\n    quantization_config=BitsAndBytesConfig(\n        load_in_4bit=True, "
        'bnb_4bit_quant_type="nf4",\n        '
        f"bnb_4bit_use_double_quant={settings.bnb_4bit_use_double_quant},\n        "
        f"bnb_4bit_compute_dtype=torch.{settings.dtype},\n    ),\n    "
    )


def _unfrozen(run: "Run") -> str:
    """What the methods frozen and head train, as code."""
    tied = run.model.config.get_text_config().tie_word_embeddings
    head = "model.get_output_embeddings()"
    if run.settings.method == "head":
        return f"[{head}]"
    if run.settings.method != "frozen":
        return ""
    layers = run.model.config.get_text_config().num_hidden_layers
    count = run.settings.trained_layers or -(-layers // 2)
    return f"[*model.model.layers[-{count}:], model.model.norm{'' if tied else ', ' + head}]"


def _peft_config(run: "Run") -> str:
    """The configuration that the run's adapters were made with, as code."""
    settings, config = run.settings, run.model.peft_config["default"]
    if settings.method == "prefix":
        names = ("num_virtual_tokens", "num_layers", "num_attention_heads", "token_dim")
        shown: dict[str, Any] = {name: getattr(config, name) for name in names}
        kind = "PrefixTuningConfig"
    else:
        names = (
            "r",
            "lora_alpha",
            "lora_dropout",
            "use_rslora",
            "use_dora",
            "init_lora_weights",
        )
        shown, kind = {name: getattr(settings, name) for name in names}, "LoraConfig"
        layers = settings.target_modules
        shown["target_modules"] = layers if isinstance(layers, str) else list(layers)
        if config.trainable_token_indices:
            shown["trainable_token_indices"] = config.trainable_token_indices
    shown["task_type"] = "CAUSAL_LM"
    return f"{kind}({', '.join(f'{name}={value!r}' for name, value in shown.items())})"
