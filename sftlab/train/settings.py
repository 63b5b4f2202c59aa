"""The settings of a fine-tune, named as in TRL, transformers and PEFT; methods.toml says what goes
with what.
"""

import tomllib
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftlab.chat import TemplateError, find_template
from sftlab.machine import fast_precision
from sftlab.models import ADAPTED, METHODS, QUANTISED, Profile

if TYPE_CHECKING:
    import pandas as pd

SFT_CONFIG = (
    "per_device_train_batch_size gradient_accumulation_steps num_train_epochs learning_rate "
    "lr_scheduler_type warmup_steps weight_decay max_grad_norm seed bf16 gradient_checkpointing "
    "train_sampling_strategy padding_free"
).split()
"""Settings that `SFTConfig` takes as they are."""
LORA_CONFIG = ("r", "lora_alpha", "lora_dropout", "use_rslora", "use_dora", "init_lora_weights")
"""Settings that `LoraConfig` takes as they are."""


class SettingsError(ValueError):
    """A setting that does not exist, or a value it can't have."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to fine-tune; a setting that is `None` is taken from the profile.

    Names and meanings are those of TRL's `SFTConfig` (which extends transformers'
    `TrainingArguments`), PEFT's `LoraConfig` and `PrefixTuningConfig`, and transformers'
    `BitsAndBytesConfig`. At the end stand those that are the lab's own.
    """

    learning_rate: float | None = None  # the peak, of AdamW
    num_train_epochs: float = 3  # passes over the examples
    per_device_train_batch_size: int | None = None  # examples in one forward and backward pass
    gradient_accumulation_steps: int = 1  # batches whose gradients make one optimiser step
    max_length: int | None = None  # tokens of the longest example; what is beyond is cut off
    # group_by_length: shuffled, but examples of like length share a batch; random: shuffled;
    # sequential: batches are cut from the examples in their order.
    train_sampling_strategy: str = "group_by_length"
    # Whether the examples of a batch are laid end to end in one row, without padding; attention
    # stays within each.
    padding_free: bool = False
    seed: int = 0  # of the order of the examples and the start of the adapters
    lr_scheduler_type: str = "linear"  # after the warm-up; or cosine, constant_with_warmup
    warmup_steps: float = 0.05  # in which the rate rises from zero; below 1, a share of all steps
    # Decay of the weights at each step, relative to the learning rate; an embedding matrix of which
    # rows stay frozen has none.
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0  # longer gradients of a step are scaled down to it; 0 for no limit
    # Whether matrix multiplications are in bfloat16 (weights stay in float32); by default where the
    # device is fast at it.
    bf16: bool | None = None
    # Whether activations are computed again in the backward pass instead of kept; by default under
    # qlora alone.
    gradient_checkpointing: bool | None = None
    eval_strategy: str = "epoch"  # the loss on `eval_dataset` after each epoch; no: after the last
    # Epochs without a lower loss on `eval_dataset` after which training stops; the run then has the
    # weights of its best epoch.
    early_stopping_patience: int | None = None
    r: int = 16  # rank of LoRA's adapters
    lora_alpha: float = 32  # LoRA's update is scaled by lora_alpha / r
    lora_dropout: float = 0.0  # share of the adapters' input that training drops
    # Layers that get adapters: all-linear (all but the output head), names such as ["q_proj",
    # "v_proj"], or a regular expression that matches a layer's whole name.
    target_modules: str | tuple[str, ...] = "all-linear"
    use_rslora: bool = False  # the scale is lora_alpha / sqrt(r) instead (arXiv 2312.03732)
    use_dora: bool = False  # magnitude and direction are trained apart (arXiv 2402.09353)
    # True: B starts at zero. pissa: A and B start at the largest singular directions of the
    # weights, which are taken out of these (arXiv 2404.02948).
    init_lora_weights: bool | str = True
    num_virtual_tokens: int = 16  # keys and values that are trained, under the method prefix
    bnb_4bit_use_double_quant: bool = True  # the scales of a 4-bit base are quantised too

    method: str | None = None  # what is trained, as `sftlab.train.table` has it
    trained_layers: int | None = None  # upper layers, under the method frozen; by default half
    # Share of activations that training drops in attention and of what attention and MLP add to the
    # residual stream; decoders are pretrained without.
    dropout: float = 0.0
    # Of the adapters' weights, float32 or bfloat16; by default as in TRL, bfloat16 on a quantised
    # base and float32 on any other.
    adapter_dtype: str | None = None
    template: str = "chatml"  # a family's name, one that TRL installs, a file, or Jinja text
    # What the loss is taken on: answers (with their ends of turn), last (the last one), or
    # everything (the prompts and the template's own tokens too).
    supervised: str = "answers"
    end_of_turn: bool = True  # the loss is on what ends an answer too; else no stopping is learned
    train_control_tokens: bool = True  # the embeddings of the template's control tokens are trained

    def __post_init__(self) -> None:
        if isinstance(self.target_modules, list):  # settings are compared and hashed
            object.__setattr__(self, "target_modules", tuple(self.target_modules))
        optional = {one.name for one in fields(self) if one.default is None}
        for wanted, (holds, names) in _CHECKS.items():
            for name in names.split():
                value = getattr(self, name)
                if not (value is None and name in optional) and not holds(value):
                    raise SettingsError(f"{name} is {value!r}; give {wanted}")
        for name, words in _WORDS.items():
            value = getattr(self, name)
            if value not in words and not (value is None and name in optional):
                raise SettingsError(f"{name} is {value!r}; give one of {', '.join(words)}")
        try:
            find_template(self.template)
        except TemplateError as error:
            raise SettingsError(f"template: {error}") from error
        if self.early_stopping_patience and self.eval_strategy != "epoch":
            raise SettingsError(
                f"early_stopping_patience={self.early_stopping_patience} needs the loss after each "
                f'epoch, and eval_strategy is {self.eval_strategy!r}; set eval_strategy="epoch"'
            )
        if self.method:
            _check_method(self, _methods()[self.method])

    def changed(self, **overrides: Any) -> "Settings":
        """The settings with some replaced."""
        names = [f.name for f in fields(self)]
        if unknown := sorted(set(overrides) - set(names)):
            raise SettingsError(
                f"there is no setting {unknown[0]!r}; the settings are {', '.join(names)}"
            )
        return replace(self, **overrides)

    def filled(self, profile: Profile) -> "Settings":
        """The settings with the profile's values where they are `None`."""
        method = self.method or profile.method
        values = {
            "method": method,
            "bf16": fast_precision() == "bfloat16",
            "learning_rate": profile.rate(method),
            "per_device_train_batch_size": profile.per_device_train_batch_size,
            "max_length": profile.max_length,
            "gradient_checkpointing": method == "qlora",
        }
        if method in ADAPTED:
            values["adapter_dtype"] = "bfloat16" if method in QUANTISED else "float32"
        lacking = {name: value for name, value in values.items() if getattr(self, name) is None}
        return replace(self, **lacking)

    @property
    def dtype(self) -> str:
        """What matrix multiplications are in: float32 or bfloat16."""
        return "bfloat16" if self.bf16 else "float32"


