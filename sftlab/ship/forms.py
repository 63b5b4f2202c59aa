"""One run in the forms in which it can be shipped, each compared with it along its answers.

f32 bf16 f16 int8 nf4         merged, in transformers; the last two by bitsandbytes
GGUF f32 f16 q8_0 q4_0        merged, as a file for llama.cpp
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import pandas as pd

from sftlab.measure import is_right
from sftlab.ship.gating import along
from sftlab.ship.gguf_file import TYPES, write_gguf
from sftlab.ship.runtimes import PRECISIONS, Answer, LlamaCpp, Runtime, Transformers, convert
from sftlab.train import Run

_TIMED, _FEWER = 4, 3
Form = tuple[str, Runtime, float, int]


def compare_forms(
    run: Run,
    questions: pd.DataFrame,
    *,
    precisions: Sequence[str] = tuple(PRECISIONS),
    types: Sequence[str] = tuple(TYPES),
) -> pd.DataFrame:
    """Greedy answers of a run in several forms, against those of the run as it is.

    `questions` is a frame of `probe_questions`, whose columns are kept; a GGUF file answers one
    question at a time, and every third of them. Adds for each form and question: form, megabytes
    (of the weights), speed (tokens a second, one question at a time), changed (whether another
    token is written), right, and of `along` the largest difference of log-probabilities (nats),
    and token, other and gap at the last place that can be compared.

    Raises ValueError: a form does not exist or can't be had of this model.
    """
    prompts = [run.prompt_ids([{"role": "user", "content": q}]) for q in questions["prompt"]]
    reference, found = Transformers(run).follow(prompts), []
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        for name, runtime, megabytes, every in _forms(run, precisions, types, Path(folder)):
            start, few = perf_counter(), [runtime.follow([one])[0] for one in prompts[:_TIMED]]
            speed = sum(map(len, few)) / (perf_counter() - start)
            answers, asked = runtime.follow(prompts[::every]), questions[::every]
            rows = _compared(run, reference[::every], answers)
            texts = run.texts([step.token for step in answer] for answer in answers)
            rows["right"] = list(map(is_right, texts, asked["answers"]))
            kept = asked.drop(columns=["output", "right"], errors="ignore").reset_index(drop=True)
            about = {"form": name, "megabytes": megabytes, "speed": speed}
            found.append(pd.concat([kept, rows], axis=1).assign(**about))
    return pd.concat(found, ignore_index=True)


def _forms(
    run: Run, precisions: Sequence[str], types: Sequence[str], folder: Path
) -> Iterator[Form]:
    """Name, runtime, megabytes of the weights, and of how many questions one is asked."""
    merged = run.merge() if run.adapted else run
    for name in precisions:
        one = convert(merged, name) if name != "f32" else merged
        yield name, Transformers(one), one.model.get_memory_footprint() / 1e6, 1
    for name in types:
        file = write_gguf(merged, folder / f"{name}.gguf", type=name)
        yield f"GGUF {name}", LlamaCpp(file), file.stat().st_size / 1e6, _FEWER


def _compared(run: Run, reference: Sequence[Answer], answers: Sequence[Answer]) -> pd.DataFrame:
    """A row an answer."""
    places = along(reference, answers)
    rows = places.groupby("answer").agg(
        {"difference": "max", "gap": "last", "token": "last", "other": "last"}
    )
    rows["changed"] = rows["token"] != rows["other"]  # places end where they differ
    names = run.tokenizer.convert_ids_to_tokens
    return rows.assign(token=names(list(rows["token"])), other=names(list(rows["other"])))
