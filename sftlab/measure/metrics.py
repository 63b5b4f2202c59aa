"""The metrics of the lab as one local module of `evaluate`, with a configuration for each metric.

    rouge = evaluate.load(LOCAL_METRICS, "rouge")
    rouge.compute(predictions=["The capital is Paris."], references=[["Paris"]])
    {"rouge1": 0.4, "rouge2": 0.0, "rougeL": 0.4}

`LOCAL_METRICS` of `sftlab.measure` is the path of this file. `evaluate.load("rouge")` would fetch a
script from the Hub, and fail offline. `evaluate` imports a copy of this file, so it imports the
rest of the lab by absolute names. Values are shares, 0 to 1; `score_frame` scores item by item,
ready for an interval.
"""

from functools import partial

import datasets
import evaluate
import sacrebleu

from sftlab.measure import text_scores


def _mean(score, predictions, references) -> float:
    pairs = zip(predictions, references, strict=True)
    return sum(score(one, list(right)) for one, right in pairs) / len(predictions)


def _corpus(score, predictions, references) -> float:
    """Of sacrebleu, which has references in streams: those of shorter lists end in None."""
    if not min(map(len, references)):
        raise ValueError("an item has no reference; give each one or more")
    longest = max(map(len, references))
    streams = [[one[n] if n < len(one) else None for one in references] for n in range(longest)]
    return score(predictions, streams).score / 100


ROUGES = {kind: partial(text_scores.rouge, kind=kind) for kind in ("rouge1", "rouge2", "rougeL")}
METRICS = {
    "exact_match": (
        "Share of predictions that equal a reference, normalised as in SQuAD (arXiv 1606.05250).",
        {"exact_match": partial(_mean, text_scores.exact_match)},
    ),
    "f1": (
        "Mean F1 over words, normalised as in SQuAD (arXiv 1606.05250).",
        {"f1": partial(_mean, text_scores.token_f1)},
    ),
    "bleu": (
        "Corpus BLEU (Papineni et al. 2002) by sacrebleu (arXiv 1804.08771), tokenizer 13a.",
        {"bleu": partial(_corpus, sacrebleu.corpus_bleu)},
    ),
    "chrf": (
        "Corpus chrF2 (Popović 2015) by sacrebleu.",
        {"chrf": partial(_corpus, sacrebleu.corpus_chrf)},
    ),
    "rouge": (
        "Mean ROUGE F1 (Lin 2004) by rouge-score, the best over the references of an item.",
        {kind: partial(_mean, score) for kind, score in ROUGES.items()},
    ),
}


class _LocalMetric(evaluate.Metric):
    """One of METRICS, by `config_name`."""

    def _info(self) -> evaluate.MetricInfo:
        if self.config_name not in METRICS:
            raise ValueError(f"no metric {self.config_name!r}; there are {', '.join(METRICS)}")
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=METRICS[self.config_name][0],
            citation="",
            inputs_description="predictions: list of str; references: list of lists of str",
            features=datasets.Features(predictions=text, references=datasets.Sequence(text)),
        )

    def _compute(self, *, predictions, references):
        _, scores = METRICS[self.config_name]
        return {name: score(predictions, references) for name, score in scores.items()}