def _number(value: Any, kind: type = int | float) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _layers(value: Any) -> bool:
    names = (value,) if isinstance(value, str) else value
    return isinstance(names, tuple) and bool(names) and all(n and isinstance(n, str) for n in names)


_CHECKS = {
    "a number above zero": (
        lambda value: _number(value) and value > 0,
        "learning_rate num_train_epochs lora_alpha",
    ),
    "a whole number above zero": (
        lambda value: _number(value, int) and value > 0,
        "per_device_train_batch_size gradient_accumulation_steps max_length r num_virtual_tokens "
        "trained_layers early_stopping_patience",
    ),
    "a whole number, zero or more": (lambda value: _number(value, int) and value >= 0, "seed"),
    "a number, zero or more": (
        lambda value: _number(value) and value >= 0,
        "warmup_steps weight_decay max_grad_norm",
    ),
    "a number from 0 to below 1": (
        lambda value: _number(value) and 0 <= value < 1,
        "lora_dropout dropout",
    ),
    "True or False": (
        lambda value: isinstance(value, bool),
        "padding_free bf16 gradient_checkpointing use_rslora use_dora bnb_4bit_use_double_quant "
        "end_of_turn train_control_tokens",
    ),
    '"all-linear", a list of names, or a regular expression': (_layers, "target_modules"),
    'True or "pissa"': (lambda value: value is True or value == "pissa", "init_lora_weights"),
    "a name, a path or Jinja text": (lambda value: isinstance(value, str), "template"),
}
"""What a setting has to be, in words and as a test, and the settings that have to be it."""
_WORDS = {
    "method": METHODS,
    "train_sampling_strategy": ("group_by_length", "random", "sequential"),
    "lr_scheduler_type": ("linear", "cosine", "constant_with_warmup"),
    "eval_strategy": ("epoch", "no"),
    "adapter_dtype": ("float32", "bfloat16"),
    "supervised": ("answers", "last", "everything"),
}
"""The words that a setting can be."""


@cache
def _methods() -> dict[str, dict[str, str]]:
    return tomllib.loads(Path(__file__).with_name("methods.toml").read_text(encoding="utf-8"))


def table() -> "pd.DataFrame":
    """The methods, one a row: what each is trained on and goes with."""
    import pandas as pd

    return pd.DataFrame.from_dict(_methods(), orient="index").rename_axis("method")


def _check_method(settings: Settings, facts: dict[str, str]) -> None:
    """Refuse what does not go with the settings' method, whose row of the table is `facts`."""
    method = settings.method
    remedies = {
        ("padding_free", "padding-free"): "use padding_free=False: batches of like length have "
        "next to no padding",
        ("gradient_checkpointing", "checkpointing"): "set gradient_checkpointing=False, and a "
        "smaller per_device_train_batch_size with gradient_accumulation_steps",
    }
    for (name, column), remedy in remedies.items():
        if getattr(settings, name) and facts[column] != "yes":
            why = facts[column].removeprefix("refused: ")
            raise SettingsError(f"method {method!r} does not go with {name}=True: {why}; {remedy}")
    if settings.init_lora_weights == "pissa" and method in QUANTISED:
        raise SettingsError(
            f"init_lora_weights='pissa' does not go with method {method!r}: it takes a part "
            f"out of the base's weights, and {facts['base']} weights can't be rewritten; use "
            "method='lora', or init_lora_weights=True"
        )
    if settings.use_dora and method == "int8":
        raise SettingsError(
            "use_dora=True does not go with method 'int8': PEFT reads the magnitudes of the base's "
            "weights, and the layers lose their scales over it; use method='lora' or 'qlora', or "
            "use_dora=False"
        )


def check_added(method: str, added: list[str]) -> None:
    """Refuse a template that adds tokens under a method that can't train them."""
    if method == "prefix" and added:
        raise SettingsError(
            f"method 'prefix' does not go with a template that adds tokens ({', '.join(added)}): a "
            "prefix trains no embedding, so they would keep no meaning; choose a template whose "
            "tokens the base knows, or method='lora'"
        )
