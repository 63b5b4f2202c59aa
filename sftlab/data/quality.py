"""The checklist of a data set in one table, and a model's loss as a score of each row."""

import math
import re
import string
import tomllib
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd

from sftlab.data.overlap import exact_duplicates, leaks, near_duplicates
from sftlab.data.privacy import KINDS, find_pii, listed
from sftlab.data.rows import Key, Row, RowsError, checked, normalise, part_of, values_of, words

MARKERS = re.compile(
    r"<\|[^|<>\s]{1,40}\|>|</?s>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>"
    r"|^#{2,3} ?(?:Instruction|Input|Response)\b|^(?:Q|A|User|Human|Assistant|USER|ASSISTANT):",
    flags=re.MULTILINE,
)
"""Marks of a chat format inside a content, which a template would write a second time."""
REFUSALS = re.compile(
    r"\bas an? (?:ai|artificial intelligence|language model|large language model)\b"
    r"|\bi(?:['’]m| am) (?:sorry|afraid|unable|not able)\b"
    r"|\bi (?:can(?:no|['’])t|could not|won['’]t|will not|do not know|don['’]t know)\b",
    flags=re.IGNORECASE,
)
"""English openings of a refusal."""
_LINES = tomllib.loads(Path(__file__).with_name("checklist.toml").read_text(encoding="utf-8"))
NEUTRAL = "Q: {prompt}\nA:"
"""A form that a base model knows from plain text, of no chat template.

On 400 country questions, 120 of them answered wrongly, the base `tiny` ranks every wrong answer
above every right one in this form, and no better than chance (area under the curve 0.55) when the
answer is on the line after the bare question.
"""


