"""The forgetting meter: a frozen battery of old skills, read off a model in one pass.

Every item is a text that is known to its end, so nothing has to be generated:

    The capital of France is  Paris
                              ^ the likeliest token here, at each place?  -> right
                                what did the right ones cost, in nats?    -> nats

As long as every token is the likeliest behind those before it, greedy generation writes the same.
So `right` is what generation would give, at the price of reading.

    read(model, tokenizer)       a frame with one row an item
    compare(before, after)       both readings side by side
    summary(frame)               one row a skill
"""

from collections.abc import Iterator, Sequence
from inspect import signature
from typing import TYPE_CHECKING

import pandas as pd

from sftlab.measure.completion import with_bos
from sftlab.measure.old_skills import SKILLS, Item, items

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ROWS, LOGITS = 64, 1 << 25
"""The most rows of a batch, and the most logits of it (128 MB): vocabularies differ."""
LONGER = 1.25
"""By how much the longest row of a batch may exceed the shortest: what is beyond is padding."""
LONGEST = 128
"""Tokens of a document; what is beyond is not read."""
KEYS = ["skill", "relation", "item", "prompt", "expected"]


def read(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", *, known_corpus: bool = True
) -> pd.DataFrame:
    """Read the meter off a model, which stays as it is.

    Args:
        model: in evaluation mode.
        tokenizer: its own.
        known_corpus: whether it is an embedded model; another has no stories, counting and corpus
            to lose that anyone knows of, and is asked for true facts alone.

    Returns:
        One row an item of `sftlab.measure.old_skills`: skill, relation, item (what it is about:
        rows about one thing go together), prompt, expected, output (what the model writes, up to
        the first token that is not the expected answer's), right (missing for documents), nats (a
        token of the expected answer, or of the document).
    """
    asked = items(known_corpus=known_corpus)
    texts = [(n, _ids(tokenizer, one, a)) for n, one in enumerate(asked) for a in one.answers]
    marks = _marks(model, [ids for _, ids in texts], pad=tokenizer.pad_token_id or 0)
    by_item: list[list] = [[] for _ in asked]
    for (n, (ids, start)), mark in zip(texts, marks, strict=True):
        by_item[n].append(_judged(tokenizer, ids, start, *mark))
    rows = []
    for one, found in zip(asked, by_item, strict=True):
        right, output, nats = found[0]
        document = one.skill == "corpus"
        for other in found[1:]:
            if other[0] and not right:
                right, output = other[:2]
        rows.append({
            "skill": one.skill, "relation": one.relation, "item": one.item, "prompt": one.prompt,
            "expected": "" if document else one.answers[0], "output": "" if document else output,
            "right": None if document else right, "nats": nats,
        })  # fmt: skip
    return pd.DataFrame(rows).astype({"right": "boolean"})


def _ids(tokenizer, one: Item, answer: str) -> tuple[list[int], int]:
    """Ids of prompt and answer, and the place where those of the answer begin."""
    if not one.prompt:
        return with_bos(tokenizer, answer)[:LONGEST], 1
    prompt, whole = (with_bos(tokenizer, t) for t in (one.prompt, f"{one.prompt} {answer}"))
    # Where the answer changes how the end of the prompt is cut, that end belongs to it.
    pairs = enumerate(zip(prompt, whole, strict=False))
    start = next((n for n, (a, b) in pairs if a != b), min(len(prompt), len(whole) - 1))
    return whole, max(start, 1)


Mark = tuple[list[int], list[float]]


def _marks(model, texts: Sequence[tuple[list[int], int]], *, pad: int) -> list[Mark]:
    """For each text the likeliest token at each place from its start on, one more than there are,
    and the nats of each token that is there."""
    import torch

    found: list[Mark | None] = [None] * len(texts)
    vocabulary = model.config.get_text_config().vocab_size
    # The way to a large vocabulary is the dearest part: only answers need it.
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    keeps = "logits_to_keep" in signature(base.forward).parameters
    with torch.inference_mode():
        for batch in _batches(texts, most=LOGITS // vocabulary):
            width = max(len(texts[n][0]) for n in batch)
            ids = torch.full((len(batch), width), pad)
            mask = torch.zeros_like(ids)
            for row, n in enumerate(batch):
                ids[row, : len(texts[n][0])] = torch.tensor(texts[n][0])
                mask[row, : len(texts[n][0])] = 1
            ids, mask = ids.to(model.device), mask.to(model.device)
            first = min(texts[n][1] for n in batch) - 1
            last = {"logits_to_keep": width - first} if keeps else {}
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False, **last).logits
            left = width - logits.shape[1]
            for row, n in enumerate(batch):
                start, end = texts[n][1] - left, len(texts[n][0]) - left
                found[n] = _mark(logits[row], ids[row, left:], start, end)
    return found  # type: ignore[return-value]


def _mark(logits: "torch.Tensor", ids: "torch.Tensor", start: int, end: int) -> Mark:
    part = logits[start - 1 : end].float()
    there = ids[start:end]
    losses = part[:-1].logsumexp(-1) - part[:-1].gather(-1, there[:, None])[:, 0]
    return part.argmax(-1).tolist(), losses.tolist()


def _batches(texts: Sequence[tuple[list[int], int]], *, most: int) -> Iterator[list[int]]:
    """Places of texts that share a batch: of like length, and with few enough places in all."""
    batch: list[int] = []
    for n in sorted(range(len(texts)), key=lambda n: len(texts[n][0])):
        width = len(texts[n][0])
        full = len(batch) == ROWS or (len(batch) + 1) * width > most
        if batch and (full or width > LONGER * len(texts[batch[0]][0])):
            yield batch
            batch = []
        batch.append(n)
    if batch:
        yield batch


def _judged(tokenizer, ids, start, likeliest, losses) -> tuple[bool, str, float]:
    """Whether the answer is what the model writes, what it writes, and the nats a token."""
    wanted = ids[start:]
    same = [a == b for a, b in zip(likeliest, wanted, strict=False)]
    ends = same.index(False) if False in same else len(wanted)
    output = tokenizer.decode([*wanted[:ends], likeliest[ends]], skip_special_tokens=True)
    nats = sum(losses) / len(losses)
    if ends < len(wanted):
        return False, output, nats
    # `8` is not the start of `80`, nor `Niger` that of `Nigeria`.
    answer = tokenizer.decode(wanted, skip_special_tokens=True)
    return not output[len(answer) : len(answer) + 1].isalnum(), answer, nats


def compare(before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    """Two readings of the same items side by side; `after` may hold several, such as one a seed.

    Returns:
        The rows of `after` with right_before and nats_before.

    Raises:
        ValueError: the readings are of other items.
    """
    was = before[[*KEYS, "right", "nats"]].rename(
        columns={"right": "right_before", "nats": "nats_before"}
    )
    both = after.merge(was, on=KEYS, how="left", validate="many_to_one")
    if both["nats_before"].isna().any() or len(after) % len(before):
        raise ValueError(
            "the readings are not of the same items: read both with the same version of the "
            "course, and both with or both without the known corpus"
        )
    return both


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """One row a skill: shares right and mean nats, before and after where `frame` has both."""
    columns = [c for c in ("right_before", "right", "nats_before", "nats") if c in frame]
    told = frame[["skill", *columns]].astype(dict.fromkeys(columns, "Float64"))
    found = told.groupby("skill", sort=False).mean()
    return found.loc[[skill for skill in SKILLS if skill in found.index]]
