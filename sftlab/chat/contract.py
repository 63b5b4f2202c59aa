"""What a served model must reproduce, as a record that travels with its weights.

The hashes of files in run.json tell that a file changed. The contract tells what a change does, and
is kept where no file is: when a library renders or tokenizes the same files differently, or after a
conversion to another format.

    prompts        conversations, rendered and tokenized as the model was trained on them
    template       SHA-256 of its text                  named by a setting: chatml
    vocabulary     SHA-256 of each token with its id
    special_ids    eos, bos, pad and the others
    stop_ids       where generation ends
    system_prompt  what every training row began with
    files          SHA-256 of the weights and of tokenizer.json, which other programs read too
"""

import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftlab.chat.spans import shared
from sftlab.chat.templates import TemplateError, find_template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CONTRACT = "contract.json"
FORM = 1  # of the record; one of another form, which hashes otherwise, is not compared
FIXTURES: dict[str, list[dict[str, str]]] = tomllib.loads(
    Path(__file__).with_name("fixtures.toml").read_text(encoding="utf-8")
)
"""Conversations with what templates and tokenizers treat differently."""


def make_contract(
    tokenizer: "PreTrainedTokenizerBase",
    *,
    stop_ids: Sequence[int],
    template: str | None = None,
    system_prompt: Mapping[str, Any] | None = None,
    files: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The contract of a model, as plain values; some milliseconds, no weight is read.

    Args:
        tokenizer: with its chat template.
        stop_ids: where generation ends.
        template: the name that the run's settings give it.
        system_prompt: of the training, as `find_system_prompt` gives it.
        files: SHA-256 of the files that hold weights and vocabulary.
    """
    vocabulary = sorted((id, token) for token, id in tokenizer.get_vocab().items())
    traits = ("content", "special", "normalized", "lstrip", "rstrip", "single_word")
    decoder = tokenizer.added_tokens_decoder
    added = [[id, *(getattr(decoder[id], trait) for trait in traits)] for id in sorted(decoder)]
    special = {
        key: tokenizer.convert_tokens_to_ids(token)
        for key, token in tokenizer.special_tokens_map.items()
        if isinstance(token, str)
    }
    prompts = {}
    for name, messages in FIXTURES.items():
        for ending in (True, False):
            label = f"{name}, {'with' if ending else 'without'} generation prompt"
            text = _rendered(tokenizer, messages, ending)
            ids = None if text is None else tokenizer(text, add_special_tokens=False)["input_ids"]
            prompts[label] = {"text": text, "ids": ids}
    return {
        "form": FORM,
        "prompts": prompts,
        "template": _sha256(tokenizer.chat_template),
        "template_named": template,
        "vocabulary": _sha256([vocabulary, added]),
        "special_ids": special,
        "stop_ids": list(stop_ids),
        "system_prompt": dict(system_prompt) if system_prompt else None,
        "files": dict(files) if files else None,
    }


def find_system_prompt(conversations: list[Mapping[str, Any]]) -> dict[str, Any]:
    """The system message that all conversations begin with: `text`, None unless it is one and the
    same, and `different`, the number of different ones, having none counted as one."""
    firsts = (row["messages"][0] for row in conversations)
    found = {one["content"] if one["role"] == "system" else None for one in firsts}
    return {"different": len(found), "text": found.pop() if len(found) == 1 else None}


def contract_changes(recorded: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """What differs from the recorded contract, in one line; empty when nothing does.

    What is None or absent on a side is not compared: a run in memory has no files of weights.
    """
    if _differ(recorded, found, "form"):
        return ""
    said = _prompts(recorded.get("prompts") or {}, found.get("prompts") or {})
    for key in [key for key in recorded if key not in ("form", "prompts")]:
        if _differ(recorded, found, key):
            said += _values(key.replace("_", " "), recorded[key], found[key])
    return "; ".join(said)


def _differ(one: Mapping[str, Any], other: Mapping[str, Any], key: str) -> bool:
    return None not in (one.get(key), other.get(key)) and one[key] != other[key]


def _prompts(recorded: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """The first prompt that differs, from where its text or ids part, and how many do."""
    differing = [name for name, one in found.items() if recorded.get(name, one) != one]
    if not differing:
        return []
    was, now = recorded[differing[0]], found[differing[0]]
    key, word = ("ids", "tokenized") if was["text"] == now["text"] else ("text", "rendered")
    one, other = (side[key] or "" for side in (was, now))  # empty where the template refuses
    place = shared(one, other)
    return [
        f"{len(differing)} of {len(found)} test prompts differ: {differing[0]!r} is {word} as "
        f"{other[place : place + 32]!r} at {place}, and was {one[place : place + 32]!r}"
    ]


def _values(name: str, was: Any, now: Any) -> list[str]:
    """How a value, or each that changed of several with names, was and is; of long ones the first
    60 characters."""
    if isinstance(was, Mapping):
        pairs = {key: (was.get(key), now.get(key)) for key in {**was, **now}}
        return [f"{name} {key} {a!r:.60} -> {b!r:.60}" for key, (a, b) in pairs.items() if a != b]
    return [f"{name} {was!r:.60} -> {now!r:.60}"]


def _rendered(tokenizer: Any, messages: list[dict[str, str]], ending: bool) -> str | None:
    """None where the template refuses the conversation; a date that it writes is fixed."""
    try:
        template = find_template(tokenizer=tokenizer)
        how = {"add_generation_prompt": ending, "strftime_now": lambda form: "1 January 2000"}
        return template.render(messages, **how)
    except TemplateError:
        return None


def _sha256(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
