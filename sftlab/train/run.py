"""A finished fine-tune: talk to it, measure it, save it, open it again."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from pprint import pformat
from typing import TYPE_CHECKING, Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from sftlab.chat import resize_embeddings
from sftlab.data import Message
from sftlab.machine import pick_device
from sftlab.measure import generate, read_meter
from sftlab.models import ADAPTED, Profile, find_profile, local_folder, weights_hash
from sftlab.quiet import quiet_libraries
from sftlab.train.examples import ExampleError, check_row
from sftlab.train.settings import LORA_CONFIG, SFT_CONFIG, Settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_RECORD = "seconds tokens provenance history validation kept_epoch trained weights".split()
METER = "meter.parquet"


class RunError(ValueError):
    """A folder that can't be saved to, or opened as a run."""


class RecipeError(ValueError):
    """A run that plain TRL and PEFT can't do."""


@dataclass(kw_only=True)
class Run:
    """What `finetune` returns."""

    model: "PreTrainedModel"  # in evaluation mode; with adapters, PEFT's wrapper around the base
    tokenizer: "PreTrainedTokenizerBase"  # with the chat template it was trained on
    # One row a step: step, epoch, loss, learning_rate, grad_norm, mean_token_accuracy.
    history: list[dict[str, float]]
    # One row an epoch: epoch, step, loss on the validation examples; empty without any.
    validation: list[dict[str, float]] = field(default_factory=list)
    kept_epoch: float | None = None  # whose weights these are, after early stopping
    trained: int = 0  # number of weights that were trained; of rows of added tokens those alone
    weights: int = 0  # number of the base's weights, rows of added tokens among them
    settings: Settings  # those used, with the profile's values filled in
    seconds: float  # of training alone, without loading and what came before a resumption
    # Of one epoch: total, supervised, examples, longest, and cut (examples that lost an end).
    tokens: dict[str, int]
    provenance: dict[str, Any]  # profile, hashes of data and base weights, versions, device
    _meter: pd.DataFrame | None = field(default=None, repr=False)

    @property
    def trained_share(self) -> float:
        """Weights that were trained for each weight of the base; 1 under full fine-tuning."""
        return self.trained / self.weights if self.weights else 0.0

    def chat(
        self, messages: str | Sequence[Message], *, max_new_tokens: int = 64, **options: Any
    ) -> str:
        """The assistant's next words, without its end of turn; options are those of `answer`."""
        return self.answer([messages], max_new_tokens=max_new_tokens, **options)[0]

    def answer(
        self,
        questions: Sequence[str | Sequence[Message]],
        *,
        max_new_tokens: int = 24,
        batch_size: int = 128,
        sample: bool = False,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> list[str]:
        """Answers to questions or conversations, in their order, computed in left-padded batches.

        Greedy, unless `sample` draws them with a temperature (below 1 is more careful) and a seed;
        the caller's random generators are not touched.

        Raises:
            ExampleError: a conversation is not sound, or leaves no room for an answer.
        """
        if isinstance(questions, str):
            raise ExampleError(f"questions is one string, {questions!r}; give a list, or use chat")
        limit, prompts = self.model.config.get_text_config().max_position_embeddings, []
        for index, asked in enumerate(questions):
            where = f"question {index}" if len(questions) > 1 else "the question"
            messages = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
            messages = check_row({"messages": messages}, where=where, answered=False)
            if (role := messages[-1]["role"]) != "user":
                raise ExampleError(f"{where} ends with the role {role!r}; it is the user's turn")
            text = self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
            prompts.append(self.tokenizer(text, add_special_tokens=False)["input_ids"])
            if (count := len(prompts[-1])) >= limit:
                raise ExampleError(
                    f"{where} has {count} tokens and the model reads {limit}; leave out the "
                    "earliest turns"
                )
        how = {"sample": sample, "temperature": temperature, "seed": seed, "batch_size": batch_size}
        pad = self.tokenizer.pad_token_id
        with quiet_libraries():
            new = generate(self.model, prompts, pad=pad, max_new_tokens=max_new_tokens, **how)
        return [self.tokenizer.decode(ids, skip_special_tokens=True) for ids in new]

    def meter(self) -> pd.DataFrame:
        """The old skills that are left: `sftlab.measure.read_meter` of this model, taken once."""
        if self._meter is None:
            embedded = self.provenance["profile"]["embedded"]
            self._meter = read_meter(self.model, self.tokenizer, known_corpus=embedded)
        return self._meter.copy()

    def recipe(self) -> str:
        """The same fine-tune as a script in plain TRL, PEFT and bitsandbytes, without the lab.

        Raises:
            RecipeError: it used what the libraries do not have, such as gradual unfreezing.
        """
        settings, profile = self.settings, self.provenance["profile"]
        lacking = {
            "method='gradual'": settings.method == "gradual",
            "dropout": settings.dropout,
            "train_control_tokens=False": not settings.train_control_tokens,
        }
        if named := [name for name, used in lacking.items() if used]:
            raise RecipeError(f"TRL and PEFT have no {', '.join(named)}: train a run without")
        form = {"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True}
        loader = FileSystemLoader(Path(__file__).parent)
        environment = Environment(loader=loader, undefined=StrictUndefined, **form)
        environment.filters["repr"] = repr
        embedded = profile["embedded"]
        return environment.get_template("recipe.jinja").render(
            settings=settings,
            tokenizer=self.tokenizer,
            model=find_profile(profile["name"]).source if embedded else profile["source"],
            revision=profile["revision"],
            added=pformat(self.provenance["added_tokens"], width=90),
            config=self.model.config.get_text_config(),
            peft=self.model.peft_config["default"] if settings.method in ADAPTED else None,
            same=SFT_CONFIG,
            lora=LORA_CONFIG,
        )

    def save(self, folder: str | Path) -> Path:
        """Write the weights (safetensors), the tokenizer with its template, and run.json.

        With full fine-tuning the folder is a model that plain transformers loads; adapters need the
        base that run.json names, for a local folder by the only path of this machine in it.

        Raises:
            RunError: the folder exists and is not empty.
        """
        folder = Path(folder)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise RunError(f"{folder} exists and is not empty; save to a new folder")
        folder.mkdir(parents=True, exist_ok=True)
        self.write(folder)
        return folder

    def write(self, folder: Path) -> None:
        """The same beside what else is in the folder; run.json, which says so, comes last."""
        options = {}
        if self.settings.method in ADAPTED:
            profile = self.provenance["profile"]
            # PEFT would write this machine's path, into a README too. Rows that were added are
            # saved with the adapters; without the option it looks on the hub whether any were.
            local = Path(profile["source"]).is_absolute()
            base = profile["name" if local else "source"]
            self.model.peft_config["default"].base_model_name_or_path = base
            below = self.model.get_base_model()
            below.name_or_path = below.config.name_or_path = base
            options["save_embedding_layers"] = False
        with quiet_libraries():
            self.model.save_pretrained(folder, **options)
            self.model.generation_config.save_pretrained(folder)  # PEFT leaves it out
            self.tokenizer.save_pretrained(folder)
        if self._meter is not None:
            self._meter.to_parquet(folder / METER)
        record = {"settings": asdict(self.settings), **{n: getattr(self, n) for n in _RECORD}}
        text = json.dumps(record, indent=1, ensure_ascii=False)
        (folder / "run.json").write_text(text + "\n", encoding="utf-8")


def load_run(folder: str | Path) -> Run:
    """Open a run that `Run.save` wrote; the network is used only for a hub base not in the cache.

    Raises:
        RunError: there is no run in the folder, it can't be read, or the base below its adapters
            is no longer the one it was trained on.
    """
    from transformers import AutoTokenizer

    folder = Path(folder)
    try:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        settings = Settings(**record["settings"])
        profile = Profile(**record["provenance"]["profile"])
        fields = {name: record[name] for name in _RECORD}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{folder} can't be opened as a run: {error}; give the folder that Run.save wrote"
        ) from error
    with quiet_libraries():
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
            model = _load_model(folder, tokenizer, settings, profile, record["provenance"])
        except OSError as error:
            raise RunError(f"{folder} is incomplete: {error}") from error
    meter = pd.read_parquet(folder / METER) if (folder / METER).is_file() else None
    model.eval()
    return Run(model=model, tokenizer=tokenizer, settings=settings, _meter=meter, **fields)


def _load_model(
    folder: Path, tokenizer, settings: Settings, profile: Profile, provenance: dict[str, Any]
):
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, GenerationConfig

    from sftlab.train.methods import cast_adapters, load_base

    if settings.method not in ADAPTED:
        options = {"local_files_only": True, "use_safetensors": True, "dtype": torch.float32}
        model = AutoModelForCausalLM.from_pretrained(folder, **options)
        return model if profile.embedded else model.to(pick_device())  # as `load` places its base
    if profile.embedded:
        profile = replace(find_profile(profile.name), method=profile.method)
    elif not profile.on_hub and local_folder(profile) is None:
        raise RunError(
            f"{folder} holds adapters, and the model below them is no longer in {profile.source}; "
            "put it back there, or fine-tune again"
        )
    model, _ = load_base(profile, settings)
    if weights_hash(local_folder(profile)) != provenance["base_weights"]:
        raise RunError(
            f"{folder} holds adapters for another version of {profile.name}: the hash of the base's"
            " weights differs; get that version, or fine-tune again"
        )
    if provenance["added_tokens"]:
        resize_embeddings(model, len(tokenizer))
    model.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
    found = PeftModel.from_pretrained(model, str(folder), local_files_only=True)
    cast_adapters(found, settings.adapter_dtype)
    return found
