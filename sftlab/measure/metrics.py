"""Text metrics as one local module of `evaluate`, with a configuration for each metric.

    rouge = evaluate.load(LOCAL_METRICS, "rouge")
    rouge.compute(predictions=["The capital is Paris."], references=[["Paris"]])
    {"rouge1": 0.4, "rougeL": 0.4}

`LOCAL_METRICS` is the path of this file, of which `evaluate` imports a copy;
`evaluate.load("rouge")` would fetch a script from the Hub. Every score is 0 to 1 and takes the best
of several references (BLEU has its own way of using all):

                                  reference: The capital of France is Paris.
    prediction                    exact match   F1    ROUGE-L
    Paris                             0         0.33    0.29     right, with a low score
    The capital of France is Rome.    0         0.80    0.83     wrong, with a high one
"""

import re
import string
from collections import Counter
from collections.abc import Sequence

import datasets
import evaluate

LOCAL_METRICS = __file__


def _words(text: str) -> list[str]:
    """As SQuAD compares them (arXiv 1606.05250): lower case, no punctuation, no articles."""
    text = text.lower().translate(str.maketrans("", "", string.punctuation))
    return re.sub(r"\b(?:a|an|the)\b", " ", text).split()


def exact_match(prediction: str, references: Sequence[str]) -> dict[str, float]:
    """1 when the normalized prediction is one of the normalized references, else 0."""
    return {"exact_match": float(_words(prediction) in map(_words, references))}


def contains(prediction: str, references: Sequence[str]) -> dict[str, float]:
    """1 when the words of a reference stand in the prediction, in a row, else 0."""
    said = f" {' '.join(_words(prediction))} "
    return {"contains": float(any(f" {' '.join(_words(one))} " in said for one in references))}


def token_f1(prediction: str, references: Sequence[str]) -> dict[str, float]:
    """Harmonic mean of precision and recall over normalized words.

    Two texts of which one has no word left are equal (1) or not (0), as SQuAD 2.0 has it.
    """
    said, scores = _words(prediction), []
    for wanted in map(_words, references):
        shared = sum((Counter(said) & Counter(wanted)).values())
        both = len(said) + len(wanted)
        scores.append(2 * shared / both if said and wanted else float(said == wanted))
    return {"f1": max(scores)}


def bleu(prediction: str, references: Sequence[str]) -> dict[str, float]:
    """Sentence BLEU by sacrebleu: up to 4-grams, fewer for a short text, smoothed (exp)."""
    from sacrebleu import sentence_bleu

    return {"bleu": sentence_bleu(prediction, references).score / 100}


def rouge(prediction: str, references: Sequence[str]) -> dict[str, float]:
    """F1 by rouge-score, without stemming: shared words, and the longest common subsequence."""
    from rouge_score.rouge_scorer import RougeScorer

    found = RougeScorer(["rouge1", "rougeL"]).score_multi(references, prediction)
    return {kind: float(score.fmeasure) for kind, score in found.items()}


METRICS = {
    "exact_match": exact_match,
    "contains": contains,
    "f1": token_f1,
    "bleu": bleu,
    "rouge": rouge,
}


class _LocalMetric(evaluate.Metric):
    """One of METRICS, by `config_name`."""

    def _info(self) -> evaluate.MetricInfo:
        if self.config_name not in METRICS:
            raise ValueError(f"no metric {self.config_name!r}; there are {', '.join(METRICS)}")
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description="The mean over the items, or with use_aggregator=False each item's score.",
            citation="",
            inputs_description="predictions: list of str; references: list of lists of str, or str",
            features=[
                datasets.Features(predictions=text, references=datasets.Sequence(text)),
                datasets.Features(predictions=text, references=text),
            ],
        )

    def _compute(self, *, predictions, references, use_aggregator: bool = True):
        score = METRICS[self.config_name]
        rows = [
            score(one, [right] if isinstance(right, str) else list(right))
            for one, right in zip(predictions, references, strict=True)
        ]
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        if not use_aggregator:
            return columns
        return {name: sum(found) / len(found) for name, found in columns.items()}
