"""The metrics of the lab as local modules of `evaluate`: nothing is asked of a hub.

`evaluate.load("rouge")` fetches a script from the hub, and fails offline. These are classes here:

    metric("rouge").compute(predictions=["The capital is Paris."], references=[["Paris"]])
    {"rouge1": 0.4, "rouge2": 0.0, "rougeL": 0.4}

Shares are 0 to 1. `sftlab.measure.text_scores.score_frame` gives the scores item by item,
ready for an interval.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from tempfile import gettempdir
from typing import Any

import datasets
import evaluate

from sftlab.measure import fluency, text_scores
from sftlab.measure.schema import probe_schema
from sftlab.measure.text_scores import UnknownMetricError

__all__ = ["METRICS", "UnknownMetricError", "metric"]


_TEXT = datasets.Value("string")
_SEVERAL = {"predictions": _TEXT, "references": datasets.Sequence(_TEXT)}
_ALONE = {"predictions": _TEXT}


class _Local(evaluate.Metric):
    """A module whose code is here. It keeps what it is given in memory, so it leaves no file."""

    TOLD, CITED, FEATURES = "", "", _SEVERAL

    def __init__(self, **options: Any) -> None:
        super().__init__(
            keep_in_memory=True, seed=0, cache_dir=f"{gettempdir()}/sftlab-metrics", **options
        )

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=self.TOLD, citation=self.CITED, inputs_description=self.TOLD,
            features=datasets.Features(self.FEATURES),
        )  # fmt: skip


class ExactMatch(_Local):
    TOLD = "Share of predictions that are a reference, after SQuAD's normalisation."
    CITED = "arXiv 1606.05250"

    def _compute(self, predictions, references):
        return {"exact_match": _mean(text_scores.exact_match, predictions, references)}


class TokenF1(_Local):
    TOLD = "Mean F1 over words, after SQuAD's normalisation."
    CITED = "arXiv 1606.05250"

    def _compute(self, predictions, references):
        return {"f1": _mean(text_scores.token_f1, predictions, references)}


class Bleu(_Local):
    TOLD = "Corpus BLEU by sacrebleu, 0 to 1, with sacrebleu's own tokenizer (13a)."
    CITED = "Papineni et al. 2002; arXiv 1804.08771"

    def _compute(self, predictions, references):
        from sacrebleu import corpus_bleu

        return {"bleu": corpus_bleu(predictions, _columns(references)).score / 100}


class Chrf(_Local):
    TOLD = "Corpus chrF2 by sacrebleu, 0 to 1."
    CITED = "Popović 2015"

    def _compute(self, predictions, references):
        from sacrebleu import corpus_chrf

        return {"chrf": corpus_chrf(predictions, _columns(references)).score / 100}


class Rouge(_Local):
    TOLD = "Mean ROUGE F1 by rouge-score."
    CITED = "Lin 2004"

    def _compute(self, predictions, references):
        return {
            kind: _mean(partial(text_scores.rouge, kind=kind), predictions, references)
            for kind in ("rouge1", "rouge2", "rougeL")
        }


class JsonSchema(_Local):
    TOLD = "Shares of predictions that parse as JSON, that hold the fields, that fit a schema."
    CITED = "JSON Schema, draft 2020-12"
    FEATURES = _ALONE

    def _compute(self, predictions, *, schema: Mapping[str, Any] | None = None):
        found = probe_schema(predictions, schema=schema or {})
        return {name: float(found[name].mean()) for name in ("parsed", "fields", "valid")}


class Distinct(_Local):
    TOLD = "distinct-1 and -2 over all predictions, and the mean share of repeated 4-grams in one."
    CITED = "arXiv 1510.03055; arXiv 1908.04319"
    FEATURES = _ALONE

    def _compute(self, predictions):
        repeated = [fluency.repetition(text) for text in predictions]
        return {
            "distinct_1": fluency.distinct(predictions, 1),
            "distinct_2": fluency.distinct(predictions, 2),
            "repetition": sum(repeated) / len(repeated),
        }


METRICS: dict[str, type[_Local]] = {
    "exact_match": ExactMatch, "f1": TokenF1, "bleu": Bleu, "chrf": Chrf, "rouge": Rouge,
    "json": JsonSchema, "distinct": Distinct,
}  # fmt: skip
"""Name -> module. What needs a model or runs code has functions of its own:
`sftlab.measure.likelihood`, `sftlab.measure.code_running`."""


def metric(name: str) -> evaluate.Metric:
    """A fresh module by name; UnknownMetricError lists those that there are."""
    if name not in METRICS:
        raise UnknownMetricError(f"no metric {name!r}; there are {', '.join(METRICS)}")
    return METRICS[name]()


def _mean(score: Callable[..., float], predictions, references) -> float:
    found = [score(one, list(right)) for one, right in zip(predictions, references, strict=True)]
    return sum(found) / len(found)


def _columns(references: Sequence[Sequence[str]]) -> list[list[str | None]]:
    """References item by item, turned into sacrebleu's streams: shorter lists end in None."""
    most = max(map(len, references))
    if not min(map(len, references)):
        raise ValueError("an item has no reference; give each one or more")
    return [[one[n] if n < len(one) else None for one in references] for n in range(most)]
