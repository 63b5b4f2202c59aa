"""The settings of a fine-tune, named as in TRL, transformers and PEFT, and what goes with what.

Which combinations work was tried in the versions that constraints.txt names, and
tests/train/test_methods.py tries it again.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from sftlab.chat import TemplateError, find_template
from sftlab.machine import fast_precision
from sftlab.models import ADAPTED, QUANTISED, Profile
from sftlab.models import METHODS as METHOD_NAMES

if TYPE_CHECKING:
    import pandas as pd

SUPERVISED = ("answers", "last", "everything")
_PRECISIONS = ("float32", "bfloat16")


class SettingsError(ValueError):
    """A setting that does not exist, or a value it can't have."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to fine-tune; a setting that is `None` is taken from the profile.

    Names and meanings are those of TRL's `SFTConfig` (which extends transformers'
    `TrainingArguments`), PEFT's `LoraConfig` and `PrefixTuningConfig`, and transformers'
    `BitsAndBytesConfig`. At the end stand those that are the lab's own.
    """

    learning_rate: float | None = None
    """Peak learning rate of AdamW."""
    num_train_epochs: float = 3
    """Passes over the examples."""
    per_device_train_batch_size: int | None = None
    """Examples in one forward and backward pass."""
    gradient_accumulation_steps: int = 1
    """Batches whose gradients make one optimiser step."""
    max_length: int | None = None
    """Tokens of the longest example; what is beyond is cut off."""
    train_sampling_strategy: str = "group_by_length"
    """group_by_length: shuffled, but examples of like length share a batch. random: shuffled.
    sequential: batches are cut from the examples in their order."""
    padding_free: bool = False
    """Whether the examples of a batch are laid end to end in one row, without padding; attention
    stays within each."""
    seed: int = 0
    """Decides the order of the examples and the start of the adapters."""
    lr_scheduler_type: str = "linear"
    """Learning rate after the warm-up: linear, cosine or constant_with_warmup."""
    warmup_steps: float = 0.05
    """Steps in which the learning rate rises from zero; below 1, their share of all steps."""
    weight_decay: float = 0.0
    """AdamW's decay of the weights at each step, relative to the learning rate; an embedding matrix
    of which rows stay frozen has none."""
    max_grad_norm: float = 1.0
    """Largest norm of a step's gradients, longer ones are scaled down to it; 0 for no limit."""
    bf16: bool | None = None
    """Whether matrix multiplications are in bfloat16 (weights stay in float32); by default where
    the device is fast at it."""
    gradient_checkpointing: bool | None = None
    """Whether activations are computed again in the backward pass instead of kept; by default under
    qlora alone."""
    eval_strategy: str = "epoch"
    """When the loss on `eval_dataset` is measured: epoch (after each), or no (after the last)."""
    early_stopping_patience: int | None = None
    """Epochs without a lower loss on `eval_dataset` after which training stops; the run then has
    the weights of its best epoch."""
    r: int = 16
    """Rank of LoRA's adapters."""
    lora_alpha: float = 32
    """LoRA's update is scaled by lora_alpha / r."""
    lora_dropout: float = 0.0
    """Share of the adapters' input that training drops."""
    target_modules: str | tuple[str, ...] = "all-linear"
    """Layers that get adapters: all-linear (all but the output head), names such as ["q_proj",
    "v_proj"], or a regular expression that matches a layer's whole name."""
    use_rslora: bool = False
    """Whether the scale is lora_alpha / sqrt(r) instead (arXiv 2312.03732)."""
    use_dora: bool = False
    """Whether magnitude and direction of the weights are trained apart (arXiv 2402.09353)."""
    init_lora_weights: bool | str = True
    """True: B starts at zero. pissa: A and B start at the largest singular directions of the
    weights, which are taken out of these (arXiv 2404.02948)."""
    num_virtual_tokens: int = 16
    """Positions whose keys and values are trained, in every layer, under the method prefix."""
    bnb_4bit_use_double_quant: bool = True
    """Whether the scales of a 4-bit base are quantised too."""

    method: str | None = None
    """What is trained: full, lora, qlora, int8, prefix, frozen, gradual or head; see
    `sftlab.train.table`."""
    trained_layers: int | None = None
    """Upper layers that the method frozen trains; by default half of them."""
    dropout: float = 0.0
    """Share of activations that training drops in attention and of what attention and MLP add to
    the residual stream; decoders are pretrained without."""
    adapter_dtype: str | None = None
    """Type of the adapters' weights, float32 or bfloat16; by default as in TRL, bfloat16 on a
    quantised base and float32 on any other."""
    template: str = "chatml"
    """Chat template: a family's name, one that TRL installs, a file, or Jinja text."""
    supervised: str = "answers"
    """What the loss is taken on: every answer with its end of turn, the last one, or everything
    (the prompts and the template's own tokens too)."""
    end_of_turn: bool = True
    """Whether the loss is taken on what ends an answer too; else a model learns no stopping."""
    train_control_tokens: bool = True
    """Whether the embeddings of the template's control tokens are trained."""

    def __post_init__(self) -> None:
        if isinstance(self.target_modules, list):  # settings are compared and hashed
            object.__setattr__(self, "target_modules", tuple(self.target_modules))
        for name, (holds, wanted) in _CHECKS.items():
            value = getattr(self, name)
            if not (value is None and name in _OPTIONAL) and not holds(value):
                raise SettingsError(f"{name} is {value!r}; give {wanted}")
        try:
            find_template(self.template)
        except TemplateError as error:
            raise SettingsError(f"template: {error}") from error
        if self.early_stopping_patience and self.eval_strategy != "epoch":
            raise SettingsError(
                f"early_stopping_patience={self.early_stopping_patience} needs the loss after each "
                f'epoch, and eval_strategy is {self.eval_strategy!r}; set eval_strategy="epoch"'
            )
        if why := _refusal(self):
            raise SettingsError(why)

    def changed(self, **overrides: Any) -> "Settings":
        """The settings with some replaced.

        Raises:
            SettingsError: there is no such setting; the message lists those that exist.
        """
        names = [f.name for f in fields(self)]
        unknown = sorted(set(overrides) - set(names))
        if unknown:
            raise SettingsError(
                f"there is no setting {unknown[0]!r}; the settings are {', '.join(names)}"
            )
        return replace(self, **overrides)

    def filled(self, profile: Profile) -> "Settings":
        """The settings with the profile's values where they are `None`."""
        method = self.method or profile.method
        adapters = None
        if method in ADAPTED:
            adapters = "bfloat16" if method in QUANTISED else "float32"
        again, size = self.gradient_checkpointing, self.per_device_train_batch_size
        return replace(
            self,
            method=method,
            bf16=fast_precision() == "bfloat16" if self.bf16 is None else self.bf16,
            learning_rate=self.learning_rate or profile.rate(method),
            per_device_train_batch_size=size or profile.per_device_train_batch_size,
            max_length=self.max_length or profile.max_length,
            adapter_dtype=self.adapter_dtype or adapters,
            gradient_checkpointing=method == "qlora" if again is None else again,
        )

    @property
    def dtype(self) -> str:
        """What matrix multiplications are in: float32 or bfloat16."""
        return _PRECISIONS[bool(self.bf16)]


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _one_of(*words: str) -> tuple[Callable[[Any], bool], str]:
    return lambda value: value in words, f"one of {', '.join(words)}"


