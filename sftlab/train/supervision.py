"""From conversations to rows of ids and labels: what is learned is decided here, before training.

    input_ids   <|im_start|> user Hi <|im_end|> <|im_start|> assistant Ho <|im_end|>
    labels              -100 -100 -100     -100         -100      -100 Ho <|im_end|>

Masked first, cut afterwards: so it is known which rows lose their answer, and they are named.
"""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sftlab.chat import IGNORED, MaskError, TemplateError, label_rows
from sftlab.train.conversations import ExampleError
from sftlab.train.settings import Settings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def supervise(
    examples: Sequence[dict[str, Any]],
    tokenizer: "PreTrainedTokenizerBase",
    settings: Settings,
    *,
    max_length: int,
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Rows for the trainer, and what was counted on the way.

    Args:
        examples: checked conversations.
        tokenizer: with the chat template of the training.
        settings: `supervised` and `end_of_turn`.
        max_length: tokens of a row; what is beyond is cut off.

    Returns:
        Rows with `input_ids`, `labels` (unshifted, -100 where nothing is learned) and `row`, the
        index of the example; and the numbers of tokens of one epoch: total, supervised, examples,
        longest, cut (rows that lost a part of what is learned).

    Raises:
        ExampleError: the template does not render an example, or nothing of its answers is left.
    """
    everything = settings.supervised == "everything"
    try:
        found = label_rows(
            tokenizer,
            examples,
            turns="last" if settings.supervised == "last" else "all",
            end_of_turn=settings.end_of_turn,
            append_eos=settings.end_of_turn,
            on_empty="keep",
        )
    except (TemplateError, MaskError) as error:
        raise ExampleError(str(error).replace("row ", "example ", 1)) from error
    rows, lost, cut = [], [], []
    for index, one in enumerate(found):
        if not one.supervised:
            why = "; ".join(one.warnings) or "none of its answers is to be learned"
            raise ExampleError(
                f"example {index} has no supervised token: {why}; correct or drop it"
            )
        labels = list(one.ids) if everything else one.labels
        kept = labels[:max_length]
        if any(label != IGNORED for label in labels[max_length:]):
            cut.append(index)
        if all(label == IGNORED for label in one.labels[:max_length]):
            lost.append(index)
        rows.append({"input_ids": one.ids[:max_length], "labels": kept, "row": index})
    if lost:
        needed = len(found[lost[0]].ids)
        raise ExampleError(
            f"example {lost[0]} has {needed} tokens and max_length is {max_length}, so "
            f"nothing of its answer is left ({len(lost)} of {len(examples)} examples are like it); "
            f"set max_length={needed} or more (the model has a limit too), or shorten or drop it"
        )
    if cut:
        warnings.warn(
            f"{len(cut)} of {len(examples)} examples are longer than max_length={max_length} and "
            f"lose the end of an answer (the first is example {cut[0]}); raise max_length, or "
            "shorten or drop them",
            stacklevel=4,
        )
    return rows, {
        "total": sum(len(row["input_ids"]) for row in rows),
        "supervised": sum(label != IGNORED for row in rows for label in row["labels"]),
        "examples": len(examples),
        "longest": max(len(row["input_ids"]) for row in rows),
        "cut": len(cut),
    }
