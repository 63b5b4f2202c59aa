"""Which model an experiment runs on: the embedded ones, some of the hub's, or any folder or hub id.

A profile holds what a lesson must know before it loads anything: where the weights are, how large
they are, and settings that train a model of that size. Reading a profile touches no network.
"""

import difflib
import json
import re
from dataclasses import dataclass, fields
from pathlib import Path

from huggingface_hub import try_to_load_from_cache

from sftlab.paths import DATA
from sftlab.weights import Shape, parameters_in, shape_in

METHODS = ("full", "lora", "qlora", "int8", "prefix", "frozen", "gradual", "head")
ADAPTED = ("lora", "qlora", "int8", "prefix")
"""Methods that leave the base's weights as they are and train others beside them."""
PREFIX_TIMES = 100
"""A prefix's rate over LoRA's: of 0.03, 0.1 and 0.3 the largest alone taught the 3.7M model about
as much as LoRA does at 2e-3."""
QUANTISED = ("qlora", "int8")
"""Methods whose base is held in 4 or 8 bits."""


class UnknownProfileError(ValueError):
    """A name that is no profile, no model folder and no hub id."""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A model with what is needed to plan and train it."""

    name: str
    """What the learner types."""
    source: str
    """An absolute folder, or a repository of the Hugging Face hub."""
    revision: str = "main"
    """Branch, tag or commit of a hub repository; a folder has none."""
    parameters: int | None = None
    """Number of weights, `None` when nothing on this machine tells it."""
    shape: Shape | None = None
    """Sizes of the decoder, `None` when nothing on this machine tells them."""
    method: str = "full"
    """How `finetune` trains it unless told otherwise."""
    rate_full: float = 2e-5
    """Peak learning rate when every weight is trained."""
    rate_lora: float = 2e-4
    """Peak learning rate when adapters are trained; they want a several times larger one."""
    max_length: int = 512
    """Tokens of the longest training example."""
    per_device_train_batch_size: int = 16
    """Examples in one optimiser step."""
    embedded: bool = False
    """Whether the weights ship with the course."""
    download_bytes: int = 0
    """Bytes fetched from the hub the first time."""
    gated: bool = False
    """Whether the hub asks for an accepted licence and a token."""
    needs_gpu: bool = False
    """Whether training it without a GPU would take days."""

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method is {self.method!r}; choose one of {', '.join(METHODS)}")
        for field in ("rate_full", "rate_lora", "max_length", "per_device_train_batch_size"):
            if not getattr(self, field) > 0:
                raise ValueError(f"{field} is {getattr(self, field)!r}; it must be above zero")

    @property
    def on_hub(self) -> bool:
        """Whether the weights come from the hub (or its cache) rather than from a folder."""
        return not self.embedded and not _absolute(self.source) and not Path(self.source).is_dir()

    def rate(self, method: str | None = None) -> float:
        """The peak learning rate for a method; adapters share one, quantised base or not.

        Frozen, gradual and head train weights of the base itself, at the rate of full. A prefix
        starts at a standard normal, far above the size of weights, and wants steps as large.
        """
        method = method or self.method
        if method == "prefix":
            return PREFIX_TIMES * self.rate_lora
        return self.rate_lora if method in ADAPTED else self.rate_full


def _embedded(name: str, parameters: int) -> Profile:
    # Measured on the 3.7M model: 7e-4 in batches of 32 teaches every relation as 5e-4 in batches of
    # 16 do, in four fifths of the time, and keeps all knowledge; 5e-3
    # destroys it. LoRA r=16 needs 2e-3 to learn as much.
    return Profile(name=name, source=str(DATA / "models" / name), parameters=parameters,
                   rate_full=7e-4, rate_lora=2e-3, max_length=256, per_device_train_batch_size=32,
                   embedded=True)  # fmt: skip


# Sizes are those of the published config.json files; tests build each architecture from them and
# count its weights. Rates of the hub models are the usual starting points for their size.
_ALL = (
    _embedded("tiny", 3_700_000),
    _embedded("small", 5_700_000),
    _embedded("tiny-early", 3_700_000),
    Profile(name="smollm2-135m", source="HuggingFaceTB/SmolLM2-135M", parameters=134_515_008,
            shape=Shape(layers=30, hidden=576, mlp=1536, vocabulary=49152), rate_full=1e-4,
            rate_lora=5e-4, per_device_train_batch_size=8, download_bytes=275_000_000),
    Profile(name="qwen3-0.6b", source="Qwen/Qwen3-0.6B-Base", parameters=596_049_920,
            shape=Shape(layers=28, hidden=1024, mlp=3072, vocabulary=151936), rate_full=2e-5,
            rate_lora=2e-4, per_device_train_batch_size=4, download_bytes=1_210_000_000),
    Profile(name="llama-3.2-1b", source="meta-llama/Llama-3.2-1B", parameters=1_235_814_400,
            shape=Shape(layers=16, hidden=2048, mlp=8192, vocabulary=128256), method="lora",
            per_device_train_batch_size=4, download_bytes=2_490_000_000, gated=True),
    Profile(name="llama-3.1-8b-qlora", source="meta-llama/Llama-3.1-8B", parameters=8_030_261_248,
            shape=Shape(layers=32, hidden=4096, mlp=14336, vocabulary=128256), method="qlora",
            per_device_train_batch_size=4, download_bytes=16_080_000_000, gated=True,
            needs_gpu=True),
)  # fmt: skip
PROFILES: dict[str, Profile] = {profile.name: profile for profile in _ALL}


def find_profile(name: str | Path | Profile) -> Profile:
    """The profile of a name, of a model folder, or of a hub id such as `owner/name`.

    A folder or hub id that the course does not know gets rates by its size, read from its
    config.json and safetensors when they are on this machine.

    What looks like a path is never asked of the hub: it begins with `.`, `/`, `~` or a drive, has
    more than one slash, or its first part is a folder that is here.

    Raises:
        UnknownProfileError: the name is none of these; the message lists the profiles.
        BrokenWeightsError: the folder's weights are incomplete.
    """
    if isinstance(name, Profile):
        return name
    if not isinstance(name, str | Path):
        raise UnknownProfileError(
            f"a profile is a name, a folder or a hub id, not a {type(name).__name__}; to train a "
            "run further, save it and give its folder"
        )
    if str(name) in PROFILES:
        return PROFILES[str(name)]
    try:
        folder = Path(name).expanduser()
    except RuntimeError:  # ~someone, who has no home here
        folder = Path(name)
    if (folder / "config.json").is_file():
        # A run remembers its base: a relative path would lead elsewhere from another folder.
        return _by_size(str(name), source=str(folder.resolve()))
    if (folder / "adapter_config.json").is_file():
        raise UnknownProfileError(f"{name} holds an adapter, not a model; open it with load_run")
    if folder.is_dir():
        raise UnknownProfileError(f"{name} is a folder without config.json, so it is no model")
    if isinstance(name, Path) or _looks_like_path(name):
        raise UnknownProfileError(_no_folder(folder))
    if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", name):
        return _by_size(name, source=name)
    raise UnknownProfileError(
        f"no profile is called {str(name)!r}; choose {', '.join(PROFILES)}, the path of a folder "
        "with config.json and safetensors, or a hub id such as owner/name"
    )


def _absolute(text: str) -> bool:
    """Whether a text can only be a path: not every system calls the same paths absolute."""
    return text[:1] in ("/", "~", "\\") or bool(re.match(r"[A-Za-z]:", text))


def _looks_like_path(text: str) -> bool:
    parts = re.split(r"[/\\]", text)
    begun = len(parts) > 1 and Path(parts[0]).is_dir()
    return _absolute(text) or text[:1] == "." or len(parts) > 2 or "\\" in text or begun


def _no_folder(folder: Path) -> str:
    """One sentence on a folder that is not there, with the likeliest of its neighbours."""
    try:
        beside = [found.name for found in folder.parent.iterdir() if found.is_dir()]
    except OSError:
        beside = []
    near = difflib.get_close_matches(folder.name, beside, n=1)
    meant = f"did you mean {folder.parent / near[0]}?" if near else "check the spelling"
    return f"no such folder: {folder} (looked for in {Path.cwd()}); {meant}"


def _by_size(name: str, *, source: str) -> Profile:
    profile = Profile(name=name, source=source)
    folder = local_folder(profile)
    count = parameters_in(folder) if folder else None
    shape = shape_in(folder) if folder else None
    full, lora, method, batch = (2e-5, 2e-4, "lora", 4)
    for limit, *settings in ((2e7, 7e-4, 2e-3, "full", 32), (2e8, 1e-4, 5e-4, "full", 8),
                             (1e9, 2e-5, 2e-4, "full", 4)):  # fmt: skip
        if count and count < limit:
            full, lora, method, batch = settings
            break
    known = {f.name: getattr(profile, f.name) for f in fields(profile)}
    known |= dict(parameters=count, shape=shape, rate_full=full, rate_lora=lora, method=method,
                  per_device_train_batch_size=batch,
                  needs_gpu=bool(count and count > 3e9))  # fmt: skip
    return Profile(**known)


def local_folder(profile: Profile) -> Path | None:
    """The folder with the profile's weights, in the hub's cache or not; `None` when not here."""
    if not profile.on_hub:
        folder = Path(profile.source).expanduser()
        return folder if (folder / "config.json").is_file() else None
    found = {
        name: try_to_load_from_cache(profile.source, name, revision=profile.revision)
        for name in ("config.json", "model.safetensors", "model.safetensors.index.json")
    }
    paths = {name: Path(path) for name, path in found.items() if isinstance(path, str)}
    index = paths.get("model.safetensors.index.json")
    if index:  # sharded: all shards must be here
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        weights = all((index.parent / shard).is_file() for shard in shards)
    else:
        weights = "model.safetensors" in paths
    return paths["config.json"].parent if weights and "config.json" in paths else None
