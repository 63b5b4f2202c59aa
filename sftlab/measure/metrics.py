"""The metrics of the lab as one local module of `evaluate`, with a configuration for each metric.

    rouge = evaluate.load(LOCAL_METRICS, "rouge")
    rouge.compute(predictions=["The capital is Paris."], references=[["Paris"]])
    {"rouge1": 0.4, "rouge2": 0.0, "rougeL": 0.4}

`LOCAL_METRICS` is the path of this file, of which `evaluate` imports a copy;
`evaluate.load("rouge")` would fetch a script from the Hub.
"""

from functools import partial
from itertools import zip_longest

import datasets
import evaluate
import sacrebleu

from sftlab.measure import text_scores


def _mean(score, predictions, references) -> float:
    pairs = zip(predictions, references, strict=True)
    return sum(score(one, list(right)) for one, right in pairs) / len(predictions)


def _corpus(score, predictions, references) -> float:
    """Of sacrebleu, which has references in streams: those of shorter lists end in None."""
    return score(predictions, list(zip_longest(*references))).score / 100


METRICS = {
    "exact_match": {"exact_match": partial(_mean, text_scores.exact_match)},
    "f1": {"f1": partial(_mean, text_scores.token_f1)},
    "bleu": {"bleu": partial(_corpus, sacrebleu.corpus_bleu)},
    "chrf": {"chrf": partial(_corpus, sacrebleu.corpus_chrf)},
    "rouge": {
        kind: partial(_mean, partial(text_scores.rouge, kind=kind))
        for kind in ("rouge1", "rouge2", "rougeL")
    },
}


class _LocalMetric(evaluate.Metric):
    """One of METRICS, by `config_name`."""

    def _info(self) -> evaluate.MetricInfo:
        if self.config_name not in METRICS:
            raise ValueError(f"no metric {self.config_name!r}; there are {', '.join(METRICS)}")
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description="Mean over the items; of BLEU and chrF the score of the whole corpus.",
            citation="",
            inputs_description="predictions: list of str; references: list of lists of str",
            features=datasets.Features(predictions=text, references=datasets.Sequence(text)),
        )

    def _compute(self, *, predictions, references):
        scores = METRICS[self.config_name].items()
        return {name: score(predictions, references) for name, score in scores}
