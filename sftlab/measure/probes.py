"""Probes: what a model knows (cloze), what it does with a question, how well it fits text.

Every probe returns a pandas frame with one row per item, so that any share of it, by relation or
by group of countries, can be taken afterwards.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from sftlab.measure.completion import complete, with_bos
from sftlab.world import RELATIONS, Country, countries, grammar

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CONTINUED, ANSWERED, OTHER = "continued", "answered", "other"


def is_right(output: str, answers: Sequence[str]) -> bool:
    """Whether the first line of an output holds one of the answers as whole words.

    Case, accents and punctuation do not count: `The capital is Brasília.` holds `Brasilia`.
    """
    line = f" {_plain(output.strip().split(chr(10))[0])} "
    return any(f" {_plain(answer)} " in line for answer in answers)


def _plain(text: str) -> str:
    letters = unicodedata.normalize("NFKD", text.lower()).encode("ascii", "ignore").decode()
    return " ".join(re.findall(r"[a-z0-9]+", letters))


def reaction(output: str, answers: Sequence[str]) -> str:
    """What an output does with the question before it: `continued` it with another question,
    `answered` it rightly, or `other` (a wrong answer is `other`)."""
    sentence = re.split(r"(?<=[.?!])\s|\n", output.strip())[0]
    if sentence.endswith("?"):
        return CONTINUED
    return ANSWERED if is_right(output, answers) else OTHER


def probe_facts(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    *,
    among: Sequence[Country] | None = None,
    form: int = 0,
) -> pd.DataFrame:
    """Cloze knowledge: `The capital of France is` -> ` Paris`?

    One row per country and relation, over all countries the corpus states unless `among` names
    others. Columns: country, group, split, relation, prompt, expected, answers (the expected one
    and its aliases), output, right.
    """
    frame = _items(among, lambda c, r: grammar.cloze(c, r, form=form))
    outputs = complete(model, tokenizer, list(frame["prompt"]), max_new_tokens=10, stop=["\n"])
    return _scored(frame, outputs)


def probe_questions(
    ask: Callable[[list[str]], list[str]],
    *,
    among: Sequence[Country] | None = None,
    wording: str = "test",
    relations: Sequence[str] = RELATIONS,
    style: Callable[[Country, str, str], str] | None = None,
) -> pd.DataFrame:
    """Put one question per country and relation to `ask` and judge what comes back.

    `ask` maps a list of questions to a list of outputs: a run's `answer`, or a base model behind
    a prompt. The test wordings take turns. Rows as in `probe_facts`, and `reaction`. With a
    `style`, such as `house_style`, an output is right only when it is, letter by letter, what
    `style(country, relation, answer)` makes of an accepted answer.
    """
    forms = {country.name: n for n, country in enumerate(countries())}
    frame = _items(
        among,
        lambda c, r: grammar.question(c, r, wording=wording, form=forms.get(c.name, 0)),
        relations,
    )
    frame = _scored(frame, ask(list(frame["prompt"])))
    if style is not None:
        named = {country.name: country for country in countries()}
        frame["right"] = [
            row.output.strip()
            in {style(named[row.country], row.relation, answer) for answer in row.answers}
            for row in frame.itertuples()
        ]
    frame["reaction"] = [
        reaction(output, answers)
        for output, answers in zip(frame["output"], frame["answers"], strict=True)
    ]
    return frame


def _items(
    among: Sequence[Country] | None,
    prompt: Callable[[Country, str], str],
    relations: Sequence[str] = RELATIONS,
) -> pd.DataFrame:
    if among is None:
        among = [country for country in countries() if country.group != "unseen"]
    if not among:
        raise ValueError("there is no country to ask about: `among` is empty")
    return pd.DataFrame(
        {
            "country": country.name,
            "group": country.group,
            "split": country.split,
            "relation": relation,
            "prompt": prompt(country, relation),
            "expected": country.answers(relation)[0],
            "answers": country.answers(relation),
        }
        for country in among
        for relation in relations
    )


def _scored(frame: pd.DataFrame, outputs: list[str]) -> pd.DataFrame:
    frame["output"] = outputs
    frame["right"] = [is_right(o, a) for o, a in zip(outputs, frame["answers"], strict=True)]
    return frame


def text_loss(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    documents: Sequence[str],
    *,
    batch_size: int = 32,
    max_length: int = 256,
) -> float:
    """Mean loss per predicted token over the documents, in nats; each begins with BOS.

    Documents longer than `max_length` tokens are read up to there.
    """
    import torch

    total, count = 0.0, 0
    ids = sorted((with_bos(tokenizer, d)[:max_length] for d in documents), key=len)
    with torch.inference_mode():
        for start in range(0, len(ids), batch_size):
            batch = tokenizer.pad(
                {"input_ids": ids[start : start + batch_size]},
                padding_side="right",
                return_tensors="pt",
            ).to(model.device)
            labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
            logits = model(**batch, use_cache=False).logits[:, :-1].float()
            total += torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100, reduction="sum"
            ).item()
            count += int((labels[:, 1:] != -100).sum())
    return total / count
