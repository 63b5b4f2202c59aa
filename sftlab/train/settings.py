"""The settings of a fine-tune, named as in TRL, transformers and PEFT; methods.toml says what does
not go together.
"""

import reprlib
import tomllib
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from sftlab.chat import Template, TemplateError, find_template
from sftlab.machine import fast_precision
from sftlab.models import load_tokenizer
from sftlab.profiles import ADAPTED, METHODS, QUANTISED, Profile

SFT_CONFIG = (
    "per_device_train_batch_size gradient_accumulation_steps num_train_epochs max_steps "
    "learning_rate "
    "lr_scheduler_type warmup_steps weight_decay max_grad_norm seed bf16 gradient_checkpointing "
    "train_sampling_strategy padding_free"
).split()
"""Settings that `SFTConfig` takes as they are."""
LORA_CONFIG = ("r", "lora_alpha", "lora_dropout", "use_rslora", "use_dora")
"""Settings that `LoraConfig` takes as they are."""

MOST = 1_000_000_000  # far above what trains, and below what overflows
Positive = Annotated[float, Field(gt=0, le=MOST, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, le=MOST, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(gt=0, le=MOST)]
Steps = Annotated[int, Field(ge=-1, le=MOST)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # as NumPy takes them


class SettingsError(ValueError):
    """A setting that does not exist, or a value it can't have."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to fine-tune; a setting that is `None` is taken from the profile.

    Names and meanings are those of TRL's `SFTConfig`, PEFT's `LoraConfig` and `PrefixTuningConfig`,
    and transformers' `BitsAndBytesConfig`; at the end stand the lab's own.
    """

    learning_rate: Positive | None = None  # the peak, of AdamW
    num_train_epochs: Positive = 3  # passes over the examples
    max_steps: Steps = -1  # optimizer steps; above 0 they decide, and not the epochs
    per_device_train_batch_size: Count | None = None  # examples in one forward and backward pass
    gradient_accumulation_steps: Count = 1  # batches whose gradients make one optimiser step
    max_length: Count | None = None  # tokens of the longest example; what is beyond is cut off
    # group_by_length: shuffled, but examples of like length share a batch; random: shuffled;
    # sequential: batches are cut from the examples in their order.
    train_sampling_strategy: Literal["group_by_length", "random", "sequential"] = "group_by_length"
    padding_free: bool = False  # the examples of a batch stand end to end, in one row
    # Of the order of the examples and the start of the adapters.
    seed: Seed = 0
    lr_scheduler_type: Literal["linear", "cosine", "constant_with_warmup"] = "linear"
    warmup_steps: NotNegative = 0.05  # first, while the rate rises; below 1, a share of all steps
    weight_decay: NotNegative = 0.0  # of each step, relative to the learning rate
    max_grad_norm: NotNegative = 1.0  # longer gradients are scaled down to it; 0 for no limit
    # Matrix multiplications in bfloat16, weights in float32; by default where the device is fast.
    bf16: bool | None = None
    # Activations are computed again in the backward pass, not kept; by default under qlora alone.
    gradient_checkpointing: bool | None = None
    # When the loss on `eval_dataset` is taken; no: at the end. Early stopping takes it each epoch.
    eval_strategy: Literal["epoch", "no"] = "epoch"
    # Epochs without a lower loss on `eval_dataset` after which training stops; the run then has the
    # weights of its best epoch.
    early_stopping_patience: Count | None = None
    r: Count = 16  # rank of LoRA's adapters
    lora_alpha: Positive = 32  # LoRA's update is scaled by lora_alpha / r
    lora_dropout: Share = 0.0  # share of the adapters' input that training drops
    # Layers that get adapters: all-linear (all but the output head and routers), attention, mlp,
    # names such as ["q_proj", "v_proj"], or a regular expression that matches a whole name.
    target_modules: str | tuple[str, ...] = "all-linear"
    use_rslora: bool = False  # the scale is lora_alpha / sqrt(r) instead (arXiv 2312.03732)
    use_dora: bool = False  # magnitude and direction are trained apart (arXiv 2402.09353)
    num_virtual_tokens: Count = 16  # keys and values that are trained, under the method prefix
    bnb_4bit_use_double_quant: bool = True  # the scales of a 4-bit base are quantised too

    method: Literal[METHODS] | None = None  # what is trained, as `sftlab.train.methods` has it
    trained_layers: Count | None = None  # upper layers, under the method frozen; by default half
    # Share that training drops of attention's weights, and of what attention and MLP add to the
    # residual stream; decoders are pretrained without.
    dropout: Share = 0.0
    # Of the adapters' weights; by default bfloat16 on a quantised base, float32 on any other.
    adapter_dtype: Literal["float32", "bfloat16"] | None = None
    # A family's name, one that TRL installs, a file, Jinja text, or own: the one that the base's
    # tokenizer brings. By default that, or chatml where it brings none.
    template: str | None = None
    # What the loss is taken on: all answers (with their ends of turn), the last one, or everything
    # (the prompts and the template's own tokens too).
    turns: Literal["all", "last", "everything"] = "all"
    # Where an answer begins: content (the text alone), generation (where the prompt ends: thinking
    # and tool calls too), or auto: generation in conversations that have these to learn.
    start: Literal["auto", "content", "generation"] = "auto"
    end_of_turn: bool = True  # the loss is on what ends an answer too; else no stopping is learned
    train_control_tokens: bool = True  # the embeddings of the template's control tokens are trained

    def __post_init__(self) -> None:
        if isinstance(self.target_modules, list):  # settings are compared and hashed
            object.__setattr__(self, "target_modules", tuple(self.target_modules))
        for name, kind in _kinds().items():
            value = getattr(self, name)
            try:
                kind.validate_python(value)
            except ValidationError as error:
                said = error.errors()[0]["msg"]
                raise SettingsError(f"{name} is {reprlib.repr(value)}: {said}") from error
        if self.template not in (None, "own"):
            try:
                find_template(self.template)
            except TemplateError as error:
                raise SettingsError(f"template: {error}") from error
        for name, why in _refused().get(self.method, {}).items():
            if getattr(self, name):
                raise SettingsError(f"method {self.method!r} does not go with {name}=True: {why}")

    def changed(self, **overrides: Any) -> "Settings":
        """The settings with some replaced."""
        names = [f.name for f in fields(self)]
        if unknown := sorted(set(overrides) - set(names)):
            raise SettingsError(
                f"there is no setting {unknown[0]!r}; the settings are {', '.join(names)}"
            )
        return replace(self, **overrides)

    def filled(self, profile: Profile) -> "Settings":
        """The settings with the profile's values where they are `None`; a base's tokenizer is
        loaded to look for its template."""
        method, own = self.method or profile.method, None
        if self.template in (None, "own"):
            own = own_template(profile)
        if self.template == "own" and own is None:
            raise SettingsError(
                f"template 'own': the tokenizer of {profile.name} brings no chat template; name "
                "one, such as template='chatml' (--template chatml), or leave it out"
            )
        if own and not self.train_control_tokens:
            raise SettingsError(
                "train_control_tokens=False does not go with the model's own chat template, whose "
                "tokens are not known apart: name a family, such as template='chatml' (--template "
                "chatml)"
            )
        values = {
            "method": method,
            "template": "own" if own else "chatml",
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

    def template_for(self, profile: Profile) -> Template:
        """The chat template of a training on the profile's base."""
        if self.template not in (None, "own"):
            return find_template(self.template)
        self.filled(profile)  # or an error where "own" is asked for and there is none
        return own_template(profile) or find_template("chatml")


def own_template(profile: Profile) -> Template | None:
    """The chat template that a base's tokenizer, which is loaded for it, brings."""
    if profile.embedded:
        return None
    tokenizer = load_tokenizer(profile)
    return find_template(None, tokenizer=tokenizer) if tokenizer.chat_template else None


@cache
def _kinds() -> dict[str, TypeAdapter]:
    strict = ConfigDict(strict=True)
    return {field.name: TypeAdapter(field.type, config=strict) for field in fields(Settings)}


@cache
def _refused() -> dict[str, dict[str, str]]:
    return tomllib.loads(Path(__file__).with_name("methods.toml").read_text(encoding="utf-8"))


def check_added(method: str, added: list[str]) -> None:
    """Refuse a template that adds tokens under a method that can't train them."""
    if method == "prefix" and added:
        raise SettingsError(
            f"method 'prefix' does not go with a template that adds tokens ({', '.join(added)}): a "
            "prefix trains no embedding, so they would keep no meaning; choose a template whose "
            "tokens the base knows, or method='lora'"
        )
