"""Measures of a data set: lengths, values, diversity, contradictions, formats; loss as a score.

`checklist` puts them together with duplicates, leaks and personal data.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import pandas as pd

from sftlab.data.rows import Key, Row, RowsError, checked, normalise, part_of, values_of, words

MARKERS = re.compile(
    r"<\|[^|<>\s]{1,40}\|>|</?s>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>"
    r"|^#{2,3} ?(?:Instruction|Input|Response)\b|^(?:Q|A|User|Human|Assistant|USER|ASSISTANT):",
    flags=re.MULTILINE,
)
"""Marks of a chat format inside a content: the format is written twice once a template adds it."""
REFUSALS = re.compile(
    r"\bas an? (?:ai|artificial intelligence|language model|large language model)\b"
    r"|\bi(?:['’]m| am) (?:sorry|afraid|unable|not able)\b"
    r"|\bi (?:can(?:no|['’])t|could not|won['’]t|will not|do not know|don['’]t know)\b",
    flags=re.IGNORECASE,
)
"""English openings of a refusal."""
NEUTRAL = "Q: {prompt}\nA:"
"""A form that a base model knows from plain text, of no chat template.

The form matters: on 400 country questions with 120 wrong answers, the base `tiny` ranks every wrong
answer above every right one in this form, and no better than chance (area under the curve 0.55)
when the answer is on the line after the bare question.
"""


def lengths(rows: Iterable[Row], *, tokenizer: Any = None) -> pd.DataFrame:
    """How long prompts, answers and conversations are.

    Lines: part and unit (characters, words, and tokens with a tokenizer; tokens of the text
    alone, without BOS and without what a chat template adds). Columns: least, median, mean, p95
    (95% are not longer) and most.
    """
    rows, counts = checked(rows), {}
    for part in ("prompt", "answer", "conversation"):
        texts = [part_of(row, part) for row in rows]
        counts[part, "characters"] = [len(text) for text in texts]
        counts[part, "words"] = [len(words(text)) for text in texts]
        if tokenizer is not None:
            ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
            counts[part, "tokens"] = [len(one) for one in ids]
    n = pd.DataFrame(counts)
    p95 = n.quantile(0.95, interpolation="higher")
    table = {"least": n.min(), "median": n.median(), "mean": n.mean(), "p95": p95, "most": n.max()}
    return pd.DataFrame(table).rename_axis(["part", "unit"])


def count_values(rows: Iterable[Row], key: Key) -> dict[Hashable, int]:
    """Rows by entity, wording, class: whatever `key` names or computes, the most frequent first."""
    return dict(Counter(values_of(checked(rows), key)).most_common())


def distinct(rows: Iterable[Row], *, size: int = 2, part: str = "prompt") -> float:
    """Distinct-n: different runs of `size` words over all runs (Li et al., arXiv 1510.03055).

    1 when no run comes twice. It falls as a data set grows, so compare sets of one size only. NaN
    when no text has that many words.
    """
    seen: Counter[tuple[str, ...]] = Counter()
    for row in checked(rows):
        own = words(part_of(row, part))
        seen.update(tuple(own[n : n + size]) for n in range(len(own) - size + 1))
    return len(seen) / seen.total() if seen else math.nan


def contradictions(rows: Iterable[Row]) -> dict[str, dict[str, list[int]]]:
    """Prompts with different answers, and the rows of each answer.

    Case, white space and Unicode form do not count. The prompt includes the system message here:
    another system message may ask for another answer.
    """
    rows = checked(rows)
    groups: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for index, row in enumerate(rows):
        answer = normalise(part_of(row, "answer"))
        groups[normalise(part_of(row, "context"))][answer].append(index)
    return {
        part_of(rows[min(map(min, answers.values()))], "context"): {
            part_of(rows[own[0]], "answer"): own for own in answers.values()
        }
        for answers in groups.values()
        if len(answers) > 1
    }


def formats(rows: Iterable[Row]) -> pd.DataFrame:
    """The forms in which rows come: roles in their order, how the answer ends, marks inside.

    Columns: roles ("user assistant"), ends ("with a mark" such as a full stop, "bare", or
    "empty"), markers (the first mark of a chat format found in a content, "" for none), rows,
    share; the most frequent first. One line is one format.
    """
    rows = checked(rows)
    counts: Counter[tuple[str, str, str]] = Counter()
    for row in rows:
        answer, contents = part_of(row, "answer").strip(), [m["content"] for m in row["messages"]]
        ends = "empty" if not answer else "with a mark" if answer[-1] in ".!?…。！？" else "bare"
        marks = (match[0] for content in contents if (match := MARKERS.search(content)))
        counts[" ".join(m["role"] for m in row["messages"]), ends, next(marks, "")] += 1
    return pd.DataFrame(
        [(*form, n, n / len(rows)) for form, n in counts.most_common()],
        columns=["roles", "ends", "markers", "rows", "share"],
    )


def loss_scores(
    rows: Iterable[Row], model, tokenizer, *, form: str = NEUTRAL, batch_size: int = 32,
    max_length: int | None = None,
) -> list[float]:  # fmt: skip
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

    Returns one number a row; NaN for an empty answer. Needs a fast tokenizer, which says where in
    the text its tokens are.
    """
    import torch

    rows = checked(rows)
    if "{prompt}" not in form:
        raise RowsError(f"form={form!r}: say where the prompt goes, with {{prompt}}")
    limit = max_length or getattr(model.config, "max_position_embeddings", None) or 2048
    items = {}
    for n, row in enumerate(rows):
        if answer := part_of(row, "answer").strip():
            front = form.replace("{prompt}", part_of(row, "prompt"))
            items[n] = _ids_and_start(tokenizer, front, answer, limit)
    order = sorted(items, key=lambda n: len(items[n][0]))
    scores, training = [math.nan] * len(rows), model.training
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
    text = front + ("" if front[-1:].isspace() else " ") + answer
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
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
