"""How near a text comes to its references: exact match, token F1, BLEU, chrF, ROUGE.

Each takes one prediction and its references, and gives 0 to 1. With several references exact match,
F1 and ROUGE take the best of them, BLEU and chrF their own way of using all.

                                  reference: The capital of France is Paris.
    prediction                    exact match   F1    ROUGE-L
    Paris                             0         0.33    0.29     right, and punished
    The capital of France is Rome.    0         0.80    0.83     wrong, and praised
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache

import pandas as pd

_PUNCTUATION = str.maketrans("", "", string.punctuation)


class UnknownMetricError(ValueError):
    """There is no metric of that name."""


def normalised(text: str) -> str:
    """A text as SQuAD compares it (arXiv 1606.05250): lower case, without punctuation, the words
    a, an and the, and repeated white space."""
    text = text.lower().translate(_PUNCTUATION)
    return " ".join(re.sub(r"\b(?:a|an|the)\b", " ", text).split())


def exact_match(prediction: str, references: Sequence[str]) -> float:
    """1 when the normalised prediction is one of the normalised references, else 0."""
    return float(normalised(prediction) in {normalised(one) for one in _checked(references)})


def token_f1(prediction: str, references: Sequence[str]) -> float:
    """Harmonic mean of precision and recall over normalised words, the best over the references.

    Two texts of which one has no word left are equal (1) or not (0), as SQuAD 2.0 has it.
    """
    return max(_f1(prediction, reference) for reference in _checked(references))


def _f1(prediction: str, reference: str) -> float:
    said, wanted = normalised(prediction).split(), normalised(reference).split()
    if not said or not wanted:
        return float(said == wanted)
    shared = sum((Counter(said) & Counter(wanted)).values())
    return 2 * shared / (len(said) + len(wanted))


def bleu(prediction: str, references: Sequence[str]) -> float:
    """Sentence BLEU by sacrebleu: up to 4-grams, fewer for a short text, smoothed (exp)."""
    return _sacre("BLEU").sentence_score(prediction, list(_checked(references))).score / 100


def chrf(prediction: str, references: Sequence[str]) -> float:
    """chrF2 by sacrebleu: F score of character n-grams up to 6, recall counted twice."""
    return _sacre("CHRF").sentence_score(prediction, list(_checked(references))).score / 100


@cache
def _sacre(name: str):
    from sacrebleu import metrics

    return metrics.BLEU(effective_order=True) if name == "BLEU" else metrics.CHRF()


def rouge(prediction: str, references: Sequence[str], *, kind: str = "rougeL") -> float:
    """ROUGE F1 by rouge-score, without stemming, the best over the references.

    `kind` is rouge1 or rouge2 (shared words, pairs of words) or rougeL (the longest sequence of
    words that both have in this order).
    """
    found = _rouge(kind).score_multi(list(_checked(references)), prediction)
    return float(found[kind].fmeasure)


@cache
def _rouge(kind: str):
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer([kind])


def _checked(references: Sequence[str]) -> Sequence[str]:
    if isinstance(references, str) or not references:
        raise ValueError(
            f"references is {references!r}; give a list of one right answer or more, such as "
            "['Paris']"
        )
    return references


SCORES: dict[str, Callable[[str, Sequence[str]], float]] = {
    "exact match": exact_match,
    "F1": token_f1,
    "BLEU": bleu,
    "chrF": chrf,
    "ROUGE-L": rouge,
}
"""Name -> score of one prediction against its references."""


def score_frame(
    frame: pd.DataFrame,
    *,
    scores: Sequence[str] = tuple(SCORES),
    references: str = "answers",
) -> pd.DataFrame:
    """The frame with a column for each score of its outputs against their references.

    `references` names the column that holds a list of right answers a row.

    Raises:
        UnknownMetricError: there is no such score.
        ValueError: a column is missing.
    """
    for name in scores:
        if name not in SCORES:
            raise UnknownMetricError(f"no score {name!r}; there are {', '.join(SCORES)}")
    for column in ("output", references):
        if column not in frame:
            raise ValueError(f"the frame has no column {column!r}: {', '.join(map(str, frame))}")
    # Runs of one skill often say the same: of 4,620 rows of the lesson on evaluation 1,249 differ.
    rows = [
        (output.strip(), tuple(right))
        for output, right in zip(frame["output"], frame[references], strict=True)
    ]
    found = {}
    for name in scores:
        known = {row: SCORES[name](row[0], list(row[1])) for row in dict.fromkeys(rows)}
        found[name] = [known[row] for row in rows]
    return frame.assign(**found)
