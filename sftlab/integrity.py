"""What is checked before the folder of a model or of a saved run is opened.

Its files are as they were saved: run.json holds the SHA-256 of each, and of itself. This tells
damage and changes. It is no signature: whoever changes a file can write its hash as well.

It names no code. With `trust_remote_code=False` transformers leaves `auto_map` alone, but not all
that a JSON file can name (`named_code`; read in the source of transformers 5.23).
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

RECORD = "run.json"
ADAPTERS = "adapter_config.json"
"""PEFT's file, which tells a folder of adapters from a model's."""
READ = {".json", ".jinja", ".safetensors", ".model", ".txt", ".py", ".bin", ".parquet"}
"""Endings of what libraries read of a folder, or would run: a report or notes may lie beside it."""
PLACES = ("*", "additional_chat_templates/*", "custom_generate/*")
GATE = "gate.json"
OTHERS = {RECORD, "own_data.json", GATE}  # its own hash; written earlier; written later
PLAIN = (None, "eager", "sdpa", "flex_attention", "grouped_mm", "batched_mm")
CHANGED = "copy it again from where it was saved, or allow changes of your own: --changed "
CHANGED += "(verify=False of load_run and find_profile)"


def file_hash(file: str | Path) -> str:
    """SHA-256 of a file's bytes, as hexadecimal text."""
    with Path(file).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hash_files(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file of a folder that a library may read, by its name there."""
    return {
        file.relative_to(folder).as_posix(): file_hash(file)
        for place in PLACES
        for file in sorted(folder.glob(place))
        if file.suffix in READ and file.name not in OTHERS and file.is_file()
    }


def differences(folder: Path, recorded: Mapping[str, str]) -> str:
    """Each file that is not as in the recorded hashes, in one line: 'config.json differs, evil.py
    was added, model.safetensors is missing'. Empty when all are."""
    found = hash_files(folder)
    said = {name: "was added" for name in found if name not in recorded}
    for name, hashed in recorded.items():
        if found.get(name) != hashed:
            said[name] = "differs" if name in found else "is missing"
    return ", ".join(f"{name} {what}" for name, what in sorted(said.items()))


def sealed(record: Mapping[str, Any]) -> bytes:
    """A record as JSON, with the SHA-256 of all else in it; ValueError when it holds NaN."""
    form = {"indent": 1, "ensure_ascii": False, "allow_nan": False}
    digest = hashlib.sha256(json.dumps(record, **form).encode()).hexdigest()
    return (json.dumps({**record, "sha256": digest}, **form) + "\n").encode()


def changes(folder: Path) -> str:
    """What of a saved run, or of the run that its adapters were trained on, is not as it was saved,
    in one line with a remedy; empty when all is, or when the folder is no run. Reads every file
    once, so it is called once for each folder that is opened: by `find_profile` or `load_run`."""
    if not (folder / RECORD).is_file():
        return ""
    try:
        content = (folder / RECORD).read_bytes()
        record = json.loads(content)
        written, files = record.pop("sha256", None), record.get("files")
        if written is None or files is None:
            said = f"{RECORD} holds no hashes: an older version of the lab wrote it, or a change"
        else:
            said = differences(folder, files)
            if sealed(record) != content:
                said = f"{RECORD} differs" + (said and f", {said}")
        if not said and (folder / ADAPTERS).is_file():
            base = Path(record["provenance"]["profile"]["source"])
            return changes(base) if base.is_absolute() else ""
    except (ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        said = f"{RECORD} differs ({error})"
    return said and f"{folder} is not as it was saved: {said}; {CHANGED}"


def named_code(config: Mapping[str, Any], tokenizer: Mapping[str, Any], *, weights: bool) -> str:
    """What a config.json or a tokenizer_config.json names that would import or fetch code although
    `trust_remote_code` is False; empty when nothing.

    Where the package `kernels` is installed, attention and experts "owner/repo" are fetched from
    the hub and run, and so is flash attention whose own package is missing; so do, with `weights`,
    quantisers (metal, eetq, mxfp4, fp8). A `tokenizer_class` such as AutoModel is called without
    `trust_remote_code`, asks on stdin, and runs `auto_map`.
    """
    import transformers

    for key, value in _leaves(config):
        if key.endswith(("attn_implementation", "experts_implementation")) and value not in PLAIN:
            return f"config.json names {key} {value!r}, code that may come from the hub"
        if key == "transformers_weights":  # which may be a pickle
            return f"config.json names {key}, another file of weights"
        if weights and key == "quant_method" and not str(value).startswith("bitsandbytes"):
            return f"config.json names quant_method {value!r}, whose code is not the lab's"
    for name in (config.get("tokenizer_class"), tokenizer.get("tokenizer_class")):
        made = getattr(transformers, name, None) if isinstance(name, str) else name
        whole = transformers.PreTrainedTokenizerBase
        if made is not None and not (isinstance(made, type) and issubclass(made, whole)):
            return f"tokenizer_class is {name!r}, no tokenizer of transformers"
    return ""


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Each value that is no mapping with its key, however deep; what is chosen for each part of a
    model comes with the key of the choice, such as attn_implementation."""
    if not isinstance(value, dict):
        yield key, value
        return
    for inner, one in value.items():
        yield from _leaves(one, key if key.endswith("_implementation") else inner)
