"""Probes of turns: does an answer end, and what does a model write where the user should speak?

Each returns a pandas frame with one row per item, as the probes of `probes.py` do.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from sftlab.measure.generation import generate
from sftlab.measure.probes import probe_questions
from sftlab.world import RELATIONS, Country

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PLACE = "QUESTION"


def probe_endings(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    *,
    among: Sequence[Country],
    relations: Sequence[str] = RELATIONS,
    max_new_tokens: int = 24,
) -> pd.DataFrame:
    """Put questions in the tokenizer's chat template; judge the answers and how they end.

    Rows as in `probe_questions`, and `ran_on`: whether no end of turn came within
    `max_new_tokens`. Greedy.
    """
    unended: list[bool] = []

    def ask(questions: list[str]) -> list[str]:
        asked = [[{"role": "user", "content": question}] for question in questions]
        texts = [
            tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            for messages in asked
        ]
        prompts = tokenizer(texts, add_special_tokens=False)["input_ids"]
        answers = generate(
            model, prompts, pad=tokenizer.pad_token_id, max_new_tokens=max_new_tokens
        )
        unended.extend(len(answer) >= max_new_tokens for answer in answers)
        return [tokenizer.decode(answer, skip_special_tokens=True) for answer in answers]

    return probe_questions(ask, among=among, relations=relations).assign(ran_on=unended)


def probe_user_turns(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    *,
    draws: int = 40,
    seed: int = 0,
    max_new_tokens: int = 24,
) -> pd.DataFrame:
    """Open a user's turn, leave it empty, and draw what the model writes there, at temperature 1.

    Columns: draw, output (with its special tokens), asked (whether it holds a question mark).
    """
    opening = user_opening(tokenizer)
    ids = tokenizer(opening, add_special_tokens=False)["input_ids"]
    drawn = generate(
        model, [ids] * draws, pad=tokenizer.pad_token_id, max_new_tokens=max_new_tokens,
        sample=True, seed=seed,
    )  # fmt: skip
    frame = pd.DataFrame({"draw": range(draws), "output": tokenizer.batch_decode(drawn)})
    return frame.assign(asked=frame["output"].str.contains("?", regex=False))


def user_opening(tokenizer: "PreTrainedTokenizerBase") -> str:
    """What the tokenizer's chat template writes before the first word of a user.

    It ends without a space: tokenizers put the space into the first token of what follows.
    """
    messages = [{"role": "user", "content": PLACE}]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    return text[: text.index(PLACE)].rstrip(" ")