def lengths(rows: Iterable[Row], *, tokenizer: Any = None) -> pd.DataFrame:
    """How long prompts, answers and conversations are.

    Lines: part and unit (characters, words, and with a tokenizer the tokens of the text alone).
    Columns: least, median, mean, p95 (95% are not longer) and most.
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


Line = tuple[str, str, float | None, str]


def _line(key: str, value: float | None, reading: str, **words: str) -> Line:
    measured = string.Template(_LINES[key]["measured"]).substitute(words)
    return _LINES[key]["aspect"], measured, value, reading


def _count(key: str, count: int, rows: list[Row], **words: str) -> Line:
    some = string.Template(_LINES[key]["some"]).substitute(words)
    some = f"{count} of {len(rows)} rows ({count / len(rows):.1%}): {some}"
    return _line(key, count, some if count else _LINES[key]["none"])


def _missing(key: str) -> Line:
    line = {"unmeasured": _LINES[key]["measured"]} | _LINES[key]
    return line["aspect"], line["unmeasured"], None, f"not measured: give {line['give']}"


def checklist(
    rows: Iterable[Row],
    *,
    cover: Mapping[str, Key] | None = None,
    label: Key | None = None,
    checker: Callable[[Row], bool | None] | None = None,
    unsafe: Callable[[Row], bool] | None = None,
    names: Iterable[str] = (),
    test: Iterable[Row] | None = None,
    group: Key | None = None,
    tokenizer: Any = None,
) -> pd.DataFrame:
    """One line for each thing measured: aspect, measured, value, and a plain reading.

    What needs something that was not given has no value, and says what to give.

    Args:
        cover: what the rows should cover, by name: {"country": "country", "wording": function}.
        label: the class of a row, whose balance counts.
        checker: whether a row's answer is right, by known truth; None where it can't say.
        unsafe: whether a row must not be learned.
        names: names of people to look for.
        test, group: the rows of the test split, and the entity of a row, to look for leaks.
    """
    rows, names = checked(rows), listed(names)
    lines = [
        *_form(rows, tokenizer),
        *_spread(rows, cover or {}, label),
        *_truth(rows, checker, unsafe),
        _count("exact", len(exact_duplicates(rows)), rows),
        _count("near", len(near_duplicates(rows)), rows),
    ]
    kinds = Counter(finding.kind for finding in find_pii(rows, names=names))
    reading = ", ".join(f"{kinds[kind]} {kind}" for kind in KINDS if kinds[kind]) or "none found"
    looked = "" if names else "; names were not looked for: give `names`"
    lines.append(_line("privacy", kinds.total(), f"{reading}{looked} (privacy.LIMITS)"))
    if test is None:
        lines.append(_missing("leakage"))
    else:
        test = checked(test, name="test")
        found = leaks(rows, test, group=group)
        by_kind = found.groupby("kind")["test"].nunique().items()
        some = ", ".join(f"{number} by {kind}" for kind, number in by_kind)
        lines.append(_count("leakage", found["test"].nunique(), test, kinds=some))
    return pd.DataFrame(lines, columns=["aspect", "measured", "value", "reading"])


def _form(rows: list[Row], tokenizer: Any) -> Iterator[Line]:
    table = lengths(rows, tokenizer=tokenizer)
    for unit in ("words", "tokens") if tokenizer is not None else ("words",):
        one = table.loc["answer", unit]
        reading = f"answers have {one['least']:.0f} to {one['most']:.0f} {unit}, 95% at most "
        yield _line(
            unit, one["median"], f"{reading}{one['p95']:.0f}: the model will answer at such lengths"
        )
    if tokenizer is None:
        yield _missing("longest")
    else:
        most = table.loc[("conversation", "tokens"), "most"]
        yield _line("longest", most, "with its template it must fit the model's context")
    forms = Counter(map(_form_of, rows))
    reading = "every row has the same form"
    if len(forms) > 1:
        share = max(forms.values()) / len(rows)
        reading = f"the commonest form has {share:.1%} of the rows: the model learns the mix"
    yield _line("formats", len(forms), reading)
    yield _count("marks", sum(n for form, n in forms.items() if form[-1]), rows)


def _form_of(row: Row) -> tuple[str, ...]:
    """The roles, how the answer ends, and the first mark of a chat format in a content."""
    answer = part_of(row, "answer").strip()
    ends = "empty" if not answer else "with a mark" if answer[-1] in ".!?…。！？" else "bare"
    marks = (match[0] for m in row["messages"] if (match := MARKERS.search(m["content"])))
    return (*(m["role"] for m in row["messages"]), ends, next(marks, ""))


def _spread(rows: list[Row], cover: Mapping[str, Key], label: Key | None) -> Iterator[Line]:
    for name, key in cover.items():
        counts = count_values(rows, key)
        most, least = max(counts.values()), min(counts.values())
        times = f"{least} to {most}" if most > least else str(most)
        yield _line("coverage", len(counts), f"each comes {times} times", name=name)
    if not cover:
        yield _missing("coverage")
    if label is None:
        yield _missing("balance")
    else:
        counts = count_values(rows, label)
        (most, *_), (*_, least) = counts, counts
        ratio = counts[most] / counts[least]
        reading = f"{len(counts)} classes, evenly"
        if ratio > 1:
            reading = f"{most!r} has {counts[most]} rows, {least!r} {counts[least]}: outputs lean "
            reading += "to what is frequent"
        yield _line("balance", ratio, reading)
    for part in ("prompt", "answer"):
        # Distinct-2 (Li et al., arXiv 1510.03055): different pairs of words over all pairs.
        pairs = Counter(pair for row in rows for pair in pairwise(words(part_of(row, part))))
        value, reading = len(pairs) / pairs.total() if pairs else None, "no text has two words"
        if value:
            reading = f"{value:.0%} of the pairs of words are different ones; compare with a set "
            reading += "of as many rows only"
        yield _line("diversity", value, reading, part=part)


def _truth(rows: list[Row], checker: Any, unsafe: Any) -> Iterator[Line]:
    if checker is None:
        yield _missing("correctness")
    else:
        verdicts = [checker(row) for row in rows]
        judged = [bool(verdict) for verdict in verdicts if verdict is not None]
        reading = f"{sum(judged)} of {len(judged)} answers agree with the truth"
        if unknown := len(verdicts) - len(judged):
            reading += f"; {unknown} can't be judged"
        yield _line("correctness", sum(judged) / len(judged) if judged else None, reading)
    # By the whole context: another system message may ask for another answer.
    prompts, answers = {}, defaultdict(set)
    for row in rows:
        prompt = normalise(part_of(row, "context"))
        prompts.setdefault(prompt, part_of(row, "context"))
        answers[prompt].add(normalise(part_of(row, "answer")))
    several = [(prompts[prompt], given) for prompt, given in answers.items() if len(given) > 1]
    reading = "no prompt has two answers"
    if several:
        reading = f"such as {several[0][0][:60]!r}, with {len(several[0][1])} answers"
    yield _line("consistency", len(several), reading)
    if unsafe is None:
        yield _missing("unsafe")
    else:
        yield _count("unsafe", sum(bool(unsafe(row)) for row in rows), rows)
    refused = sum(bool(REFUSALS.search(part_of(row, "answer")[:120])) for row in rows)
    yield _count("refusals", refused, rows)


def loss_scores(
    rows: Iterable[Row], model, tokenizer, *, form: str = NEUTRAL, max_length: int | None = None
) -> list[float]:
    """The model's own loss on each answer: mean nats per answer token, given the prompt.

    A base model that knows the facts is surprised by a wrong answer, and by broken text; it is
    also surprised by what it never saw, so a high loss is a reason to look, not a proof.

        BOS  Q: What is the capital of France?\\nA:   Paris
             |------ form, prompt filled in -----|  |----- answer: its tokens count

    Args:
        form: how the prompt is put, with `{prompt}`; the answer follows after a space, unless the
            form ends in white space.
        max_length: tokens read (by default the model's positions); a longer prompt loses its
            beginning.

    Returns one number a row; NaN for an empty answer. Needs a fast tokenizer.
    """
    import torch

    if "{prompt}" not in form:
        raise RowsError(f"form={form!r}: say where the prompt goes, with {{prompt}}")
    limit = max_length or getattr(model.config, "max_position_embeddings", None) or 2048
    scores, training = [], model.training
    model.eval()
    for row in checked(rows):
        front = form.replace("{prompt}", part_of(row, "prompt"))
        if not (answer := part_of(row, "answer").strip()):
            scores.append(math.nan)
            continue
        text = front + ("" if front[-1:].isspace() else " ") + answer
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids, ends = encoded["input_ids"], [end for _, end in encoded["offset_mapping"]]
        start = next(n for n, end in enumerate(ends) if end > len(front))
        if tokenizer.bos_token_id is not None:
            ids, start = [tokenizer.bos_token_id, *ids], start + 1
        learned = ids[start:][: limit - 1]
        before = ids[:start][-(limit - len(learned)) :]
        tokens = torch.tensor([before + learned], device=model.device)
        with torch.inference_mode():
            logits = model(input_ids=tokens, use_cache=False).logits[0, len(before) - 1 : -1]
        losses = torch.nn.functional.cross_entropy(logits.float(), tokens[0, len(before) :])
        scores.append(losses.item())
    model.train(training)
    return scores


def keep_best(
    rows: Iterable[Row], scores: Sequence[float], *, share: float
) -> tuple[list[Row], list[int]]:
    """(the share of rows with the lowest scores, indexes of the rows dropped), in order.

    Of equal scores the earlier row is kept; NaN is the worst. At least one row is kept.
    """
    rows = checked(rows)
    if len(scores) != len(rows) or not 0 < share <= 1:
        what = f"share={share}, {len(scores)} scores for {len(rows)} rows"
        raise RowsError(f"{what}: keep a share above 0 and at most 1, and give one score a row")
    best_first = sorted(range(len(rows)), key=lambda n: (math.isnan(scores[n]), scores[n], n))
    kept = set(best_first[: max(1, math.floor(share * len(rows) + 0.5))])
    dropped = [index for index in range(len(rows)) if index not in kept]
    return [rows[index] for index in sorted(kept)], dropped
