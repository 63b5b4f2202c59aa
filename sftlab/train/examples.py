"""From conversations to rows of ids and labels: what is learned is decided here, before training.

    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}

    input_ids   <|im_start|> user Hi <|im_end|> <|im_start|> assistant Ho <|im_end|>
    labels              -100 -100 -100     -100         -100      -100 Ho <|im_end|>

A wrong example is named with its index, the value and a remedy.
"""

import hashlib
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sftlab.chat import IGNORED, MaskError, TemplateError, label_rows
from sftlab.data import read_row
from sftlab.train.settings import Settings

VALIDATION = "validation example"  # what an error calls one that is not trained on
PLACE = (
    "take a template that has a place for it: template='qwen3_training' (--template "
    "qwen3_training) for thinking, calls and tools, or 'chatml' for all of a content"
)


class ExampleError(ValueError):
    """An example that can't be trained on; the message names its index, the value and a remedy."""


def check_examples(
    examples: Iterable[Mapping[str, Any]], *, control: Sequence[str] = (), name: str = "example"
) -> list[dict[str, Any]]:
    """The examples, rows in any shape that `sftlab.data.read` reads, as rows of `messages`, `tools`
    where there are some, and `meta`. No content may hold one of the tokens `control`; an error
    calls one of the examples `name`."""
    if isinstance(examples, str | bytes | Mapping) or not isinstance(examples, Iterable):
        raise ExampleError(
            f"{name}s is a {type(examples).__name__}; give a list of "
            '{"messages": [...]} or a Dataset with that column (one split of a DatasetDict)'
        )
    checked = [
        check_row(example, where=f"{name} {index}", control=control)
        for index, example in enumerate(examples)
    ]
    if not checked:
        raise ExampleError(f"there are no {name}s; give at least one conversation")
    return checked


def check_row(
    row: Any, *, where: str, control: Sequence[str] = (), answered: bool = True
) -> dict[str, Any]:
    """One of them; not `answered`, its messages may wait for their next answer."""
    found = read_row(row, answered=answered, control=control)
    if found.problems:
        first = found.problems[0]
        at = ", ".join(filter(None, [where, first.field]))
        value = f" ({first.value})" if first.value else ""
        raise ExampleError(f"{at}: {first.what}{value}; {first.remedy}")
    tools = {"tools": found.tools} if found.tools else {}
    return {"messages": found.messages, **tools, "meta": found.meta}


def data_hash(examples: Sequence[Mapping[str, Any]]) -> str:
    """SHA-256 of checked examples without `meta`, one line of JSON each, in their order."""
    digest = hashlib.sha256()
    for example in examples:
        used = {key: value for key, value in example.items() if key != "meta"}
        digest.update(json.dumps(used, ensure_ascii=False, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()


def supervise(
    examples: Sequence[dict[str, Any]], tokenizer, settings: Settings, *, name: str = "example"
) -> list[dict[str, list[int]]]:
    """Rows for the trainer of checked examples: `input_ids`, and `labels` (unshifted, -100 where
    nothing is learned); masked first and cut then, so that a row that loses its answer is named."""
    try:
        found = masked(examples, tokenizer, settings)
    except (TemplateError, MaskError) as error:
        raise ExampleError(str(error).replace("row ", f"{name} ", 1)) from error
    most, rows, lost, cut, partly = settings.max_length, [], [], [], []
    for index, one in enumerate(found):
        if gone := [t for t in one.missing if t.learned or settings.turns == "everything"]:
            earlier = gone[-1].message not in (None, len(examples[index]["messages"]) - 1)
            last = ", or learn the last answer alone (turns='last', --turns last)" * earlier
            raise ExampleError(
                f"{name} {index}: {gone[0]} is to be learned, and the chat template writes it "
                f"nowhere; {PLACE}{last}"
            )
        if one.missing:
            partly.append(index)
        if not one.supervised:
            why = "; ".join(one.warnings) or "none of its answers is to be learned"
            raise ExampleError(f"{name} {index} has no supervised token: {why}; correct or drop it")
        labels = one.ids if settings.turns == "everything" else one.labels
        if any(label != IGNORED for label in labels[most:]):
            cut.append(index)
        if all(label == IGNORED for label in one.labels[:most]):
            lost.append(index)
        rows.append({"input_ids": one.ids[:most], "labels": labels[:most]})
    if lost:
        needed = len(found[lost[0]].ids)
        raise ExampleError(
            f"{name} {lost[0]} has {needed} tokens and max_length is {most}, so "
            f"nothing of its answer is left ({len(lost)} of {len(examples)} {name}s are like it); "
            f"set max_length={needed} or more (--set max_length={needed}; the model has a limit "
            "too), or shorten or drop it"
        )
    if partly:
        warnings.warn(
            f"the chat template leaves out a text of {len(partly)} of {len(examples)} {name}s, "
            f"which is not to be learned (the first is {name} {partly[0]}: "
            f"{found[partly[0]].missing[0]}); {PLACE}",
            stacklevel=3,
        )
    if cut:
        warnings.warn(
            f"{len(cut)} of {len(examples)} {name}s are longer than max_length={most} and "
            f"lose the end of an answer (the first is {name} {cut[0]}); raise max_length "
            "(--set max_length=N), or shorten or drop them",
            stacklevel=3,
        )
    return rows


def masked(examples: Sequence, tokenizer, settings: Settings) -> list:
    """Ids and labels of examples, uncut, with the supervision of the settings."""
    how = {"turns": "last" if settings.turns == "last" else "all", "start": settings.start}
    how |= {"end_of_turn": settings.end_of_turn, "append_eos": settings.end_of_turn}
    return label_rows(tokenizer, examples, on_empty="keep", **how)
