"""A finished fine-tune: talk to it, measure it, save it, open it again."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import torch
from jinja2 import Environment, StrictUndefined
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sftlab.chat import CONTRACT, contract_changes, find_template, make_contract
from sftlab.data import Message
from sftlab.integrity import CHANGED, RECORD, changes, file_hash, hash_files, sealed
from sftlab.machine import pick_device, processes
from sftlab.measure import generate, read_meter
from sftlab.models import add_adapters, first_line, load_tokenizer, load_weights
from sftlab.paths import write_atomically
from sftlab.profiles import ADAPTED, QUANTISED, Profile, read_adapters
from sftlab.quiet import quiet_libraries
from sftlab.train.examples import ExampleError, check_row
from sftlab.train.methods import cast_adapters, load_base
from sftlab.train.settings import Settings

_RECORD = "seconds tokens provenance history validation kept_epoch trained weights".split()
METER = "meter.parquet"
HELD = (".safetensors", "tokenizer.json")  # what a contract has the hashes of
DTYPES = ("float32", "bfloat16", "float16")  # of a merged model's weights
MARKS = ("<think>", "</think>", "<tool_call>", "</tool_call>")  # in some vocabularies special


class RunError(ValueError):
    """A folder that can't be saved to or opened as a run."""


@dataclass(kw_only=True)
class Run:
    """What `finetune` returns."""

    model: PreTrainedModel  # in evaluation mode; with adapters, PEFT's wrapper around the base
    tokenizer: PreTrainedTokenizerBase  # with the chat template it was trained on
    # One row a step: step, epoch, loss, learning_rate, grad_norm.
    history: list[dict[str, float]]
    # One row an epoch: epoch, step, loss on the validation examples; empty without any.
    validation: list[dict[str, float]] = field(default_factory=list)
    kept_epoch: float | None = None  # whose weights these are, after early stopping
    # Number of weights that were trained, of rows of added tokens those alone; 0 where the training
    # left every one as it was.
    trained: int = 0
    weights: int = 0  # number of the base's weights, rows of added tokens among them
    settings: Settings  # those used, with the profile's values filled in
    seconds: float  # of training alone, without loading and what came before a resumption
    tokens: dict[str, int]  # of one epoch: total, supervised
    provenance: dict[str, Any]  # profile, hashes of data and base weights, versions, device
    _meter: pd.DataFrame | None = field(default=None, repr=False)

    @property
    def adapted(self) -> bool:
        """Whether the model is a base with adapters around it, and not merged."""
        return self.settings.method in ADAPTED and not self.provenance.get("merged")

    @property
    def stop_ids(self) -> list[int]:
        """Ids of the tokens at which generation ends."""
        stops = self.model.generation_config.eos_token_id
        return [stops] if isinstance(stops, int) else list(stops or [])

    @property
    def context_length(self) -> int:
        """Tokens that a prompt and its answer may have together."""
        config = self.model.config.get_text_config()
        return getattr(config, "max_position_embeddings", None) or 2**17  # BLOOM states none

    def chat(self, messages: str | Sequence[Message], **options: Any) -> str:
        """The assistant's next words, up to 64 tokens; options are those of `answer`."""
        return self.answer([messages], **{"max_new_tokens": 64, **options})[0]

    def answer(
        self,
        questions: Sequence[str | Sequence[Message]],
        *,
        tools: Sequence[dict[str, Any]] | None = None,
        max_new_tokens: int = 24,
        **options: Any,
    ) -> list[str]:
        """Answers to questions or conversations, greedy unless `sample=True` draws them with a
        `temperature` and a `seed`; `tools` are JSON schemas that each answer may call."""
        if isinstance(questions, str):
            raise ExampleError(f"questions is one string, {questions!r}; give a list, or use chat")
        limit, prompts = self.context_length, []
        for index, asked in enumerate(questions):
            where = f"question {index}"
            messages = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
            given = {"messages": messages} | ({"tools": tools} if tools else {})
            row = check_row(given, where=where, answered=False)
            prompts.append(self.prompt_ids(row["messages"], row.get("tools")))
            if tools and prompts[-1] == self.prompt_ids(row["messages"]):
                raise ExampleError(
                    "the run's chat template writes no tools, so the model would not see them: "
                    "train with one that does, such as template='qwen3' (--template qwen3), or "
                    "leave out tools (--tools)"
                )
            if (count := len(prompts[-1])) >= limit:
                raise ExampleError(
                    f"{where} has {count} tokens and the model reads {limit}; leave out the "
                    "earliest turns"
                )
        options |= {"pad": self.tokenizer.pad_token_id, "max_new_tokens": max_new_tokens}
        with quiet_libraries():
            new = generate(self.model, prompts, **options)
        return self.texts(new)

    def texts(self, answers: Iterable[Sequence[int]]) -> list[str]:
        """What the model wrote, without special tokens other than `MARKS`."""
        added = self.tokenizer.added_tokens_decoder
        special = {*self.tokenizer.all_special_ids, *(i for i in added if added[i].special)}
        special -= {i for i in added if added[i].content in MARKS}
        return [self.tokenizer.decode([i for i in ids if i not in special]) for ids in answers]

    def prompt_ids(
        self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] | None = None
    ) -> list[int]:
        """Token ids of what the assistant's next words follow."""
        template = find_template(tokenizer=self.tokenizer)
        text = template.render(messages, tools=tools, add_generation_prompt=True)
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def meter(self) -> pd.DataFrame:
        """The old skills that are left: `sftlab.measure.read_meter` of this model, taken once."""
        if self._meter is None:
            known = self.provenance["profile"]["embedded"]
            self._meter = read_meter(self.model, self.tokenizer, known_corpus=known)
        return self._meter

    def merge(self) -> "Run":
        """The run as a plain model, as `load_run` opens it with `merge`; this one stays."""
        with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            self.write(Path(folder))
            # Not checked: its files are new, and the base was checked when it was opened.
            return load_run(folder, merge=True, verify=False)

    def save(self, folder: str | Path) -> Path:
        """Write weights, tokenizer with its template, and run.json to a new folder: a model that
        plain transformers loads, or adapters with a README.md that has the lines for PEFT. Of
        several processes the main one writes it."""
        folder = Path(folder)
        if not processes().is_main_process:
            return folder
        if folder.is_file() or any(folder.glob("*")):
            raise RunError(f"{folder} is a file, or not empty; give a new folder")
        self.write(folder)
        return folder

    def write(self, folder: Path) -> None:
        """The same beside what else is in the folder; run.json comes last, with all hashes."""
        record = {"settings": asdict(self.settings), **{n: getattr(self, n) for n in _RECORD}}
        try:
            sealed(record)
        except ValueError as error:  # NaN is no JSON
            raise RunError(
                f"the run's record can't be written ({error}): a training whose numbers are not "
                "finite has no use; train again with a lower learning_rate (--rate)"
            ) from error
        options = {}
        if self.adapted:
            profile = self.provenance["profile"]
            # PEFT would write this machine's path, into a README too. Rows that were added are
            # saved with the adapters, untrained ones with all others; without the option it looks
            # on the hub whether any were.
            base = profile["name" if Path(profile["source"]).is_absolute() else "source"]
            self.model.peft_config["default"].base_model_name_or_path = base
            below = self.model.get_base_model()
            below.name_or_path = below.config.name_or_path = base
            untrained = not self.settings.train_control_tokens
            options["save_embedding_layers"] = bool(self.provenance["added_tokens"]) and untrained
        with quiet_libraries():
            self.model.save_pretrained(folder, **options)
            self.model.generation_config.save_pretrained(folder)  # PEFT leaves it out
            self.tokenizer.save_pretrained(folder)
        if self.adapted:
            form = {"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True}
            environment = Environment(undefined=StrictUndefined, **form)
            environment.filters["repr"] = repr
            text = Path(__file__).with_name("adapters.jinja").read_text(encoding="utf-8")
            values = {"settings": self.settings, "provenance": self.provenance}
            values |= {"local": profile["name"] == base}
            card = environment.from_string(text).render(**values)
            (folder / "README.md").write_text(card, encoding="utf-8")  # in place of PEFT's
        _add_older_names(folder)
        if self._meter is not None:
            self._meter.to_parquet(folder / METER)
        (folder / CONTRACT).unlink(missing_ok=True)  # of an interrupted write
        files = hash_files(folder)
        contract = json.dumps(self.contract(files), indent=1, ensure_ascii=False)
        write_atomically(folder / CONTRACT, contract + "\n")
        files[CONTRACT] = file_hash(folder / CONTRACT)
        write_atomically(folder / RECORD, sealed({**record, "files": files}))

    def contract(self, files: Mapping[str, str] | None = None) -> dict[str, Any]:
        """What must stay the same when this run is served, as `sftlab.chat.make_contract` has it;
        `files` are the hashes of a folder's, of which it keeps those of `HELD`."""
        held = {name: one for name, one in (files or {}).items() if name.endswith(HELD)}
        return make_contract(
            self.tokenizer,
            stop_ids=self.stop_ids,
            template=self.settings.template,
            system_prompt=self.provenance.get("system_prompt"),
            files=held,
        )


def _add_older_names(folder: Path) -> None:
    """Write what transformers 4 reads too, which vLLM and llama.cpp's converter may have: without
    its `rope_theta` it would compute with 10,000 where theta is 500,000, without a word."""
    for file in filter(Path.is_file, [folder / "config.json", folder / "tokenizer_config.json"]):
        stated = json.loads(file.read_text(encoding="utf-8"))
        if stated.get("tokenizer_class") == "TokenizersBackend":
            stated["tokenizer_class"] = "PreTrainedTokenizerFast"
        if isinstance(stated.get("extra_special_tokens"), list):
            stated["additional_special_tokens"] = stated.pop("extra_special_tokens")
        rope = dict(stated.get("rope_parameters") or {})
        if "rope_theta" in rope:  # a mapping for each kind of layer, as Gemma 3's, has no such form
            for key in {"rope_theta", "partial_rotary_factor"} & set(rope):
                stated[key] = rope.pop(key)
            if rope.get("rope_type", "default") != "default":
                stated["rope_scaling"] = rope
        file.write_text(json.dumps(stated, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def load_run(
    folder: str | Path, *, merge: bool = False, dtype: str | None = None, verify: bool = True
) -> Run:
    """Open a run that `Run.save` wrote; the network is used only for a hub base not in the cache.

    With `merge` it is a plain model on the CPU, adapters added to the weights of its base, which is
    loaded unquantised: in float32, or bfloat16 after qlora or int8 in bf16, unless `dtype` says.
    Under lora logits stay the same to 1e-5 of their size. Under qlora and int8, whose adapters were
    trained beside rounded weights, those of `tiny` move by 6% and 1%: measure such a run again.

    A RunError refuses a run of which a file is not as it was saved, and so its base, unless
    `verify` is False: this tells damage and changes, and is no signature. Nor is a run opened that
    doesn't keep its contract: whose prompts, tokens or stop ids are not those that were saved, be
    it by another version of a library. Code that a folder brings or names is never run.
    """
    folder = Path(folder)
    if verify and (said := changes(folder)):
        raise RunError(said)
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        settings = Settings(**record["settings"])
        profile = Profile(**record["provenance"]["profile"])
        fields = {name: record[name] for name in _RECORD}
        adapted = settings.method in ADAPTED and not fields["provenance"].get("merged")
        kept = (folder / METER).is_file() and not merge
        meter = pd.read_parquet(folder / METER) if kept else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RunError(
            f"{folder} can't be opened as a run: {first_line(error)}; give the folder that Run.save"
            " or `sftlab train --out` wrote, copied again if it is damaged"
        ) from error
    merge = merge and adapted
    if merge and settings.method == "prefix":
        raise RunError(
            f"{folder} holds a prefix, which weights can't take in; open it beside its base, as its"
            " README.md says, or train again with method='lora' (--method lora)"
        )
    if dtype not in (None, *DTYPES):
        raise RunError(f"dtype is {dtype!r}; choose one of {', '.join(DTYPES)}")
    own = replace(profile, name=str(folder), source=str(folder.resolve()))
    with quiet_libraries():
        tokenizer = load_tokenizer(own)
        if merge:
            halved = settings.method in QUANTISED and settings.bf16
            dtype = dtype or ("bfloat16" if halved else "float32")
            model = load_weights(replace(own, method="full"), dtype=getattr(torch, dtype))
        elif adapted:
            model, _ = load_base(read_adapters(folder)[0], settings)
            model = add_adapters(model, folder)
            cast_adapters(model, settings.adapter_dtype)
        else:
            model = load_weights(own, dtype=getattr(torch, dtype or "float32"))
            if not profile.embedded:
                model.to(pick_device())  # as `load` places its base
    if merge:
        source = profile.name if Path(profile.source).is_absolute() else profile.source
        described = asdict(profile) | {"source": source}  # it needs its base no more
        fields["provenance"] |= {"profile": described, "merged": True}
    run = Run(model=model.eval(), tokenizer=tokenizer, settings=settings, _meter=meter, **fields)
    if verify and (said := _broken(folder, run, record.get("files", {}))):
        raise RunError(f"{folder} doesn't keep its contract: {said}; {CHANGED}")
    return run


def _broken(folder: Path, run: Run, files: Mapping[str, str]) -> str:
    """What of the contract that was saved with a run it doesn't keep; older runs have none."""
    file = folder / CONTRACT
    if not file.is_file():
        return ""
    try:
        recorded = json.loads(file.read_text(encoding="utf-8"))
        return contract_changes(recorded, run.contract(files))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{CONTRACT} can't be read ({first_line(error)})"
