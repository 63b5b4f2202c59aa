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
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sftlab.chat.templates import TemplateError, find_template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CONTRACT = "contract.json"
FORM = 1  # of the record; one of another form, which hashes otherwise, is not compared
_ASKED = {"role": "user", "content": "Which of the two?"}
FIXTURES: dict[str, list[dict[str, str]]] = {
    "one question": [{"role": "user", "content": "What is the capital of France?"}],
    "system message": [{"role": "system", "content": "Answer in one word."}, _ASKED],
    "outer spaces": [{"role": "user", "content": "  Two lines,\n\n and spaces \n"}],
    "several turns": [
        {"role": "user", "content": "Tea or coffee?"},
        {"role": "assistant", "content": " Tea. "},
        _ASKED,
    ],
    "not English": [{"role": "user", "content": "Où est l'Élysée? 東京は、Привет, 🙂"}],
    "digits and code": [{"role": "user", "content": "f(x) = 1234.5 + 67*x\n    return  None"}],
}
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
    said = []
    if _differ(recorded, found, "form"):
        return ""
    if changed := _prompts(recorded.get("prompts") or {}, found.get("prompts") or {}):
        said.append(changed)
    words = {
        "template": "the text of the chat template differs",
        "vocabulary": "a token of the vocabulary has another id or other properties",
    }
    said += [word for key, word in words.items() if _differ(recorded, found, key)]
    for key, name in (("special_ids", ""), ("stop_ids", "stop ids"), ("system_prompt", "")):
        if _differ(recorded, found, key):
            said += _values(name or key.replace("_", " "), recorded[key], found[key])
    if _differ(recorded, found, "template_named"):
        named = (recorded["template_named"], found["template_named"])
        said.append(f"the settings name the template {named[1]!r}, and it was {named[0]!r}")
    if _differ(recorded, found, "files"):
        said += _values("SHA-256 of", recorded["files"], found["files"], shown=12)
    return "; ".join(said)


def _differ(one: Mapping[str, Any], other: Mapping[str, Any], key: str) -> bool:
    return None not in (one.get(key), other.get(key)) and one[key] != other[key]


def _prompts(recorded: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """The first prompt that differs, with its texts from where they part, and how many do."""
    other = [name for name, one in found.items() if recorded.get(name, one) != one]
    if not other:
        return ""
    name, count = other[0], f"{len(other)} of {len(found)} test prompts differ"
    was, now = recorded[name], found[name]
    if None in (was["text"], now["text"]):
        verbs = ["refused" if one["text"] is None else "rendered" for one in (now, was)]
        return f"{count}: {name!r} is {verbs[0]} by the template, and was {verbs[1]}"
    key, word = ("ids", "tokenized") if was["text"] == now["text"] else ("text", "rendered")
    pairs = enumerate(zip(was[key], now[key], strict=False))
    shorter = min(len(was[key]), len(now[key]))
    place = next((n for n, (one, other) in pairs if one != other), shorter)
    parts = [one[key][place : place + 32] for one in (now, was)]
    return f"{count}: {name!r} is {word} as {parts[0]!r} at {place}, and was {parts[1]!r}"


def _values(name: str, was: Any, now: Any, *, shown: int = 60) -> list[str]:
    """How a value, or each that changed of several with names, was and is."""
    if isinstance(was, Mapping):
        keys = [key for key in {**was, **now} if was.get(key) != now.get(key)]
        return [
            line
            for key in keys
            for line in _values(f"{name} {key}", was.get(key), now.get(key), shown=shown)
        ]
    was, now = (one[:shown] if isinstance(one, str) else one for one in (was, now))
    return [f"{name} {was!r} -> {now!r}"]


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
