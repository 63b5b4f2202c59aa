"""What is checked before the folder of a model or of a saved run is opened.

Its files are as they were saved: run.json holds the SHA-256 of each, and of itself. This tells
damage and changes. It is no signature: whoever changes a file can write its hash as well.

It names no code. With `trust_remote_code=False` transformers leaves `auto_map` alone, but not all
that a JSON file can name (`named_code`; measured on transformers 5.23 and PEFT 0.21).
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

RECORD = "run.json"
READ = {".json", ".jinja", ".safetensors", ".model", ".txt", ".py", ".bin", ".parquet"}
"""Endings of what libraries read of a folder, or would run: a report or notes may lie beside it."""
PLACES = ("*", "additional_chat_templates/*", "custom_generate/*")
PLAIN = (None, {}, "eager", "sdpa", "flex_attention", "grouped_mm", "batched_mm")
OTHERS = {RECORD, "own_data.json"}  # the first has its own hash, the second is written earlier
CHANGED = "copy it again from where it was saved, or allow changes of your own: --changed "
CHANGED += "(verify=False of load_run and find_profile)"


def file_hash(file: str | Path) -> str:
    """SHA-256 of a file's bytes, as hexadecimal text."""
    with Path(file).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hash_files(folder: Path, *, weights: bool = True) -> dict[str, str]:
    """The SHA-256 of each file of a folder that a library may read, by its name there; without
    `weights` that of a *.safetensors is empty."""
    return {
        file.relative_to(folder).as_posix(): ""
        if file.suffix == ".safetensors" and not weights
        else file_hash(file)
        for place in PLACES
        for file in sorted(folder.glob(place))
        if file.suffix in READ and file.name not in OTHERS and file.is_file()
    }


def differences(folder: Path, recorded: Mapping[str, str], *, weights: bool = True) -> str:
    """Each file that is not as in the recorded hashes, in one line: 'config.json differs, evil.py
    was added, model.safetensors is missing'. Empty when all are."""
    found = hash_files(folder, weights=weights)
    said = {name: "was added" for name in found if name not in recorded}
    for name, hashed in recorded.items():
        if found.get(name) not in ("", hashed):
            said[name] = "differs" if name in found else "is missing"
    return ", ".join(f"{name} {what}" for name, what in sorted(said.items()))


def sealed(record: Mapping[str, Any]) -> bytes:
    """A record as JSON, with the SHA-256 of all else in it; ValueError when it holds NaN."""
    form = {"indent": 1, "ensure_ascii": False, "allow_nan": False}
    digest = hashlib.sha256(json.dumps(record, **form).encode()).hexdigest()
    return (json.dumps({**record, "sha256": digest}, **form) + "\n").encode()


def changes(folder: Path, *, weights: bool = True) -> str:
    """What of a saved run is not as it was saved, in one line with a remedy; empty when all is, or
    when the folder is no run. Without `weights` a *.safetensors counts by its name alone."""
    if not (folder / RECORD).is_file():
        return ""
    try:
        content = (folder / RECORD).read_bytes()
        record = json.loads(content)
        written, files = record.pop("sha256", None), record.get("files")
        if written is None or files is None:
            said = f"{RECORD} holds no hashes: an older version of the lab wrote it, or a change"
        else:
            said = differences(folder, files, weights=weights)
            if sealed(record) != content:
                said = f"{RECORD} differs" + (said and f", {said}")
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        said = f"{RECORD} differs ({error})"
    return said and f"{folder} is not as it was saved: {said}; {CHANGED}"


def named_code(config: Mapping[str, Any], tokenizer: Mapping[str, Any], *, weights: bool) -> str:
    """What a config.json or a tokenizer_config.json names that would import or fetch code although
    `trust_remote_code` is False, or, with `weights`, a quantiser other than bitsandbytes.

    Attention and experts "owner/repo" are kernels, which are fetched from the hub and run, and so
    is flash attention where its package is missing. A `tokenizer_class` such as AutoTokenizer or
    AutoModel is called without `trust_remote_code`, asks on stdin, and runs `auto_map`.
    """
    import transformers

    for key, value in _items(config):
        named = [one for one in _leaves(value) if one not in PLAIN]
        if named and key.endswith(("attn_implementation", "experts_implementation")):
            return f"config.json names {key} {named[0]!r}, code that may come from the hub"
        kind = value.get("quant_method") if isinstance(value, dict) else value
        if key == "transformers_weights":
            return f"config.json names {key}, another file of weights"
        bits = weights and key == "quantization_config"
        if bits and not str(kind or "bitsandbytes").startswith("bitsandby"):
            return f"config.json names quant_method {kind!r}, whose code is not the lab's"
    for stated in (config, tokenizer):
        name = stated.get("tokenizer_class")
        made = getattr(transformers, name, None) if isinstance(name, str) else name
        whole = transformers.PreTrainedTokenizerBase
        if made is not None and not (isinstance(made, type) and issubclass(made, whole)):
            return f"tokenizer_class is {name!r}, no tokenizer of transformers"
    return ""


def _items(value: Any) -> Iterator[tuple[str, Any]]:
    """Each key with its value, however deep."""
    for key, inner in value.items() if isinstance(value, dict) else ():
        yield key, inner
        yield from _items(inner)


def _leaves(value: Any) -> list[Any]:
    inner = value.values() if isinstance(value, dict) else ()
    return [one for v in inner for one in _leaves(v)] if inner else [value]


def named_adapters(stated: Mapping[str, Any]) -> str:
    """What an adapter_config.json names beside what the lab writes; empty when nothing.

    PEFT imports the module of `auto_mapping` or `megatron_core` by its name; whatever else is not
    as PEFT has it by default, the lab did not write.
    """
    from peft import LoraConfig, PrefixTuningConfig

    kinds = {"LORA": LoraConfig, "PREFIX_TUNING": PrefixTuningConfig}
    kind = stated.get("peft_type")
    if kind not in kinds or stated.get("task_type") != "CAUSAL_LM":
        return f"peft_type is {kind!r}, task_type {stated.get('task_type')!r}"
    default = kinds[kind]().to_dict()
    odd = [k for k, v in stated.items() if k in default and v != default[k] and k not in WRITTEN]
    return f"{', '.join(odd)} in adapter_config.json, which the lab never writes" if odd else ""


WRITTEN = set(
    "task_type peft_type inference_mode base_model_name_or_path revision peft_version r lora_alpha "
    "lora_dropout use_rslora use_dora target_modules target_parameters fan_in_fan_out "
    "trainable_token_indices num_virtual_tokens num_layers num_attention_heads token_dim "
    "num_transformer_submodules encoder_hidden_size".split()
)
