"""JSON answers by hand, and decoding that keeps to a schema."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftlab.measure.generation import complete
from sftlab.measure.structured import (
    PatternError,
    complete_within,
    parse_json,
    probe_schema,
    schema_pattern,
)
from sftlab.models import load

SCHEMA = {
    "type": "object",
    "required": ["country", "place", "size"],
    "additionalProperties": False,
    "properties": {
        "country": {"type": "string", "maxLength": 12},
        "place": {
            "type": "object",
            "required": ["continent", "known"],
            "properties": {"continent": {"enum": ["Asia", "Africa"]}, "known": {"type": "boolean"}},
        },
        "size": {"type": "integer"},
    },
}
GOOD = {"country": "Chad", "place": {"continent": "Africa", "known": True}, "size": 7}


def test_each_step_is_reported():
    outputs = [
        json.dumps(GOOD),
        json.dumps(GOOD | {"size": "seven"}),
        json.dumps({"country": "Chad"}),
        "Here it is: " + json.dumps(GOOD),
        "[" * 100_000,
    ]
    found = probe_schema(outputs, schema=SCHEMA, expected=[GOOD] * 5)
    assert list(found["parsed"]) == [True, True, True, False, False]
    assert list(found["fields"]) == [True, True, False, False, False]
    assert list(found["valid"]) == [True, False, False, False, False]
    assert list(found["correct"]) == [True, False, False, False, False]
    assert "$.size" in found["fault"][1]
    assert found["fault"][3].startswith("not JSON")


@pytest.mark.parametrize("text", ["NaN", '{"a": Infinity}', '{"a": 1, "a": 2}', "{'a': 1}", ""])
def test_what_only_python_reads_is_not_json(text):
    with pytest.raises(ValueError, match=r"JSON|repeated|Expecting"):
        parse_json(text)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="invalid schema"):
        probe_schema(["1"], schema={"type": "nothing"})
    with pytest.raises(ValueError, match="1 expected values for 2 outputs"):
        probe_schema(["1", "2"], schema={}, expected=[1])


@given(
    st.fixed_dictionaries(
        {
            "country": st.text("abcdé -", min_size=1, max_size=12),
            "place": st.fixed_dictionaries(
                {"continent": st.sampled_from(["Asia", "Africa"]), "known": st.booleans()}
            ),
            "size": st.integers(-(10**8), 10**8),
        }
    )
)
def test_pattern_takes_what_the_schema_takes(value):
    place = {name: value["place"][name] for name in ("continent", "known")}
    ordered = {"country": value["country"], "place": place, "size": value["size"]}
    assert re.fullmatch(schema_pattern(SCHEMA), json.dumps(ordered, ensure_ascii=False))


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array"},
        {"type": "object", "properties": {"a": {"type": "integer"}}},
        {"type": "string", "pattern": "a|b"},
    ],
)
def test_schemas_without_a_pattern_are_refused(schema):
    with pytest.raises(PatternError):
        schema_pattern(schema)


def test_every_output_keeps_to_the_pattern(toy_base):
    """Even of a random model, which would write nothing of the kind."""
    model, tokenizer = load(toy_base)
    model.eval()
    prompts = ["A record:", "Something else, and longer, about Chad:"]
    pattern = schema_pattern(SCHEMA)
    outputs = complete_within(model, tokenizer, prompts, pattern=pattern, max_new_tokens=120)
    assert probe_schema(outputs, schema=SCHEMA)["valid"].all(), outputs
    alone = [
        complete_within(model, tokenizer, [p], pattern=pattern, max_new_tokens=120)[0]
        for p in prompts
    ]
    assert outputs == alone, "padding must not change them"


def test_patterns_may_differ_and_one_that_allows_all_changes_nothing(toy_base):
    model, tokenizer = load(toy_base)
    model.eval()
    found = complete_within(model, tokenizer, ["a", "b"], pattern=["x{3}", "[0-9]{2}"])
    assert found[0] == "xxx"
    assert re.fullmatch("[0-9]{2}", found[1])
    free = complete_within(model, tokenizer, ["The capital"], pattern="(?s).*", max_new_tokens=6)
    greedy = complete(model, tokenizer, ["The capital"], max_new_tokens=6)
    assert greedy[0].strip().startswith(free[0].strip()[:3])
    with pytest.raises(PatternError, match="2 patterns for 1"):
        complete_within(model, tokenizer, ["a"], pattern=["x", "y"])
