"""Probes of lesson 01 beyond right and wrong: how responses look, two facts in a row, both sides.

Each returns a pandas frame with one row per item, as the probes of `probes.py` do.
"""

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from sftlab.measure.completion import with_bos
from sftlab.measure.probes import is_right, probe_questions
from sftlab.world import RELATIONS, Country, grammar

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def probe_two_hops(
    ask: Callable[[list[str]], list[str]], *, among: Sequence[Country]
) -> pd.DataFrame:
    """Questions that need two facts: the country of a capital, then something about it.

    Each country is asked in each of `TWO_HOP_WORDINGS` for each relation but the capital. Only the
    last sentence of an output counts, so that steps before the answer are welcome.
    Columns: country, group, relation, wording (0 is the corpus's), prompt, output, right.
    """
    frame = pd.DataFrame(
        {
            "country": country.name,
            "group": country.group,
            "relation": relation,
            "wording": wording,
            "prompt": form.format(relation=relation, x=country.capital),
            "answers": country.answers(relation),
        }
        for country in among
        for relation in RELATIONS[1:]
        for wording, form in enumerate(grammar.TWO_HOP_WORDINGS)
    )
    frame["output"] = ask(list(frame["prompt"]))
    frame["right"] = [
        is_right(re.split(r"(?<=\.)\s", output.strip())[-1], answers)
        for output, answers in zip(frame["output"], frame["answers"], strict=True)
    ]
    return frame


def probe_variety(
    draw: Callable[[list[str], int], list[str]],
    *,
    among: Sequence[Country],
    relations: Sequence[str] = RELATIONS,
    draws: int = 4,
) -> pd.DataFrame:
    """Responses drawn several times for the same questions: how long, how alike, on format or not.

    `draw(questions, number)` gives one response a question. Columns: country, relation, prompt,
    words (mean number), distinct (share of the draws that differ; 1 when all do), on_format (share
    that is one short answer of one to four words and nothing more), outputs.
    """
    frame = pd.DataFrame(
        {
            "country": country.name,
            "relation": relation,
            "prompt": grammar.question(country, relation, wording="test"),
        }
        for country in among
        for relation in relations
    )
    drawn = [draw(list(frame["prompt"]), number) for number in range(draws)]
    frame["outputs"] = [[text.strip() for text in texts] for texts in zip(*drawn, strict=True)]
    frame["words"] = [sum(len(t.split()) for t in texts) / draws for texts in frame["outputs"]]
    frame["distinct"] = [(len(set(t)) - 1) / (draws - 1) for t in frame["outputs"]]
    frame["on_format"] = [sum(map(_short, texts)) / draws for texts in frame["outputs"]]
    return frame


def _short(text: str) -> bool:
    return "\n" not in text and 1 <= len(text.split()) <= 4 and not text.endswith("?")


def probe_right_context(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", *, among: Sequence[Country]
) -> pd.DataFrame:
    """How much the loss on a capital falls when the text after it is shown too.

    A masked language model reads both sides of a word; a causal one predicts it from the left
    alone, so nothing that follows can help it. Rows: country, alone (loss of the capital's tokens,
    nats, the text ends with them), followed (the same with a sentence after it that names the
    capital again), gain (alone - followed).
    """
    rows = []
    for country in among:
        start = with_bos(tokenizer, grammar.cloze(country, "capital"))
        text = f"{grammar.cloze(country, 'capital')} {country.capital}"
        end = len(with_bos(tokenizer, text))
        after = f"{text}. {country.capital} is the capital of {country.name}."
        alone, followed = (
            _loss(model, with_bos(tokenizer, t), len(start), end) for t in (text, after)
        )
        rows.append({"country": country.name, "alone": alone, "followed": followed,
                     "gain": alone - followed})  # fmt: skip
    return pd.DataFrame(rows)


def _loss(model, ids: list[int], start: int, end: int) -> float:
    """Mean loss of the tokens start to end - 1, each predicted at the place before it, nats."""
    import torch

    with torch.inference_mode():
        logits = model(torch.tensor([ids], device=model.device), use_cache=False).logits[0].float()
        return torch.nn.functional.cross_entropy(
            logits[start - 1 : end - 1], torch.tensor(ids[start:end], device=model.device)
        ).item()


AS_MEASURED = "as measured"
REWORDINGS: dict[str, Callable[[str], str]] = {
    AS_MEASURED: str,
    "no question mark": lambda question: question.rstrip("?"),
    "lower case": str.lower,
    "with a greeting": lambda question: f"Hello! {question}",
    "with a please": lambda question: f"Please tell me: {question}",
}
"""Ways in which a user may write the same question."""


def probe_rewordings(
    ask: Callable[[list[str]], list[str]],
    *,
    among: Sequence[Country],
    relations: Sequence[str] = RELATIONS,
) -> pd.DataFrame:
    """The questions of `probe_questions` in each of `REWORDINGS`: its columns, and `wording`."""
    return pd.concat(
        [
            probe_questions(
                lambda questions, change=change: ask([change(q) for q in questions]),
                among=among,
                relations=relations,
            ).assign(wording=name)
            for name, change in REWORDINGS.items()
        ],
        ignore_index=True,
    )


def rewording_losses(frame: pd.DataFrame) -> pd.DataFrame:
    """What each rewording costs each question: 1 when it loses a right answer, -1 when it wins one.

    `frame` holds what `probe_rewordings` gives, for one seed or more; the column is `lost`.
    """
    keys = [name for name in ("seed", "country", "relation") if name in frame]
    plain = frame.loc[frame["wording"] == AS_MEASURED, [*keys, "right"]]
    changed = frame[frame["wording"] != AS_MEASURED]
    both = changed.merge(plain, on=keys, suffixes=("", "_as_measured"), validate="many_to_one")
    return both.assign(lost=both["right_as_measured"].astype(int) - both["right"].astype(int))
