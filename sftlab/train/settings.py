"""The settings of a fine-tune."""

from dataclasses import dataclass, fields, replace

from sftlab.chat import TemplateError, find_template
from sftlab.machine import fast_precision
from sftlab.profiles import ADAPTED, METHODS, QUANTISED, Profile
from sftlab.train.methods import refusal

SCHEDULES = ("linear", "cosine", "constant_with_warmup")
BATCHINGS = ("grouped", "random", "packed")
PRECISIONS = ("float32", "bfloat16")
SUPERVISED = ("answers", "last", "everything")
MARKERS = ("trained", "frozen")
TARGETS = ("all", "attention", "mlp")
KINDS = ("plain", "rslora", "dora", "pissa")
ORDERS = ("shuffled", "given")


class SettingsError(ValueError):
    """A setting that does not exist, or a value it can't have."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to fine-tune; what is `None` is taken from the profile."""

    learning_rate: float | None = None
    """Peak learning rate of AdamW."""
    epochs: float = 3
    """Passes over the examples."""
    batch_size: int | None = None
    """Examples in one forward and backward pass."""
    accumulation: int = 1
    """Batches whose gradients make one optimiser step."""
    batching: str = "grouped"
    """grouped: examples of like length share a batch. random: any do. packed: any do, end to end in
    one row without padding, blind to each other."""
    precision: str | None = None
    """float32, or bfloat16 for the matrix products alone; by default what the device is fast at."""
    max_length: int | None = None
    """Tokens of the longest example; what is beyond is cut off."""
    seed: int = 0
    """Decides the order of the examples and the start of the adapters."""
    schedule: str = "linear"
    """Learning rate after the warm-up: linear, cosine or constant_with_warmup."""
    warmup_share: float = 0.05
    """Share of the steps in which the learning rate rises from zero."""
    weight_decay: float = 0.0
    """AdamW's decay of the weights at each step, relative to the learning rate; an embedding matrix
    of which rows stay frozen has none."""
    dropout: float = 0.0
    """Share of activations that training drops: of the input of LoRA's adapters; without these, in
    attention and of what attention and MLP add to the stream."""
    clip: float = 1.0
    """Largest norm of a step's gradients, longer ones are scaled down to it; 0 for no limit."""
    checkpointing: bool | None = None
    """Whether activations are computed again on the way back instead of kept; by default with qlora
    alone."""
    order: str = "shuffled"
    """shuffled: anew in each epoch. given: batches are cut from the examples as they stand, and
    `batching` sorts none by length."""
    validation_epochs: int = 1
    """Epochs from one measurement of the validation loss to the next; the last ends with one."""
    patience: int | None = None
    """Epochs without a lower validation loss after which training stops; the run then has the
    weights of its best epoch. Needs `validation`."""
    method: str | None = None
    """What is trained: full, lora, qlora, int8, prefix, frozen, gradual or head; see
    `sftlab.train.methods.table`."""
    lora_rank: int = 16
    """Rank of the adapters."""
    lora_alpha: float | None = None
    """Scale of the adapters; by default twice the rank."""
    lora_targets: str = "all"
    """Which linear layers get adapters: all, those of attention, or those of the mlp."""
    lora_kind: str = "plain"
    """plain; rslora (scaled by the root of the rank); dora (lengths of the weights trained apart);
    pissa (begins at the weights' largest singular directions)."""
    prefix_tokens: int = 16
    """Positions whose keys and values are trained, in every layer, under the method prefix."""
    trained_layers: int | None = None
    """Upper layers that the method frozen trains; by default half of them."""
    double_quantisation: bool = True
    """Whether the scales of a 4-bit base are quantised too."""
    adapter_precision: str | None = None
    """Type that adapters are held and updated in: float32 or bfloat16; by default what TRL does,
    which is bfloat16 on a quantised base and float32 on any other."""
    template: str = "chatml"
    """Chat template: a family's name, one that TRL installs, a file, or Jinja text."""
    supervised: str = "answers"
    """What the loss is taken on: every answer with its end of turn, the last one, or everything
    (the prompts and the template's own tokens too)."""
    end_of_turn: bool = True
    """Whether the loss is taken on what ends an answer too; else a model learns no stopping."""
    markers: str = "trained"
    """Whether the rows of the template's control tokens are trained, or frozen as they were."""

    def __post_init__(self) -> None:
        positive = ("learning_rate", "epochs", "batch_size", "accumulation", "max_length",
                    "lora_rank", "lora_alpha", "prefix_tokens", "trained_layers",
                    "patience", "validation_epochs")  # fmt: skip
        whole = ("batch_size", "accumulation", "max_length", "seed", "lora_rank", "prefix_tokens",
                 "trained_layers", "patience", "validation_epochs")  # fmt: skip
        for name in (f.name for f in fields(self) if f.name not in {*_WORDS, *_OTHERS}):
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise SettingsError(f"{name} is {value!r}; give a number")
            if name in whole and not isinstance(value, int):
                raise SettingsError(f"{name} is {value!r}; give a whole number")
            if not (value > 0 if name in positive else value >= 0):
                least = "above zero" if name in positive else "zero or more"
                raise SettingsError(f"{name} is {value!r}; it must be {least}")
        for name in ("warmup_share", "dropout"):
            if getattr(self, name) >= 1:
                raise SettingsError(f"{name} is {getattr(self, name)!r}; it must be below 1")
        for name, words in _WORDS.items():
            value = getattr(self, name)
            if value not in words and not (value is None and name in _OPEN):
                raise SettingsError(f"{name} is {value!r}; choose one of {', '.join(words)}")
        for name in ("end_of_turn", "double_quantisation", "checkpointing"):
            value = getattr(self, name)
            if not isinstance(value, bool) and not (value is None and name == "checkpointing"):
                raise SettingsError(f"{name} is {value!r}; give True or False")
        if not isinstance(self.template, str):
            raise SettingsError(
                f"template is a {type(self.template).__name__}; give a name, a path or Jinja text"
            )
        try:
            find_template(self.template)
        except TemplateError as error:
            raise SettingsError(f"template: {error}") from error
        if self.patience and self.validation_epochs != 1:
            raise SettingsError(
                f"patience counts epochs, and validation_epochs is {self.validation_epochs}: the "
                "loss of the epochs between would not be known; leave it at 1"
            )
        if why := refusal(self):
            raise SettingsError(why)

    def changed(self, **overrides) -> "Settings":
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
        return replace(
            self,
            method=method,
            precision=self.precision or fast_precision(),
            learning_rate=self.learning_rate or profile.rate(method),
            batch_size=self.batch_size or profile.batch_size,
            max_length=self.max_length or profile.max_length,
            lora_alpha=self.lora_alpha or 2 * self.lora_rank,
            adapter_precision=self.adapter_precision or adapters,
            checkpointing=method == "qlora" if self.checkpointing is None else self.checkpointing,
        )


_WORDS = {
    "schedule": SCHEDULES,
    "batching": BATCHINGS,
    "precision": PRECISIONS,
    "method": METHODS,
    "supervised": SUPERVISED,
    "markers": MARKERS,
    "lora_targets": TARGETS,
    "lora_kind": KINDS,
    "adapter_precision": PRECISIONS,
    "order": ORDERS,
}
_OPEN = ("method", "precision", "adapter_precision")
_OTHERS = ("template", "end_of_turn", "double_quantisation", "checkpointing")
