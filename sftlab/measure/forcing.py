"""Teacher forcing against generation: what a model predicts behind the true words, and behind its
own.

    true answer      Paris is the capital of France. The language of France is French.
    teacher forcing  every token is predicted behind the true ones: a slip is forgiven at once
    generation       every token is predicted behind those the model wrote: a slip stays

While training, and in a validation loss, a model is always in the first situation.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from sftlab.chat import IGNORED, label_rows
from sftlab.world import RELATIONS, Country, example, grammar

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BATCH = 64


def probe_forced(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", *, among: Sequence[Country]
) -> pd.DataFrame:
    """Two-hop questions, their worked answers given: is each token the likeliest behind the others?

    Answers and wording are those of `two_hop_examples`; with its template in the tokenizer. A row
    for each country and relation but the capital. Columns: country, group, relation, tokens (number
    of supervised ones, the end of turn among them), tokens_right (their share), right (whether the
    last fact, behind the true words before it, is right).
    """
    items = [(country, relation) for country in among for relation in RELATIONS[1:]]
    answers = [
        f"{one.capital} is the capital of {one.name}. {grammar.statement(one, relation)}"
        for one, relation in items
    ]
    questions = [
        grammar.TWO_HOP_QUESTION.format(relation=relation, x=country.capital)
        for country, relation in items
    ]
    rows = label_rows(
        tokenizer,
        [example(q, a) for q, a in zip(questions, answers, strict=True)],
    )
    hits = _hits(model, rows, pad=tokenizer.pad_token_id)
    frame = []
    for (country, relation), row, hit in zip(items, rows, hits, strict=True):
        ids = [label for label in row.labels if label != IGNORED]
        fact = _last_words(tokenizer, ids, getattr(country, relation))
        frame.append(
            {
                "country": country.name,
                "group": country.group,
                "relation": relation,
                "tokens": len(ids),
                "tokens_right": sum(hit) / len(hit),
                "right": all(hit[place] for place in fact),
            }
        )
    return pd.DataFrame(frame)


def _last_words(tokenizer, ids: list[int], words: str) -> range:
    """Places of the tokens of an answer that hold these words the last time."""
    for start in reversed(range(len(ids))):
        text = tokenizer.decode(ids[start:])
        if words in text:
            end = next(n for n in range(start + 1, len(ids) + 1)
                       if words in tokenizer.decode(ids[start:n]))  # fmt: skip
            return range(start, end)
    raise ValueError(f"{words!r} is not in {tokenizer.decode(ids)!r}")


def _hits(model, rows, *, pad: int) -> list[list[bool]]:
    """For each row, whether each supervised token was the likeliest."""
    import torch

    found = []
    with torch.inference_mode():
        for start in range(0, len(rows), BATCH):
            batch = rows[start : start + BATCH]
            width = max(len(row.ids) for row in batch)
            ids = torch.full((len(batch), width), pad)
            labels = torch.full_like(ids, IGNORED)
            for place, row in enumerate(batch):
                ids[place, : len(row.ids)] = torch.tensor(row.ids)
                labels[place, : len(row.ids)] = torch.tensor(row.labels)
            # Padding stands behind everything, and a decoder looks only to the left.
            logits = model(input_ids=ids.to(model.device), use_cache=False).logits
            right = logits[:, :-1].argmax(-1).cpu() == labels[:, 1:]
            supervised = labels[:, 1:] != IGNORED
            found += [hit[mask].tolist() for hit, mask in zip(right, supervised, strict=True)]
    return found
