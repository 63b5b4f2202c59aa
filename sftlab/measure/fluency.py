"""How a model's text runs: perplexity, variety, repetition."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from sftlab.chat import IGNORED, label_rows

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BATCH = 64


def perplexity(nats: float) -> float:
    """exp of a mean loss in nats a token: among how many tokens the model is as good as choosing.

    It belongs to a tokenizer: one that cuts text into more tokens has a lower one.
    """
    return math.exp(nats)


def probe_perplexity(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", rows: Sequence[dict]
) -> pd.DataFrame:
    """Loss of each conversation's answers, in the tokenizer's chat template.

    A row for each conversation. Columns: conversation (its index), tokens (supervised ones, ends of
    turn among them), characters (of the answers), nats (their sum). The perplexity of all of them
    is exp(sum of nats / sum of tokens); nats for each character can be compared between tokenizers.
    """
    import torch

    labelled, found = label_rows(tokenizer, rows), []
    with torch.inference_mode():
        for start in range(0, len(labelled), BATCH):
            batch = labelled[start : start + BATCH]
            width = max(len(row.ids) for row in batch)
            ids = torch.zeros((len(batch), width), dtype=torch.long)
            labels = torch.full_like(ids, IGNORED)
            for place, row in enumerate(batch):
                ids[place, : len(row.ids)] = torch.tensor(row.ids)
                labels[place, : len(row.ids)] = torch.tensor(row.labels)
            # Padding stands behind everything, and a decoder looks only to the left.
            logits = model(input_ids=ids.to(model.device), use_cache=False).logits[:, :-1].float()
            losses = torch.nn.functional.cross_entropy(
                logits.transpose(1, 2), labels[:, 1:].to(logits.device), ignore_index=IGNORED,
                reduction="none",
            )  # fmt: skip
            found += losses.sum(1).tolist()
    return pd.DataFrame(
        {
            "conversation": range(len(rows)),
            "tokens": [sum(label != IGNORED for label in row.labels) for row in labelled],
            "characters": [
                sum(len(m["content"]) for m in row["messages"] if m["role"] == "assistant")
                for row in rows
            ],
            "nats": found,
        }
    )


def distinct(texts: Sequence[str], size: int = 1) -> float:
    """distinct-n (Li et al. 2016): different n-grams of words over all n-grams, of all texts.

    It falls as there are more texts, so compare equal numbers of them. 0 without any n-gram.
    """
    grams = [gram for text in texts for gram in _grams(text, size)]
    return len(set(grams)) / len(grams) if grams else 0.0


def repetition(text: str, size: int = 4) -> float:
    """Share of a text's n-grams of words that stood in it before (seq-rep-n, Welleck et al. 2019).

    0 for a text without an n-gram, near 1 for one that goes in circles.
    """
    grams = _grams(text, size)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def _grams(text: str, size: int) -> list[tuple[str, ...]]:
    if size < 1:
        raise ValueError(f"size is {size}; an n-gram has one word or more")
    words = text.split()
    return [tuple(words[n : n + size]) for n in range(len(words) - size + 1)]
