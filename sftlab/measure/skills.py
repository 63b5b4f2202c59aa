"""Probes of the tasks of `sftlab.world.skills`: records as JSON, and code that must pass tests."""

from collections.abc import Callable, Sequence

import pandas as pd

from sftlab.measure.code_eval import Limits, draw_table, run_code
from sftlab.measure.completion import behind_prompt, complete
from sftlab.measure.structured import complete_within, probe_schema, schema_pattern
from sftlab.world import (
    Country,
    function_request,
    record_of,
    record_request,
    record_schema,
    split_functions,
)

SECONDS = 1.0
"""Wall-clock limit of a candidate."""


def probe_records(
    ask: Callable[[list[str]], list[str]], *, among: Sequence[Country]
) -> pd.DataFrame:
    """Records of some countries asked for; the columns of `probe_schema`, and country."""
    outputs = [text.strip() for text in ask([record_request(one) for one in among])]
    frame = probe_schema(
        outputs, schema=record_schema(), expected=[record_of(one) for one in among]
    )
    return frame.assign(country=[one.name for one in among])


def probe_functions(
    draw: Callable[[list[str], int], list[str]],
    *,
    draws: int = 10,
    ks: Sequence[int] = (1, 2, 5, 10),
    among: Sequence[dict] | None = None,
) -> pd.DataFrame:
    """pass@k on small functions, each drawn several times and run away from here.

    `draw(requests, number)` gives one text a request. The rows of `draw_table`; task is the
    function's name.
    """
    among = split_functions()[1] if among is None else among
    requests = [function_request(one) for one in among]
    texts = [text for number in range(draws) for text in draw(requests, number)]
    tasks = [one for _ in range(draws) for one in among]
    found = run_code(
        [{"code": text.strip("\n"), "name": one["name"], "tests": one["tests"]}
         for text, one in zip(texts, tasks, strict=True)],
        limits=Limits(seconds=SECONDS),
    )  # fmt: skip
    found["task"] = [one["name"] for one in tasks]
    return draw_table(found, ks=ks)


def code_drawn(temperature: float, *, tuned: bool = True, most: int = 40, **options):
    """A measure of a run: `probe_functions` on its draws, or on a base's continuations."""

    def measure(run) -> pd.DataFrame:
        drawing = {"sample": True, "temperature": temperature, "max_new_tokens": most}

        def draw(requests: list[str], number: int) -> list[str]:
            if tuned:
                return run.answer(requests, seed=number, **drawing)
            return complete(run.model, run.tokenizer, requests, seed=number, **drawing)

        return probe_functions(draw, **options)

    return measure


def records_of_base(among: Sequence[Country], shots: Sequence[tuple[str, str]]) -> dict:
    """Measures of a base without training: asked bare, behind shots, constrained to the schema,
    and constrained with the name of the country fixed too."""
    pattern = schema_pattern(record_schema())

    def asked(run):
        return probe_records(
            lambda requests: complete(
                run.model, run.tokenizer, requests, max_new_tokens=60, stop=["\n"]
            ),
            among=among,
        )

    def prompted(run):
        ask = behind_prompt(run.model, run.tokenizer, shots, max_new_tokens=60)
        return probe_records(ask, among=among)

    def within(patterns):
        return lambda run: probe_records(
            lambda requests: complete_within(
                run.model, run.tokenizer, [f"{one}\n" for one in requests], pattern=patterns
            ),
            among=among,
        )

    return {
        "base, bare": asked,
        "base, 4-shot": prompted,
        "base, constrained": within(pattern),
        "base, name fixed": within([_named(one) for one in among]),
    }


def _named(country: Country) -> str:
    schema = record_schema()
    schema["properties"]["country"] = {"enum": [country.name]}
    return schema_pattern(schema)
