"""JSON answers: does it parse, are the fields there, does it fit its schema, and are they right.

{"country": "France", "capital": "Paris"}      parsed, fields, valid
{"country": "France", "capital": 7}            parsed, fields: a capital is a text
{"country": "France"}                          parsed
{'country': 'France'}                          none: JSON has other quotes
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd


def parsed(text: str) -> Any:
    """The value of a text that is JSON, and nothing else but white space around it.

    NaN and Infinity, which Python reads and JSON lacks, and a key that stands twice are refused.

    Raises:
        ValueError: it does not parse.
    """
    return json.loads(text, parse_constant=_no_constant, object_pairs_hook=_once)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


def probe_schema(
    outputs: Sequence[str],
    *,
    schema: Mapping[str, Any],
    expected: Sequence[Any] | None = None,
) -> pd.DataFrame:
    """What is right about each output, one row each.

    Columns: output, parsed, fields (an object that holds all that the schema requires, whatever
    else), valid (by jsonschema), fault (of the first step that failed, empty when valid), and with
    `expected` correct: valid, and equal to what was expected.

    Raises:
        ValueError: the schema is none, or there are not as many expected values as outputs.
    """
    import jsonschema

    kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    try:
        kind.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise ValueError(f"the schema is none: {error.message} at {error.json_path}") from error
    if expected is not None and len(expected) != len(outputs):
        raise ValueError(
            f"{len(expected)} expected values for {len(outputs)} outputs: give one each"
        )
    validator = kind(schema)
    required = schema.get("required", ())
    rows = [_judged(output, validator, required) for output in outputs]
    frame = pd.DataFrame(
        [{name: value for name, value in row.items() if name != "value"} for row in rows]
    )
    if expected is not None:
        frame["correct"] = [
            row["valid"] and row["value"] == value
            for row, value in zip(rows, expected, strict=True)
        ]
    return frame


def _judged(output: str, validator, required: Sequence[str]) -> dict[str, Any]:
    row = {"output": output, "parsed": False, "fields": False, "valid": False, "fault": "",
           "value": None}  # fmt: skip
    try:
        row["value"] = parsed(output)
    except (ValueError, RecursionError) as error:
        return row | {"fault": f"no JSON: {error}"}
    row["parsed"] = True
    value = row["value"]
    row["fields"] = isinstance(value, dict) and all(name in value for name in required)
    fault = next(iter(validator.iter_errors(value)), None)
    row["valid"] = fault is None
    return row | {"fault": f"{fault.json_path}: {fault.message}" if fault else ""}
