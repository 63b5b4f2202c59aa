"""Probes of form: chat templates, ends of turns, JSON records, code.

Each returns a frame with one row per item, as the probes of `probes.py` do. A `run` is anything
with a model and its tokenizer.
"""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import pandas as pd

from sftlab.chat import Template, find_template
from sftlab.measure.code_eval import pass_at_k, run_code
from sftlab.measure.generation import complete, generate
from sftlab.measure.probes import Ask, probe_questions
from sftlab.measure.structured import probe_schema
from sftlab.world import (
    RELATIONS,
    Country,
    function_request,
    record_of,
    record_request,
    record_schema,
    split_functions,
)

DRAWS, KS = 10, (1, 2, 5, 10)


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


def probe_records(ask: Ask, *, among: Sequence[Country]) -> pd.DataFrame:
    """Requests for JSON records about countries; the columns of `probe_schema`, and country."""
    outputs = [text.strip() for text in ask([record_request(one) for one in among])]
    expected = [record_of(one) for one in among]
    frame = probe_schema(outputs, schema=record_schema(), expected=expected)
    return frame.assign(country=[one.name for one in among])


def code_drawn(temperature: float, *, tuned: bool = True) -> Callable[[Any], pd.DataFrame]:
    """A measure of a run: pass@k on small functions, each drawn `DRAWS` times and run in another
    process; of a base, which is not `tuned`, on its continuations. Columns: task, k, score."""

    def measure(run) -> pd.DataFrame:
        ask = run.answer if tuned else partial(complete, run.model, run.tokenizer)
        how = {"sample": True, "temperature": temperature, "max_new_tokens": 40}
        among, candidates = split_functions()[1], []
        for seed in range(DRAWS):
            drawn = ask([function_request(one) for one in among], seed=seed, **how)
            candidates += [
                {"code": text.strip("\n"), "name": one["name"], "tests": one["tests"]}
                for text, one in zip(drawn, among, strict=True)
            ]
        passed = run_code(candidates, seconds=1.0).groupby("name", sort=False)["passed"].sum()
        scores = [(name, k, pass_at_k(DRAWS, n, k)) for name, n in passed.items() for k in KS]
        return pd.DataFrame(scores, columns=["task", "k", "score"])

    return measure
