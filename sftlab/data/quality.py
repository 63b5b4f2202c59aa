"""The checklist of a data set in one table, a model's loss as a score of each row, and flaws put
into good rows on purpose, to measure what each costs and whether it is found."""

import math
import re
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from random import Random

import pandas as pd

from sftlab.data.overlap import exact_duplicates, leaks, near_duplicates
from sftlab.data.privacy import redact
from sftlab.data.rows import Key, Row, checked, normalise, part_of, values_of, words
from sftlab.world import countries, country, with_answer

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


def lengths(rows: Iterable[Row]) -> pd.DataFrame:
    """How long prompts, answers and conversations are, in characters and words: least, median,
    mean, p95 (95% are not longer) and most."""
    rows, counts = checked(rows), {}
    for part in ("prompt", "answer", "conversation"):
        texts = [part_of(row, part) for row in rows]
        counts[part, "characters"] = [len(text) for text in texts]
        counts[part, "words"] = [len(words(text)) for text in texts]
    n = pd.DataFrame(counts)
    p95 = n.quantile(0.95, interpolation="higher")
    table = {"least": n.min(), "median": n.median(), "mean": n.mean(), "p95": p95, "most": n.max()}
    return pd.DataFrame(table).rename_axis(["part", "unit"])


Line = tuple[str, str, float | None, str]


def _line(key: str, value: float | None, reading: str, **words: str) -> Line:
    return _LINES[key]["aspect"], _LINES[key]["measured"].format(**words), value, reading


def _count(key: str, count: int, rows: list[Row], **words: str) -> Line:
    some = f"{count} of {len(rows)} rows ({count / len(rows):.1%}): {_LINES[key]['some']}"
    return _line(key, count, some.format(**words) if count else _LINES[key]["none"])


def checklist(
    rows: Iterable[Row],
    *,
    cover: Mapping[str, Key] | None = None,
    label: Key | None = None,
    test: Iterable[Row] | None = None,
    group: Key | None = None,
) -> pd.DataFrame:
    """One line for each thing measured: aspect, measured, value, and a plain reading.

    `cover` names what the rows should cover ({"country": "country", "wording": function}), `label`
    the class of a row; `test` rows are looked for in these, by the `group` of a row too.
    """
    rows = checked(rows)
    lines = [*_form(rows), *_spread(rows, cover or {}, label), *_truth(rows)]
    lines.append(_count("exact", len(exact_duplicates(rows)), rows))
    lines.append(_count("near", len(near_duplicates(rows)), rows))
    kinds = redact(rows)[1]
    reading = ", ".join(f"{count} {kind}" for kind, count in kinds.items() if count)
    reading = f"{reading or 'none found'}; names were not looked for"
    lines.append(_line("privacy", sum(kinds.values()), reading))
    if test is not None:
        test = checked(test, name="test")
        found = leaks(rows, test, group=group)
        by_kind = found.groupby("kind")["test"].nunique().items()
        some = ", ".join(f"{number} by {kind}" for kind, number in by_kind)
        lines.append(_count("leakage", found["test"].nunique(), test, kinds=some))
    return pd.DataFrame(lines, columns=["aspect", "measured", "value", "reading"])


def _form(rows: list[Row]) -> Iterator[Line]:
    one = lengths(rows).loc["answer", "words"]
    reading = f"answers have {one['least']:.0f} to {one['most']:.0f} words, 95% at most "
    reading += f"{one['p95']:.0f}: the model will answer at such lengths"
    yield _line("words", one["median"], reading)
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
        counts = Counter(values_of(rows, key))
        reading = f"each comes {min(counts.values())} to {max(counts.values())} times"
        yield _line("coverage", len(counts), reading, name=name)
    if label is not None:
        counts = Counter(values_of(rows, label)).most_common()
        (most, times), (least, fewest) = counts[0], counts[-1]
        reading = f"{most!r} has {times} rows, {least!r} {fewest}: outputs lean to what is frequent"
        yield _line("balance", times / fewest, reading)
    for part in ("prompt", "answer"):
        # Distinct-2 (Li et al., arXiv 1510.03055): different pairs of words over all pairs.
        pairs = Counter(pair for row in rows for pair in pairwise(words(part_of(row, part))))
        if pairs:
            value = len(pairs) / pairs.total()
            reading = f"{value:.0%} of the pairs of words are different ones; compare with a set "
            yield _line("diversity", value, f"{reading}of as many rows only", part=part)


