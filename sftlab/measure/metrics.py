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
from sftlab.measure.structured import probe_schema


def _mean(score, predictions, references) -> float:
    pairs = zip(predictions, references, strict=True)
    return sum(score(one, list(right)) for one, right in pairs) / len(predictions)


def _streams(references) -> list[list[str | None]]:
    """References item by item, turned into sacrebleu's streams: shorter lists end in None."""
    if not min(map(len, references)):
        raise ValueError("an item has no reference; give each one or more")
    longest = max(map(len, references))
    return [[one[n] if n < len(one) else None for one in references] for n in range(longest)]


def _exact_match(predictions, references):
    """Share of predictions that equal a reference, normalised as in SQuAD (arXiv 1606.05250)."""
    return {"exact_match": _mean(text_scores.exact_match, predictions, references)}


def _f1(predictions, references):
    """Mean F1 over words, normalised as in SQuAD (arXiv 1606.05250)."""
    return {"f1": _mean(text_scores.token_f1, predictions, references)}


def _bleu(predictions, references):
    """Corpus BLEU (Papineni et al. 2002) by sacrebleu (arXiv 1804.08771), tokenizer 13a."""
    return {"bleu": sacrebleu.corpus_bleu(predictions, _streams(references)).score / 100}


def _chrf(predictions, references):
    """Corpus chrF2 (Popović 2015) by sacrebleu."""
    return {"chrf": sacrebleu.corpus_chrf(predictions, _streams(references)).score / 100}


def _rouge(predictions, references):
    """Mean ROUGE F1 (Lin 2004) by rouge-score, the best over the references of an item."""
    return {
        kind: _mean(partial(text_scores.rouge, kind=kind), predictions, references)
        for kind in ("rouge1", "rouge2", "rougeL")
    }


def _json(predictions, schema=None):
    """Shares of predictions that parse as JSON, have the required fields, and fit `schema`."""
    found = probe_schema(predictions, schema=schema or {})
    return {name: float(found[name].mean()) for name in ("parsed", "fields", "valid")}


def _distinct(predictions):
    """distinct-1 and -2 over all predictions (arXiv 1510.03055), and the mean share of repeated
    4-grams in one (arXiv 1908.04319)."""
    repeated = [text_scores.repetition(text) for text in predictions]
    return {
        "distinct_1": text_scores.distinct(predictions, 1),
        "distinct_2": text_scores.distinct(predictions, 2),
        "repetition": sum(repeated) / len(repeated),
    }


WITH_REFERENCES = {
    "exact_match": _exact_match,
    "f1": _f1,
    "bleu": _bleu,
    "chrf": _chrf,
    "rouge": _rouge,
}
METRICS = WITH_REFERENCES | {"json": _json, "distinct": _distinct}


class _LocalMetric(evaluate.Metric):
    """One of METRICS, by `config_name`."""

    def _info(self) -> evaluate.MetricInfo:
        if self.config_name not in METRICS:
            raise ValueError(f"no metric {self.config_name!r}; there are {', '.join(METRICS)}")
        features = {"predictions": datasets.Value("string")}
        if self.config_name in WITH_REFERENCES:
            features["references"] = datasets.Sequence(datasets.Value("string"))
        return evaluate.MetricInfo(
            description=METRICS[self.config_name].__doc__,
            citation="",
            inputs_description="predictions: list of str; references: list of lists of str",
            features=datasets.Features(features),
        )

    def _compute(self, *, predictions, **given):
        return METRICS[self.config_name](predictions, **given)