def _layers(value: Any) -> bool:
    names = [value] if isinstance(value, str) else value
    return (
        bool(names)
        and isinstance(names, list | tuple)
        and all(isinstance(name, str) and name for name in names)
    )


_POSITIVE = (lambda value: _number(value) and value > 0, "a number above zero")
_COUNT = (lambda value: _whole(value) and value > 0, "a whole number above zero")
_NOT_NEGATIVE = (lambda value: _number(value) and value >= 0, "a number, zero or more")
_SHARE = (lambda value: _number(value) and 0 <= value < 1, "a number from 0 to below 1")
_FLAG = (lambda value: isinstance(value, bool), "True or False")
_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(("learning_rate", "num_train_epochs", "lora_alpha"), _POSITIVE),
    **dict.fromkeys(
        ("per_device_train_batch_size", "gradient_accumulation_steps", "max_length", "r",
         "num_virtual_tokens", "trained_layers", "early_stopping_patience"), _COUNT),
    **dict.fromkeys(("warmup_steps", "weight_decay", "max_grad_norm"), _NOT_NEGATIVE),
    **dict.fromkeys(("lora_dropout", "dropout"), _SHARE),
    **dict.fromkeys(
        ("padding_free", "bf16", "gradient_checkpointing", "use_rslora", "use_dora",
         "bnb_4bit_use_double_quant", "end_of_turn", "train_control_tokens"), _FLAG),
    "seed": (lambda value: _whole(value) and value >= 0, "a whole number, zero or more"),
    "train_sampling_strategy": _one_of("group_by_length", "random", "sequential"),
    "lr_scheduler_type": _one_of("linear", "cosine", "constant_with_warmup"),
    "eval_strategy": _one_of("epoch", "no"),
    "target_modules": (_layers, '"all-linear", a list of names, or a regular expression'),
    "init_lora_weights": (lambda value: value is True or value == "pissa", 'True or "pissa"'),
    "method": _one_of(*METHOD_NAMES),
    "adapter_dtype": _one_of(*_PRECISIONS),
    "template": (lambda value: isinstance(value, str), "a name, a path or Jinja text"),
    "supervised": _one_of(*SUPERVISED),
}  # fmt: skip
_OPTIONAL = {f.name for f in fields(Settings) if f.default is None}


