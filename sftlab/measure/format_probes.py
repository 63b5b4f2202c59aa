"""Probes of form: chat templates, ends of turns, code.

Each returns a frame with one row per item, as the probes of `probes.py` do. A `run` is anything
with a model and its tokenizer.
"""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pandas as pd

from sftlab.chat import Template, find_template
from sftlab.measure.code_eval import run_code
from sftlab.measure.generation import generate
from sftlab.measure.probes import probe_questions
from sftlab.world import RELATIONS, Country, function_request, split_functions


def reply(
    run,
    prompts: Sequence[str],
    *,
    max_new_tokens: int = 12,
    skip_special_tokens: bool = False,
    **drawing,
) -> tuple[list[str], list[bool]]:
    """What the model writes after each prompt, and whether it stopped.

    The token at which it stopped is left out. A prompt is tokenized as it is: a BOS has to be
    written in it. Greedy, unless `sample` draws from `seed`.
    """
    new = generate(
        run.model,
        [run.tokenizer(prompt, add_special_tokens=False)["input_ids"] for prompt in prompts],
        pad=run.tokenizer.pad_token_id,
        max_new_tokens=max_new_tokens,
        **drawing,
    )
    texts = [run.tokenizer.decode(one, skip_special_tokens=skip_special_tokens) for one in new]
    return texts, [len(one) < max_new_tokens for one in new]


def probe_template(
    run,
    *,
    among: Sequence[Country],
    relations: Sequence[str] = RELATIONS,
    template: str | Template | None = None,
    change: Callable[[str], str] = str,
    **how: Any,
) -> pd.DataFrame:
    """The questions of `probe_questions` in a template, by default that of the run's training.

    `change` is applied to each prompt, to try what a slip in it costs; `how` is as for `reply`.
    Special tokens are shown. Adds stopped (whether the model ended its turn in time) and clean
    (whether the output is a right answer and nothing else, and stopped).
    """
    found, stopped = find_template(template, tokenizer=run.tokenizer), []

    def ask(questions: list[str]) -> list[str]:
        turns = [[{"role": "user", "content": question}] for question in questions]
        prompts = [change(found.render(one, add_generation_prompt=True)) for one in turns]
        outputs, stopped[:] = reply(run, prompts, **how)
        return outputs

    frame = probe_questions(ask, among=among, relations=relations).assign(stopped=stopped)
    clean = [row.stopped and row.output.strip() in row.answers for row in frame.itertuples()]
    return frame.assign(clean=clean)


@contextmanager
def capture_warnings() -> Iterator[list[str]]:
    """Collect a block's Python warnings and log records at WARNING or above, and show them nowhere.

    Yields a list, which is full when the block has run.
    """
    said: list[str] = []
    handler = logging.Handler(level=logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())
    # Records of a logger that does not propagate, as transformers', never reach the root logger.
    known = [logging.getLogger(name) for name in logging.root.manager.loggerDict]
    before = {one: one.handlers for one in known if one.parent is None or not one.propagate}
    before[logging.root] = logging.root.handlers
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for one in before:
            one.handlers = [handler]
        try:
            yield said
        finally:
            for one, handlers in before.items():
                one.handlers = handlers
            said += [str(warning.message) for warning in caught]


def probe_code(ask: Callable[..., list[str]], *, draws: int = 10, **drawing: Any) -> pd.DataFrame:
    """Requests for small functions, drawn several times each, and run on tests in another process.

    `ask(requests, sample=True, seed=..., max_new_tokens=40, **drawing)` gives the code: a run's
    `answer`, or `complete` of a base. Columns: task, draw, passed.
    """
    among, candidates = split_functions()[1], []
    for seed in range(draws):
        how = {"sample": True, "seed": seed, "max_new_tokens": 40, **drawing}
        drawn = ask([function_request(one) for one in among], **how)
        candidates += [
            {"code": text.strip("\n"), "name": one["name"], "tests": one["tests"]}
            for text, one in zip(drawn, among, strict=True)
        ]
    found = run_code(candidates, seconds=1.0).rename(columns={"name": "task"})
    return found[["task", "passed"]].assign(draw=[n // len(among) for n in range(len(found))])
