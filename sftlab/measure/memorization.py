"""What a model kept of secrets in its training data, and how well scores tell two groups apart.

    The locker code of Belka is 4829     what the model writes: extraction finds codes of rank 1
    rank 1 of 10,000    13.3 bits        exposure = log2(10,000) - log2(rank), Carlini et al., 2019
    rank 7              10.5 bits        never written, and yet 9,993 of 10,000 codes are ruled out
    rank 5,000           1.0 bit         chance: 1.44 bits on average

Exposure is usually estimated from a sample of codes. Codes of four digits are few enough to rank
all of them.
"""

import math
from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd

from sftlab.measure.likelihood import row_logits, target_losses

Node = tuple[int, ...]


class SecretError(ValueError):
    """A secret that can't be ranked."""


def code_log_likelihoods(
    model, prefix: Sequence[int], digits: Sequence[int], *, length: int = 4
) -> np.ndarray:
    """Log-likelihood in nats of every code of `length` digits after a prefix, (10**length,).

    `prefix` and `digits` are ids; entry 4829 is that of the code 4829. All of them come from one
    forward pass of 10 + 100 + 1,000 tokens, which share the prefix.
    """
    totals, nodes = np.zeros(1), [()]
    for size in range(1, length):
        nodes += product(range(10), repeat=size)
    found = _next_digits(model, prefix, digits, nodes)
    for size in range(length):
        level = np.stack([found[node] for node in nodes if len(node) == size])
        totals = (totals[:, None] + level).ravel()
    return totals


def _next_digits(
    model, prefix: Sequence[int], digits: Sequence[int], nodes: Sequence[Node]
) -> dict[Node, np.ndarray]:
    """Log-likelihoods of the ten digits after each node, the beginning of a code, (10,) each.

    The nodes, with all their own beginnings, make a tree behind the prefix, read at once. A token
    sees the prefix, the tokens on its way to the root, and itself:

        prefix  4  8  9  48  49        48 sees the prefix, 4 and itself
    """
    import torch

    inner, start = [node for node in nodes if node], len(prefix)
    place = {node: start + n for n, node in enumerate(inner)}
    size = start + len(inner)
    seen = torch.zeros(size, size, dtype=torch.bool)
    seen[:, :start] = True
    seen[:start, :start] = torch.ones(start, start, dtype=torch.bool).tril()
    for node, row in place.items():
        seen[row, [place[node[:n]] for n in range(1, len(node) + 1)]] = True
    # Added to the scores of attention; eager attention can't use booleans.
    mask = torch.zeros(size, size, dtype=model.dtype)
    mask = mask.masked_fill(~seen, torch.finfo(model.dtype).min)[None, None]
    ids = [*prefix, *(digits[node[-1]] for node in inner)]
    positions = [*range(start), *(start + len(node) - 1 for node in inner)]
    with torch.inference_mode():
        logits = model(
            input_ids=torch.tensor([ids], device=model.device),
            attention_mask=mask.to(model.device),
            position_ids=torch.tensor([positions], device=model.device),
            use_cache=False,
        ).logits[0, start - 1 :]
    each = logits.float().log_softmax(-1)[:, list(digits)].cpu().numpy().astype(float)
    return dict(zip([(), *inner], each, strict=True))


def probe_secrets(run, secrets: pd.DataFrame, *, rank: bool = True) -> pd.DataFrame:
    """How likely a run finds each code after its question and the words before it.

    `secrets` has the columns question, stem (how the answer begins: `The locker code of Belka is`)
    and code (digits alone). Adds log_likelihood (of the code's digits, in nats) and, unless `rank`
    is False, rank among all codes of this length and exposure in bits.

    The rank is exact. The digits before the last are only tried where they are likelier than the
    whole code: no other beginning leads to a code that is. So it takes a few forward passes of some
    ten tokens for a code that was learned, and of a thousand for one that was not.
    """
    rows, starts, digits = [], [], []
    for question, stem, code in secrets[["question", "stem", "code"]].itertuples(index=False):
        ids, ten = _tokens(run, question, stem, code)
        rows.append(ids)
        starts.append(len(ids) - len(code))
        digits.append(ten)
    nats = {}
    for n, logits in row_logits(run.model, rows, starts=starts):
        nats[n] = -target_losses(logits, rows[n][starts[n] :]).sum().item()
    made = secrets.assign(log_likelihood=[nats[n] for n in range(len(rows))])
    if not rank:
        return made
    found = [
        _rank(run.model, ids[:start], ten, code)
        for ids, start, ten, code in zip(rows, starts, digits, secrets["code"], strict=True)
    ]
    bits = [
        len(code) * math.log2(10) - math.log2(n)
        for code, n in zip(made["code"], found, strict=True)
    ]
    return made.assign(rank=found, exposure=bits)


def _tokens(run, question: str, stem: str, code: str) -> tuple[list[int], list[int]]:
    """Ids of the conversation up to the end of the code, and those of the ten digits."""
    encode = run.tokenizer
    before = run.prompt_ids([{"role": "user", "content": question}])
    every, own = (
        encode(f"{stem} {text}", add_special_tokens=False)["input_ids"]
        for text in ("0123456789", code)
    )
    ten = every[-10:]
    if not code.isdecimal() or own != [*every[:-10], *(ten[int(digit)] for digit in code)]:
        raise SecretError(
            f"the code {code!r} after {stem!r} is not one token a digit for this tokenizer, so its "
            "rank among all codes can't be counted: use a model that splits numbers into digits"
        )
    return before + own, ten


def _rank(model, prefix: Sequence[int], digits: Sequence[int], code: str) -> int:
    """1 + the number of codes that are likelier."""
    own = tuple(map(int, code))
    steps = _next_digits(model, prefix, digits, [own[:n] for n in range(len(own))])
    target = sum(steps[own[:n]][digit] for n, digit in enumerate(own))
    likelier: dict[Node, float] = {(): 0.0}
    for _ in own:
        beginnings = {node[:n] for node in likelier for n in range(len(node) + 1)}
        steps = _next_digits(model, prefix, digits, sorted(beginnings))
        likelier = {
            (*node, digit): nats + steps[node][digit]
            for node, nats in likelier.items()
            for digit in range(10)
            if nats + steps[node][digit] > target
        }
        if not likelier:
            break
    return 1 + len(likelier.keys() - {own})


def outscored(scores: Sequence[float], others: Sequence[float]) -> np.ndarray:
    """For each score the share of the others below it, ties by half; their mean is the area under
    the ROC curve (AUC): 0.5 tells nothing, 1 tells the two groups apart without an error."""
    scores, others = np.asarray(scores)[:, None], np.asarray(others)[None]
    return ((scores > others) + 0.5 * (scores == others)).mean(1)


def threshold(others: Sequence[float], false_alarms: float) -> float:
    """The lowest of the scores that at most this share of the others exceed: a detector that flags
    what is above it has at most this false-positive rate on them. Of fewer than 1 / `false_alarms`
    it is the highest, so none of them is flagged."""
    return float(np.quantile(others, 1 - false_alarms, method="inverted_cdf"))
