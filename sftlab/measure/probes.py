"""Probes: what a model knows, and what it does with a question.

Every probe puts prompts to a model and returns a frame with one row per prompt. Most take `ask`, a
function from a list of prompts to a list of outputs: a run's `answer`, or a base model behind a
prompt. Those about countries have the columns country, group, split, relation, prompt, expected,
answers (the expected one and its aliases), and with one output a row output and right.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pandas as pd

from sftlab.measure.generation import complete
from sftlab.world import RELATIONS, Country, countries, country, grammar, turns

Ask = Callable[[list[str]], list[str]]
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
    """What an output does with a question: continues it with another, answers it, or neither."""
    if re.split(r"(?<=[.?!])\s|\n", output.strip())[0].endswith("?"):
        return CONTINUED
    return ANSWERED if is_right(output, answers) else OTHER


def country_prompts(
    prompt: Callable[[Country, str], Any],
    *,
    among: Sequence[Country] | None = None,
    relations: Sequence[str] = RELATIONS,
) -> pd.DataFrame:
    """What probes about countries ask, by default about all countries that the corpus states."""
    if among is None:
        among = [one for one in countries() if one.group != "unseen"]
    rows = []
    for one in among:
        for relation in relations:
            answers = one.answers(relation)
            asked = (one.name, one.group, one.split, relation, prompt(one, relation))
            rows.append((*asked, answers[0], answers))
    names = ["country", "group", "split", "relation", "prompt", "expected", "answers"]
    return pd.DataFrame(rows, columns=names)


def _scored(frame: pd.DataFrame, ask: Ask, *, part: Callable[[str], str] = str) -> pd.DataFrame:
    """The frame with the outputs, and whether that part of each is right."""
    frame = frame.assign(output=ask(list(frame["prompt"])))
    return frame.assign(right=list(map(is_right, map(part, frame["output"]), frame["answers"])))


def probe_facts(model, tokenizer, *, among: Sequence[Country] | None = None) -> pd.DataFrame:
    """Cloze knowledge: `The capital of France is` -> ` Paris`?"""
    how = {"max_new_tokens": 10, "stop": ["\n"]}
    frame = country_prompts(grammar.cloze, among=among)
    return _scored(frame, lambda prompts: complete(model, tokenizer, prompts, **how))


def probe_questions(
    ask: Ask,
    *,
    among: Sequence[Country] | None = None,
    relations: Sequence[str] = RELATIONS,
    style: Callable[[Country, str, str], str] | None = None,
) -> pd.DataFrame:
    """Put one question per country and relation to `ask`.

    Adds `reaction`. With a `style`, such as `house_style`, an output is right only when it equals,
    letter by letter, what `style(country, relation, answer)` makes of an accepted answer.
    """
    turn = turns()  # the test wordings take turns, country by country
    frame = country_prompts(
        lambda one, relation: grammar.question(one, relation, wording="test", form=turn[one.name]),
        among=among,
        relations=relations,
    )
    frame = _scored(frame, ask)
    if style is not None:
        frame["right"] = [
            row.output.strip()
            in {style(country(row.country), row.relation, answer) for answer in row.answers}
            for row in frame.itertuples()
        ]
    return frame.assign(reaction=list(map(reaction, frame["output"], frame["answers"])))


def probe_two_hops(ask: Ask, *, among: Sequence[Country]) -> pd.DataFrame:
    """Questions that need two facts: the country of a capital, then something about it.

    Each of `TWO_HOP_WORDINGS` for each country and relation but the capital; adds `wording` (0 is
    the corpus's). Only the last sentence of an output counts, so steps before the answer are
    welcome.
    """

    def worded(one: Country, relation: str) -> list[str]:
        return [form.format(relation=relation, x=one.capital) for form in grammar.TWO_HOP_WORDINGS]

    frame = country_prompts(worded, among=among, relations=RELATIONS[1:])
    frame = frame.explode("prompt", ignore_index=True).astype({"prompt": "str"})
    frame["wording"] = frame.groupby(["country", "relation"]).cumcount()
    return _scored(frame, ask, part=lambda output: re.split(r"(?<=\.)\s", output.strip())[-1])


def probe_variety(
    draw: Callable[[list[str], int], list[str]],
    *,
    among: Sequence[Country],
    relations: Sequence[str] = RELATIONS,
    draws: int = 4,
) -> pd.DataFrame:
    """Responses drawn several times for the same questions: how long, how alike, on format or not.

    `draw(questions, number)` gives one response a question. Adds outputs, words (mean number),
    distinct (share of the draws that differ; 1 when all do), on_format (share that is one short
    answer of one to four words and nothing more).
    """

    def short(text: str) -> bool:
        return "\n" not in text and 1 <= len(text.split()) <= 4 and not text.endswith("?")

    question = partial(grammar.question, wording="test")
    frame = country_prompts(question, among=among, relations=relations)
    drawn = [draw(list(frame["prompt"]), number) for number in range(draws)]
    outputs = [[text.strip() for text in texts] for texts in zip(*drawn, strict=True)]
    return frame.assign(
        outputs=outputs,
        words=[sum(len(text.split()) for text in texts) / draws for texts in outputs],
        distinct=[(len(set(texts)) - 1) / (draws - 1) for texts in outputs],
        on_format=[sum(map(short, texts)) / draws for texts in outputs],
    )
