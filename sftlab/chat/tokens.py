"""What a tokenizer makes of a template's text: whole tokens, stops, bos, padding, boundaries."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sftlab.chat.case import LONG, MARKER, Case
from sftlab.chat.diagnosis import Finding
from sftlab.chat.masking import labels
from sftlab.data import shown

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def token_symptoms(case: Case, tokenizer: "PreTrainedTokenizerBase") -> Iterator[Finding]:
    """Everything that can be said about a template with a tokenizer."""
    if not tokenizer.is_fast:
        yield Finding(
            level="error",
            code="slow-tokenizer",
            what="the tokenizer cannot tell which characters a token stands for, so no mask can "
            "be placed",
            remedy="load a fast one: a folder with tokenizer.json",
        )
        return
    for check in (end_token, split_markers, begin, padding, straddling):
        yield from check(case, tokenizer)


def stops(tokenizer: "PreTrainedTokenizerBase") -> set[int]:
    """The ids at which generation ends: the tokenizer's eos, and generation_config.json's beside.

    The file is read only from a folder on this machine; a hub model's is not fetched.
    """
    file = Path(tokenizer.name_or_path or "") / "generation_config.json"
    found: int | list[int] | None = None
    if tokenizer.name_or_path and file.is_file():
        found = json.loads(file.read_text(encoding="utf-8")).get("eos_token_id")
    ids = [found] if isinstance(found, int) else list(found or [])
    return {i for i in (tokenizer.eos_token_id, *ids) if i is not None}


def end_token(case: Case, tokenizer: "PreTrainedTokenizerBase") -> Iterator[Finding]:
    """Whether what ends a turn is one token, and generation stops at it."""
    end = case.end_of_turn
    if end is None:
        return
    markers = MARKER.findall(end)  # Cohere ends an answer, and then the turn, with a token each.
    if len(markers) > 1 and "".join(markers) == end:
        end = markers[-1]
    pieces = tokenizer(end, add_special_tokens=False)["input_ids"]
    if len(pieces) != 1:
        yield Finding(
            level="error",
            code="end-split",
            what=f"the tokenizer cuts the end of turn {shown(end)} into {len(pieces)} tokens"
            f"{_named(tokenizer, pieces)}, so nothing stops a model that writes it",
            remedy="add it to the tokenizer as a special token and resize the model's embeddings "
            "(`sftlab` does both when it trains), or take a template whose end it knows",
        )
    elif pieces[0] not in stops(tokenizer):
        yield Finding(
            level="warning",
            code="end-not-stop",
            what=f"generation does not stop at the end of turn {shown(end)}: the tokenizer's eos "
            f"is {tokenizer.eos_token!r}, so a model that learned to end its turn talks on",
            remedy=f"set eos_token to {end!r}, or add its id {pieces[0]} to eos_token_id in "
            "generation_config.json (`sftlab` does it when it trains)",
        )
    else:
        yield Finding(
            level="ok",
            code="end-stops",
            what=f"the end of turn {shown(end)} is one token, and generation stops at it",
        )


def split_markers(case: Case, tokenizer: "PreTrainedTokenizerBase") -> Iterator[Finding]:
    """Whether the tokens that structure a conversation are tokens."""
    markers = [marker for marker in case.markers if marker != case.end_of_turn]
    pieces = {m: tokenizer(m, add_special_tokens=False)["input_ids"] for m in markers}
    split = [marker for marker in markers if len(pieces[marker]) > 1]
    if split:
        yield Finding(
            level="warning",
            code="markers-split",
            what=f"the tokenizer knows {_listed(split)} only as ordinary text: {shown(split[0])} "
            f"becomes {len(pieces[split[0]])} tokens{_named(tokenizer, pieces[split[0]])}, so "
            "nothing tells a turn's header from the same letters in a message",
            remedy="add them to the tokenizer as special tokens and resize the model's embeddings "
            "(`sftlab` does both for its own families)",
        )
    elif markers:
        yield Finding(
            level="ok",
            code="markers",
            what=f"{'each of ' * (len(markers) > 1)}{_listed(markers)} is one token",
        )


def begin(case: Case, tokenizer: "PreTrainedTokenizerBase") -> Iterator[Finding]:
    """Whether the token that begins a text comes exactly as often as it should."""
    bos = tokenizer.bos_token
    if bos is None:
        return
    added = tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
    written = case.long.text.startswith(bos)
    if written and (added or case.long.text.startswith(bos + bos)):
        who = "the tokenizer adds another" if added else "writes it twice"
        yield Finding(
            level="warning",
            code="double-bos",
            what=f"the template begins with {bos!r} and {who}, so a text that is rendered first "
            "and tokenized later starts with two, which the model never saw",
            remedy="tokenize rendered text with add_special_tokens=False (the lab does)",
        )
    elif added and not written:
        yield Finding(
            level="warning",
            code="missing-bos",
            what=f"the tokenizer begins every text with {bos!r}, but the template does not, and a "
            "rendered conversation is tokenized without it, so it starts as no text of the "
            "model's training did",
            remedy="begin the template with `{{ bos_token }}` (`sftlab` does it when it trains)",
        )


def padding(case: Case, tokenizer: "PreTrainedTokenizerBase") -> Iterator[Finding]:
    """Whether padding is a token of its own."""
    pad, end = tokenizer.pad_token, case.end_of_turn
    if pad is None:
        yield Finding(
            level="note",
            code="no-pad",
            what="the tokenizer has no padding token, and a batch needs one",
            remedy="name a token that no text holds; do not take the end of turn",
        )
    elif pad == end:
        yield Finding(
            level="warning",
            code="pad-is-end",
            what=f"padding is the end of turn ({pad!r}): a trainer that leaves padding out of the "
            "loss leaves out every end of turn too, and the model never learns to stop",
            remedy="name another padding token, one that no text holds",
        )
    elif pad == tokenizer.eos_token:
        yield Finding(
            level="note",
            code="pad-is-eos",
            what=f"padding is the eos token ({pad!r}), which does no harm only as long as no "
            "conversation holds it",
            remedy="name another padding token, one that no text holds, before you take a template "
            "that ends its turns with eos",
        )


def straddling(case: Case, tokenizer: "PreTrainedTokenizerBase") -> Iterator[Finding]:
    """Whether a token holds both a piece of an answer and a piece of what is not."""
    made = labels(tokenizer, LONG, template=case.template, on_full="keep")
    if made.straddling:
        texts = [made.text[slice(*made.offsets[token])] for token in made.straddling]
        yield Finding(
            level="warning",
            code="straddling",
            what=f"the tokenizer joins the edge of an answer with what stands beside it into one "
            f"token ({_listed(list(dict.fromkeys(texts)))}), which is left out of what is learned",
            remedy="put a line break or a special token between the header and the answer",
        )


def _listed(names: list[str], *, most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(repr(name) for name in names[:most]) + more


def _named(tokenizer: "PreTrainedTokenizerBase", ids: list[int]) -> str:
    """The first tokens in brackets, or nothing where one is a piece of a letter."""
    texts = [tokenizer.decode([i]) for i in ids[:6]]
    if any("\ufffd" in text for text in texts):
        return ""
    return f" ({' '.join(map(repr, texts))}{' ...' * (len(ids) > 6)})"
