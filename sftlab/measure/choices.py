"""Multiple choice by likelihood: which of some answers does a model find likeliest behind a text?

    Q: What is the capital of France?
    A: Paris   -0.1 nats      MC1  1 if the likeliest of all is right (TruthfulQA, 2109.07958)
       Lyon    -4.0           MC2  the right ones' share of the probability of all of them
       Rome    -3.2

A model that can't answer a question by itself may have both at 1: nothing is generated.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sftlab.measure.completion import with_bos
from sftlab.world import RELATIONS, Country, countries, grammar

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BATCH = 128


def mc1(likelihoods: Sequence[float], right: Sequence[bool]) -> float:
    """1 when the likeliest choice is right, else 0; of equal ones the first counts.

    `likelihoods` are logarithms, one a choice, of the whole text of it.
    """
    _check(likelihoods, right)
    return float(right[int(np.argmax(likelihoods))])


def mc2(likelihoods: Sequence[float], right: Sequence[bool]) -> float:
    """Probability of the right choices over the probability of all choices."""
    _check(likelihoods, right)
    scores = np.asarray(likelihoods, dtype=float)
    shares = np.exp(scores - scores.max())
    return float(shares[np.asarray(right, dtype=bool)].sum() / shares.sum())


def _check(likelihoods: Sequence[float], right: Sequence[bool]) -> None:
    if len(likelihoods) != len(right) or not 0 < sum(map(bool, right)) < len(right):
        raise ValueError(
            f"{len(likelihoods)} likelihoods, {len(right)} marks of which {sum(map(bool, right))} "
            "are right: give each choice both, and at least one that is right and one that is not"
        )


@dataclass(frozen=True, kw_only=True)
class Continued:
    """The log probability of a text behind a prompt."""

    nats: float
    """Sum over its tokens, zero or less."""
    tokens: int
    """How many they are."""

    @property
    def mean(self) -> float:
        """For each token, which favours long texts whose words follow from each other."""
        return self.nats / self.tokens


def continuations(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    pairs: Sequence[tuple[str, str]],
    *,
    batch_size: int = BATCH,
) -> list[Continued]:
    """How likely each (prompt, text) is: the text's tokens behind the prompt's.

    Prompt and text are tokenised as one; the text begins after as many tokens as the prompt has
    alone (lm-eval does the same). Let it begin with the space before it. BOS as in `complete`.

    Raises:
        ValueError: a text is empty.
    """
    import torch

    if any(not text for _, text in pairs):
        raise ValueError("a text to be judged is empty: give at least one character")
    ids = [with_bos(tokenizer, prompt + text) for prompt, text in pairs]
    starts = [len(with_bos(tokenizer, prompt)) for prompt, _ in pairs]
    order = sorted(range(len(pairs)), key=lambda n: len(ids[n]))
    found: list[Continued | None] = [None] * len(pairs)
    with torch.inference_mode():
        for begin in range(0, len(order), batch_size):
            rows = order[begin : begin + batch_size]
            width = max(len(ids[row]) for row in rows)
            batch = torch.zeros((len(rows), width), dtype=torch.long)
            for place, row in enumerate(rows):
                batch[place, : len(ids[row])] = torch.tensor(ids[row])
            batch = batch.to(model.device)
            # Padding stands behind everything, and a decoder looks only to the left.
            logits = model(input_ids=batch, use_cache=False).logits[:, :-1].float()
            nats = torch.log_softmax(logits, -1).gather(-1, batch[:, 1:, None])[..., 0]
            for place, row in enumerate(rows):
                own = nats[place, starts[row] - 1 : len(ids[row]) - 1]
                found[row] = Continued(nats=own.sum().item(), tokens=len(own))
    return found


def probe_choices(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    *,
    among: Sequence[Country],
    relations: Sequence[str] = RELATIONS,
    prompt: str | None = None,
    wrong: int = 4,
    seed: int = 0,
) -> pd.DataFrame:
    """MC1 and MC2 on facts: the right answer among `wrong` others of the same relation.

    By default behind the cloze (`The capital of France is`); `prompt` puts the question instead,
    such as `Q: {q}\\nA:`. Columns: country, group, relation, prompt, choices, likelihoods, mc1
    and mc2.
    """
    items = []
    for one in among:
        for relation in relations:
            items.append((one, relation, choices(one, relation, wrong=wrong, seed=seed)))
    prompts = [
        grammar.cloze(one, relation)
        if prompt is None
        else prompt.format(q=grammar.question(one, relation, wording="test"))
        for one, relation, _ in items
    ]
    pairs = [
        (text, f" {choice}")
        for text, (_, _, offered) in zip(prompts, items, strict=True)
        for choice in offered
    ]
    scored = iter(continuations(model, tokenizer, pairs))
    rows = []
    for text, (one, relation, offered) in zip(prompts, items, strict=True):
        nats = [next(scored).nats for _ in offered]
        right = [True] + [False] * (len(offered) - 1)
        rows.append(
            {
                "country": one.name,
                "group": one.group,
                "relation": relation,
                "prompt": text,
                "choices": offered,
                "likelihoods": nats,
                "mc1": mc1(nats, right),
                "mc2": mc2(nats, right),
            }
        )
    return pd.DataFrame(rows)


def choices(country: Country, relation: str, *, wrong: int = 4, seed: int = 0) -> list[str]:
    """The right answer first, then so many wrong ones of the same kind, drawn by the country.

    Raises:
        ValueError: there are not so many wrong ones.
    """
    right = country.answers(relation)
    others = sorted({getattr(one, relation) for one in countries()} - set(right))
    if not 1 <= wrong <= len(others):
        raise ValueError(f"wrong={wrong}: a {relation} has 1 to {len(others)} wrong answers")
    drawn = Random(f"choices-{seed}-{country.name}-{relation}").sample(others, wrong)
    return [right[0], *drawn]