def _truth(rows: list[Row]) -> Iterator[Line]:
    # By the whole context: another system message may ask for another answer.
    answers = defaultdict(set)
    for row in rows:
        answers[normalise(part_of(row, "context"))].add(normalise(part_of(row, "answer")))
    several = [prompt for prompt, given in answers.items() if len(given) > 1]
    reading = f"such as {several[0][:60]!r}" if several else "no prompt has two answers"
    yield _line("consistency", len(several), reading)
    refused = sum(bool(REFUSALS.search(part_of(row, "answer")[:120])) for row in rows)
    yield _count("refusals", refused, rows)


def loss_scores(rows: Iterable[Row], model, tokenizer) -> list[float]:
    """The model's own loss on each answer: mean nats per answer token, given the prompt.

        BOS  Q: What is the capital of France?\\nA:   Paris
             |--- NEUTRAL, prompt filled in -----|  |----- answer: its tokens count

    What the model's positions do not hold is cut off at the beginning. NaN for an empty answer.
    """
    import torch

    limit = getattr(model.config, "max_position_embeddings", None) or 2048
    scores, training = [], model.training
    model.eval()
    for row in checked(rows):
        front = NEUTRAL.replace("{prompt}", part_of(row, "prompt"))
        if not (answer := part_of(row, "answer").strip()):
            scores.append(math.nan)
            continue
        how = {"add_special_tokens": False, "return_offsets_mapping": True}
        encoded = tokenizer(f"{front} {answer}", **how)
        ids = encoded["input_ids"]
        learned = sum(end > len(front) for _, end in encoded["offset_mapping"])
        if tokenizer.bos_token_id is not None:
            ids = [tokenizer.bos_token_id, *ids]
        tokens = torch.tensor([ids[-limit:]], device=model.device)
        learned = min(learned, tokens.shape[1] - 1)
        with torch.inference_mode():
            logits = model(input_ids=tokens, use_cache=False).logits[0, -learned - 1 : -1]
        losses = torch.nn.functional.cross_entropy(logits.float(), tokens[0, -learned:])
        scores.append(losses.item())
    model.train(training)
    return scores


WRAPPINGS = (
    "hi!! {q} thx",
    "<p>{q}</p>",
    "Posted by user4711 on 12/03: {q}",
    "{q} Reply Share Report",
    "hello i have a question ... {q}",
    "Question 7) {q} (2 points)",
)
"""What a scraper leaves around a question."""


def wrong_answers(rows: Sequence[Row], *, share: float, seed: int = 0) -> list[Row]:
    """A share of the rows answers as for another country: the right kind of word, and wrong."""
    rng = Random(f"wrong-{seed}")
    chosen = set(rng.sample(range(len(rows)), round(share * len(rows))))
    made = []
    for index, row in enumerate(rows):
        if index in chosen:
            place, relation = row["meta"]["country"], row["meta"]["relation"]
            others = {getattr(one, relation) for one in countries(split="sft")}
            wrong = others - set(country(place).answers(relation))
            row = with_answer(row, rng.choice(sorted(wrong)))
        made.append({**row})
    return made


def cluttered(rows: Sequence[Row], *, seed: int = 0) -> list[Row]:
    """Every prompt with something of `WRAPPINGS` around it, and half of them in small letters."""
    rng, made = Random(f"clutter-{seed}"), []
    for row in rows:
        asked, *rest = row["messages"]
        text = rng.choice(WRAPPINGS).format(q=asked["content"])
        text = text.lower() if rng.random() < 0.5 else text
        made.append({**row, "messages": [{**asked, "content": text}, *rest]})
    return made
