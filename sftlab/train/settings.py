"""The settings of a fine-tune, named as in TRL, transformers and PEFT; methods.toml says what goes
with what.
"""

import tomllib
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

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


def _number(value: Any, kind: type = int | float) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _layers(value: Any) -> bool:
    names = (value,) if isinstance(value, str) else value
    return isinstance(names, tuple) and bool(names) and all(n and isinstance(n, str) for n in names)


def _one_of(*words: str) -> Any:
    return Annotated[str, f"one of {', '.join(words)}", lambda value: value in words]


# Of each kind of setting what it has to be, in words and as a test.
Positive = Annotated[float, "a number above zero", lambda n: _number(n) and n > 0]
NotNegative = Annotated[float, "a number, zero or more", lambda n: _number(n) and n >= 0]
Share = Annotated[float, "a number from 0 to below 1", lambda n: _number(n) and 0 <= n < 1]
Count = Annotated[int, "a whole number above zero", lambda n: _number(n, int) and n > 0]
Seed = Annotated[int, "a whole number, zero or more", lambda n: _number(n, int) and n >= 0]
Flag = Annotated[bool, "True or False", lambda value: isinstance(value, bool)]
Text = Annotated[str, "a name, a path or Jinja text", lambda value: isinstance(value, str)]
Start = Annotated[bool | str, 'True or "pissa"', lambda v: v is True or v == "pissa"]
Layers = Annotated[str | tuple, '"all-linear", a list of names, or a regular expression', _layers]
Method = _one_of(*METHODS)
Sampling = _one_of("group_by_length", "random", "sequential")
Schedule = _one_of("linear", "cosine", "constant_with_warmup")
Evaluation = _one_of("epoch", "no")
Precision = _one_of("float32", "bfloat16")
Supervised = _one_of("answers", "last", "everything")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to fine-tune; a setting that is `None` is taken from the profile.

    Names and meanings are those of TRL's `SFTConfig` (which extends transformers'
    `TrainingArguments`), PEFT's `LoraConfig` and `PrefixTuningConfig`, and transformers'
    `BitsAndBytesConfig`. At the end stand those that are the lab's own.
    """

    learning_rate: Positive | None = None  # the peak, of AdamW
    num_train_epochs: Positive = 3  # passes over the examples
    per_device_train_batch_size: Count | None = None  # examples in one forward and backward pass
    gradient_accumulation_steps: Count = 1  # batches whose gradients make one optimiser step
    max_length: Count | None = None  # tokens of the longest example; what is beyond is cut off
    # group_by_length: shuffled, but examples of like length share a batch; random: shuffled;
    # sequential: batches are cut from the examples in their order.
    train_sampling_strategy: Sampling = "group_by_length"
    padding_free: Flag = False  # the examples of a batch stand end to end, in one row
    seed: Seed = 0  # of the order of the examples and the start of the adapters
    lr_scheduler_type: Schedule = "linear"  # after the warm-up
    warmup_steps: NotNegative = 0.05  # in which the rate rises; below 1, a share of all steps
    # Decay of the weights at each step, relative to the learning rate; an embedding matrix of which
    # rows stay frozen has none.
    weight_decay: NotNegative = 0.0
    max_grad_norm: NotNegative = 1.0  # longer gradients are scaled down to it; 0 for no limit
    # Matrix multiplications in bfloat16, weights in float32; by default where the device is fast.
    bf16: Flag | None = None
    # Activations are computed again in the backward pass, not kept; by default under qlora alone.
    gradient_checkpointing: Flag | None = None
    eval_strategy: Evaluation = "epoch"  # when the loss on `eval_dataset` is taken; no: at the end
    # Epochs without a lower loss on `eval_dataset` after which training stops; the run then has the
    # weights of its best epoch.
    early_stopping_patience: Count | None = None
    r: Count = 16  # rank of LoRA's adapters
    lora_alpha: Positive = 32  # LoRA's update is scaled by lora_alpha / r
    lora_dropout: Share = 0.0  # share of the adapters' input that training drops
    # Layers that get adapters: all-linear (all but the output head), names such as ["q_proj",
    # "v_proj"], or a regular expression that matches a layer's whole name.
    target_modules: Layers = "all-linear"
    use_rslora: Flag = False  # the scale is lora_alpha / sqrt(r) instead (arXiv 2312.03732)
    use_dora: Flag = False  # magnitude and direction are trained apart (arXiv 2402.09353)
    # True: B starts at zero. pissa: A and B start at the largest singular directions of the
    # weights, which are taken out of these (arXiv 2404.02948).
    init_lora_weights: Start = True
    num_virtual_tokens: Count = 16  # keys and values that are trained, under the method prefix
    bnb_4bit_use_double_quant: Flag = True  # the scales of a 4-bit base are quantised too

    method: Method | None = None  # what is trained, as `sftlab.train.table` has it
    trained_layers: Count | None = None  # upper layers, under the method frozen; by default half
    # Share of activations that training drops in attention and of what attention and MLP add to the
    # residual stream; decoders are pretrained without.
    dropout: Share = 0.0
    # Of the adapters' weights; by default bfloat16 on a quantised base, float32 on any other.
    adapter_dtype: Precision | None = None
    template: Text = "chatml"  # a family's name, one that TRL installs, a file, or Jinja text
    # What the loss is taken on: answers (with their ends of turn), last (the last one), or
    # everything (the prompts and the template's own tokens too).
    supervised: Supervised = "answers"
    end_of_turn: Flag = True  # the loss is on what ends an answer too; else no stopping is learned
    train_control_tokens: Flag = True  # the embeddings of the template's control tokens are trained

    def __post_init__(self) -> None:
        if isinstance(self.target_modules, list):  # settings are compared and hashed
            object.__setattr__(self, "target_modules", tuple(self.target_modules))
        for field in fields(self):
            value, kind = getattr(self, field.name), field.type
            if field.default is None:  # its type is `kind | None`
                kind = get_args(kind)[0]
            words, holds = kind.__metadata__
            if not holds(value) and not (value is None and field.default is None):
                raise SettingsError(f"{field.name} is {value!r}; give {words}")
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


@cache
def _methods() -> dict[str, dict[str, str]]:
    return tomllib.loads(Path(__file__).with_name("methods.toml").read_text(encoding="utf-8"))


def table() -> "pd.DataFrame":
    """The methods, one a row: what each is trained on and goes with."""
    import pandas as pd

    return pd.DataFrame.from_dict(_methods(), orient="index").rename_axis("method")


def _check_method(settings: Settings, facts: dict[str, str]) -> None:
    """Refuse what does not go with the settings' method, whose row of the table is `facts`."""
    method, base = settings.method, facts["base"]
    checkpointing = settings.gradient_checkpointing and facts["checkpointing"]
    pissa = settings.init_lora_weights == "pissa" and method in QUANTISED
    dora = settings.use_dora and method == "int8"
    refused = {
        "padding_free=True: {}; use padding_free=False: batches of like length have next to no "
        "padding": settings.padding_free and facts["padding-free"],
        "gradient_checkpointing=True: {}; set gradient_checkpointing=False, and a smaller "
        "per_device_train_batch_size with gradient_accumulation_steps": checkpointing,
        "init_lora_weights='pissa': {}; use method='lora', or init_lora_weights=True": pissa
        and f"it takes a part out of the base's weights, and {base} weights can't be rewritten",
        "use_dora=True: {}; use method='lora' or 'qlora', or use_dora=False": dora
        and "PEFT reads the magnitudes of the base's weights, and the layers lose their scales",
    }
    for what, why in refused.items():
        if why and why != "yes":
            what = what.format(why.removeprefix("refused: "))
            raise SettingsError(f"method {method!r} does not go with {what}")


def check_added(method: str, added: list[str]) -> None:
    """Refuse a template that adds tokens under a method that can't train them."""
    if method == "prefix" and added:
        why = _methods()[method]["added tokens"].removeprefix("refused: ")
        raise SettingsError(
            f"method 'prefix' does not go with a template that adds tokens ({', '.join(added)}): "
            f"{why}; choose a template whose tokens the base knows, or method='lora'"
        )