@dataclass(frozen=True, kw_only=True)
class Method:
    """One way of training, as `table` shows it; the reasons are empty where nothing is refused."""

    name: str
    base: str = "float32"  # how its linear layers are held: float32, NF4 or int8
    trains: str
    bf16: str = "of matrix multiplications; weights stay in float32"
    added: str = "their rows alone are trained of the embeddings"
    padding_free: str = ""  # why examples can't be laid end to end
    checkpointing: str = ""  # why activations can't be computed again
    kinds: tuple[str, ...] = ()  # of LoRA
    note: str = ""


_ADAPTERS = "adapters of linear layers"
_QUANTISED = "of matrix multiplications and of what is not quantised"
METHODS: dict[str, Method] = {
    one.name: one
    for one in (
        Method(name="full", trains="every weight", added="their rows are trained with the rest"),
        Method(name="lora", trains=_ADAPTERS, kinds=("plain", "rslora", "dora", "pissa"),
               note="PiSSA rewrites the base while it trains; the run has the base as it was, and "
               "an adapter of twice the rank"),
        Method(name="qlora", base="NF4", trains=_ADAPTERS, bf16=_QUANTISED,
               kinds=("plain", "rslora", "dora"),
               note="adapters in bfloat16 unless adapter_dtype says otherwise; gradient "
               "checkpointing by default"),
        Method(name="int8", base="int8", trains=_ADAPTERS, bf16=_QUANTISED,
               kinds=("plain", "rslora"),
               note="adapters as under qlora; gradient checkpointing saves less, for the inputs of "
               "its matrix multiplications stay; on a CPU trained on unpacked weights, and "
               "evaluated in 8 bits, which rounds the activations too"),
        Method(name="prefix", trains="keys and values before the text",
               added="refused: a prefix trains no embedding, so they would keep no meaning",
               padding_free="each example would need the prefix before it, and PEFT puts one "
               "before the whole row: neighbours then see each other",
               checkpointing="a layer that is computed again gets no cache, and the prefix is one"),
        Method(name="frozen", trains="the upper layers and the final norm",
               note="the output embeddings too, unless they are shared with the input"),
        Method(name="gradual", trains="from the top down, in the end every weight",
               added="their rows are trained from the start",
               note="needs the memory of full in the last steps"),
        Method(name="head", trains="the output embeddings",
               added="their rows are trained, in and out",
               note="where input and output embeddings are shared, both change"),
    )
}  # fmt: skip


def table() -> "pd.DataFrame":
    """The methods, one a row: what each is trained on and goes with."""
    import pandas as pd

    rows = [
        {
            "method": one.name,
            "base": one.base,
            "trained": one.trains,
            "bf16 decides": one.bf16,
            "padding-free": f"refused: {one.padding_free}" if one.padding_free else "yes",
            "checkpointing": f"refused: {one.checkpointing}" if one.checkpointing else "yes",
            "added tokens": one.added,
            "LoRA kinds": ", ".join(one.kinds) or "-",
            "note": one.note,
        }
        for one in METHODS.values()
    ]
    return pd.DataFrame(rows).set_index("method")


def _refusal(settings: Settings) -> str | None:
    """Why these settings do not go together, and the remedy; `None` where they do."""
    method = METHODS.get(settings.method or "")
    if method is None:
        return None
    if settings.padding_free and method.padding_free:
        return (
            f"method {method.name!r} does not go with padding_free=True: {method.padding_free}; "
            "use padding_free=False: batches of like length have next to no padding"
        )
    if settings.gradient_checkpointing and method.checkpointing:
        return (
            f"method {method.name!r} does not go with gradient_checkpointing: "
            f"{method.checkpointing}; set gradient_checkpointing=False, and a smaller "
            "per_device_train_batch_size with gradient_accumulation_steps"
        )
    if settings.init_lora_weights == "pissa" and method.name in QUANTISED:
        return (
            f"init_lora_weights='pissa' does not go with method {method.name!r}: it takes a part "
            f"out of the base's weights, and {method.base} weights can't be rewritten; use "
            "method='lora', or init_lora_weights=True"
        )
    if settings.use_dora and method.name == "int8":
        return (
            "use_dora=True does not go with method 'int8': PEFT reads the magnitudes of the base's "
            "weights, and the layers lose their scales over it; use method='lora' or 'qlora', or "
            "use_dora=False"
        )
    return None


def added_refusal(method: str, added: list[str]) -> str | None:
    """Why a method can't train on a template that adds tokens, and the remedy."""
    if method != "prefix" or not added:
        return None
    return (
        f"method 'prefix' does not go with a template that adds tokens ({', '.join(added)}): a "
        "prefix trains no embedding, so they would keep no meaning; choose a template whose tokens "
        "the base knows, or method='lora'"
    )
