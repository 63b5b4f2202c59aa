"""A base model's own loss as a score against a row, and the filter that keeps the best.

Lower is better, for this score as for `rules.rule_scores`.
"""

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from sftlab.data.parts import Row, RowsError, checked, part_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

NEUTRAL = "Q: {prompt}\nA:"
"""A form that a base model knows from plain text, of no chat template.

The form matters: on 400 country questions with 120 wrong answers, the base `tiny` ranks every wrong
answer above every right one in this form, and no better than chance (area under the curve 0.55)
when the answer stands on the line after the bare question.
"""


def loss_scores(
    rows: Iterable[Row],
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    *,
    form: str = NEUTRAL,
    batch_size: int = 32,
    max_length: int | None = None,
) -> list[float]:
    """The model's own loss on each answer: mean nats per answer token, given the prompt.

    A base model that knows the facts is surprised by a wrong answer, and by broken text; it is
    also surprised by what it never saw, so a high loss is a reason to look, not a proof.

        BOS  Q: What is the capital of France?\\nA:   Paris
             |------ form, prompt filled in -----|  |----- answer: its tokens count

    Args:
        form: how the prompt is put, with `{prompt}`; the answer follows after a space, unless the
            form ends in white space.
        max_length: tokens read; of a longer row the prompt loses its beginning, and an answer
            longer than that its end. By default what the model's positions allow.

    A 4-bit model that `sftlab.models.load` gave may be trained after this; one that was loaded in
    another way may not, on some processors (see `sftlab.quantised`).

    Returns one number a row; NaN for an empty answer. The model's mode and the random state stay
    as they are. Needs a tokenizer of the "fast" kind, which tells where its tokens stand.
    """
    import torch

    rows = checked(rows)
    if "{prompt}" not in form:
        raise RowsError(f"form={form!r}: say where the prompt goes, with {{prompt}}")
    if not tokenizer.is_fast:
        raise RowsError(f"{type(tokenizer).__name__} can't tell offsets: load a fast tokenizer")
    limit = max_length or getattr(model.config, "max_position_embeddings", None) or 2048
    items = []
    for row in rows:
        answer = part_of(row, "answer").strip()
        front = form.replace("{prompt}", part_of(row, "prompt"))
        items.append(_ids_and_start(tokenizer, front, answer, limit) if answer else None)
    order = sorted((n for n, item in enumerate(items) if item), key=lambda n: len(items[n][0]))
    scores = [math.nan] * len(rows)
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            for first in range(0, len(order), batch_size):
                batch = order[first : first + batch_size]
                for n, loss in zip(batch, _losses(model, [items[n] for n in batch]), strict=True):
                    scores[n] = loss
    finally:
        model.train(training)
    return scores


def _ids_and_start(tokenizer, front: str, answer: str, limit: int) -> tuple[list[int], int]:
    """Ids of BOS, front and answer, and the index of the answer's first token."""
    joint = "" if front[-1:].isspace() else " "
    encoded = tokenizer(
        front + joint + answer, add_special_tokens=False, return_offsets_mapping=True
    )
    ids, ends = encoded["input_ids"], [end for _, end in encoded["offset_mapping"]]
    start = next(n for n, end in enumerate(ends) if end > len(front))
    if tokenizer.bos_token_id is not None:
        ids, start = [tokenizer.bos_token_id, *ids], start + 1
    answer_ids = ids[start:][: max(limit - 1, 1)]
    front_ids = ids[:start][-(limit - len(answer_ids)) :]
    return front_ids + answer_ids, len(front_ids)


def _losses(model, items: Sequence[tuple[list[int], int]]) -> list[float]:
    """Mean loss of each item's answer; logits are only kept where an answer token is predicted."""
    import torch

    longest = max(len(ids) for ids, _ in items)
    batch = torch.tensor([ids + [0] * (longest - len(ids)) for ids, _ in items])
    seen = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids, _ in items])
    place = torch.arange(longest)
    starts = torch.tensor([start for _, start in items])[:, None]
    counted = (seen.bool() & (place >= starts) & (place > 0))[:, 1:]
    logits = model(
        input_ids=batch.to(model.device), attention_mask=seen.to(model.device), use_cache=False
    ).logits[:, :-1]
    losses = torch.nn.functional.cross_entropy(
        logits[counted.to(logits.device)].float(),
        batch[:, 1:][counted].to(logits.device),
        reduction="none",
    )
    return [part.mean().item() for part in losses.cpu().split(counted.sum(1).tolist())]


def keep_best(
    rows: Iterable[Row], scores: Sequence[float], *, share: float
) -> tuple[list[Row], list[int]]:
    """(the share of rows with the lowest scores, indexes of the rows dropped), in order.

    Of equal scores the earlier row is kept; NaN is the worst. At least one row is kept.

    Raises RowsError for a share that is not above 0 and at most 1, or scores of another length.
    """
    rows = checked(rows)
    if len(scores) != len(rows):
        raise RowsError(f"{len(scores)} scores for {len(rows)} rows: give one score a row")
    if not 0 < share <= 1:
        raise RowsError(f"share={share}: the share to keep is above 0 and at most 1")
    best_first = sorted(range(len(rows)), key=lambda n: (math.isnan(scores[n]), scores[n], n))
    kept = set(best_first[: max(1, math.floor(share * len(rows) + 0.5))])
    dropped = [index for index in range(len(rows)) if index not in kept]
    return [rows[index] for index in sorted(kept)], dropped
