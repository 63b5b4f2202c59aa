"""What a limit of tokens takes from examples: nothing, the end of an answer, or all of it.

limit                             |
shorter      question answer end  |              nothing is lost
shortened    a long question Par  |  is end      the end is lost: it teaches to break off
emptied      a very long question |  Paris end   nothing is left to learn
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from sftlab.chat import label_rows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def probe_truncation(
    tokenizer: "PreTrainedTokenizerBase",
    rows: Sequence[Mapping[str, Any]],
    *,
    limits: Sequence[int],
) -> pd.DataFrame:
    """Mask conversations in the tokenizer's chat template, and cut them at each limit.

    One row per limit and example. Columns: limit, example (index), tokens (before the cut), longer
    (than the limit), emptied (supervised tokens were lost, and none is left), shortened (some were
    lost, and some are left).
    """
    whole = label_rows(tokenizer, rows, on_empty="keep")
    return pd.DataFrame(
        {
            "limit": limit,
            "example": index,
            "tokens": len(full.ids),
            "longer": len(full.ids) > limit,
            "emptied": cut.removed > 0 and not cut.supervised,
            "shortened": cut.removed > 0 and cut.supervised > 0,
        }
        for limit in limits
        for index, (full, cut) in enumerate(
            zip(whole, label_rows(tokenizer, rows, max_length=limit, on_empty="keep"), strict=True)
        )
    )


def packed_labels(dataset: Sequence[Mapping[str, Any]]) -> Iterator[list[int]]:
    """The labels of each example that TRL packed; `seq_lengths` tells where each of a row ends."""
    for row in dataset:
        start = 0
        for length in row["seq_lengths"]:
            yield row["labels"][start : start + length]
            start += length
