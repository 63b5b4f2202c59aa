"""How near a text comes to its references, and when such metrics rank against the truth.

Each metric takes one prediction and its references, and gives 0 to 1. With several references exact
match, F1 and ROUGE take the best of them, BLEU and chrF their own way of using all.

                                  reference: The capital of France is Paris.
    prediction                    exact match   F1    ROUGE-L
    Paris                             0         0.33    0.29     right, with a low score
    The capital of France is Rome.    0         0.80    0.83     wrong, with a high one
"""

import re
import string
from collections import Counter
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from sftlab.measure.likelihood import choices
from sftlab.measure.probes import is_right
from sftlab.world import Country, grammar

LOCAL_METRICS = str(Path(__file__).with_name("metrics.py"))  # for `evaluate.load`


def _words(text: str) -> list[str]:
    """As SQuAD compares them (arXiv 1606.05250): lower case, no punctuation, no articles."""
    text = text.lower().translate(str.maketrans("", "", string.punctuation))
    return re.sub(r"\b(?:a|an|the)\b", " ", text).split()


def _listed(references: Sequence[str]) -> Sequence[str]:
    if isinstance(references, str):  # its letters would be taken for the references
        raise ValueError(f"references is one string, {references!r}: give a list")
    return references


def exact_match(prediction: str, references: Sequence[str]) -> float:
    """1 when the normalised prediction is one of the normalised references, else 0."""
    return float(_words(prediction) in [_words(one) for one in _listed(references)])


def token_f1(prediction: str, references: Sequence[str]) -> float:
    """Harmonic mean of precision and recall over normalised words, the best over the references.

    Two texts of which one has no word left are equal (1) or not (0), as SQuAD 2.0 has it.
    """
    said, scores = _words(prediction), []
    for reference in _listed(references):
        wanted = _words(reference)
        shared = sum((Counter(said) & Counter(wanted)).values())
        both = len(said) + len(wanted)
        scores.append(2 * shared / both if said and wanted else float(said == wanted))
    return max(scores)


def bleu(prediction: str, references: Sequence[str]) -> float:
    """Sentence BLEU by sacrebleu: up to 4-grams, fewer for a short text, smoothed (exp)."""
    from sacrebleu import sentence_bleu

    return sentence_bleu(prediction, references).score / 100


def chrf(prediction: str, references: Sequence[str]) -> float:
    """chrF2 by sacrebleu: F score of character n-grams up to 6, recall counted twice."""
    from sacrebleu import sentence_chrf

    return sentence_chrf(prediction, references).score / 100


def rouge(prediction: str, references: Sequence[str], *, kind: str = "rougeL") -> float:
    """ROUGE F1 by rouge-score, without stemming, the best over the references.

    `kind`: rouge1, rouge2 (shared words, pairs of words), rougeL (the longest common subsequence).
    """
    from rouge_score.rouge_scorer import RougeScorer

    found = RougeScorer([kind]).score_multi(_listed(references), prediction)
    return float(found[kind].fmeasure)


def repetition(text: str, size: int = 4) -> float:
    """Share of a text's n-grams that occur earlier in it (seq-rep-n, Welleck et al. 2019)."""
    words = text.split()
    grams = [tuple(words[n : n + size]) for n in range(len(words) - size + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


SCORES = {"exact match": exact_match, "F1": token_f1, "BLEU": bleu, "chrF": chrf, "ROUGE-L": rouge}
"""Name -> score of one prediction against its references."""


def score_frame(frame: pd.DataFrame, *, scores: Sequence[str] = tuple(SCORES)) -> pd.DataFrame:
    """The frame with a column for each score of its outputs against their answers."""
    rows = list(zip(frame["output"].str.strip(), frame["answers"].map(tuple), strict=True))
    return frame.assign(**{name: [SCORES[name](*row) for row in rows] for name in scores})


def rank_answers(frame: pd.DataFrame) -> pd.DataFrame:
    """Whether token F1 ranks a right output above a wrong one of the same kind.

    Each right output of `probe_questions` is compared with the one before it, of the same relation
    and seed, where that is wrong for it. Columns: those of the frame, other, ordered.
    """
    right = frame[frame["right"]]
    found = right.assign(other=right.groupby(["seed", "relation"])["output"].shift(1))
    found = found.dropna(subset=["other"])
    wrong = [not is_right(row.other, row.answers) for row in found.itertuples()]
    found = found[np.array(wrong, bool)]
    ordered = [
        token_f1(row.output, row.answers) > token_f1(row.other, row.answers)
        for row in found.itertuples()
    ]
    return found.assign(ordered=ordered)


def rank_paraphrases(among: Sequence[Country]) -> pd.DataFrame:
    """Whether BLEU and ROUGE-L rank a false fact in the reference's words above true paraphrases.

    Columns: country, relation, false, true, and for each score whether the false one has more.
    """
    rows = []
    for one, relation in product(among, ("capital", "language", "currency")):
        right, wrong = choices(one, relation, wrong=1)
        first, *others = grammar.STATEMENTS[relation]
        reference, false = (grammar.fill(first, one, a=answer) for answer in (right, wrong))
        for form in others:
            true = grammar.fill(form, one, a=right)
            row = {"country": one.name, "relation": relation, "false": false, "true": true}
            for name in ("BLEU", "ROUGE-L"):
                row[name] = SCORES[name](false, [reference]) > SCORES[name](true, [reference])
            rows.append(row)
    return pd.DataFrame(rows)
