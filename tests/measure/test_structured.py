"""JSON answers by hand, and decoding that keeps to a schema."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftlab.measure.generation import complete
from sftlab.measure.structured import complete_within, probe_schema, schema_pattern
from sftlab.models import load
from sftlab.world import (
    INVENTED,
    UNKNOWN,
    countries,
    function_rows,
    functions,
    record_of,
    record_rows,
    record_schema,
    split_functions,
    unknown_rows,
)

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


def test_what_only_python_reads_is_not_json():
    texts = ["NaN", '{"a": Infinity}', '{"a": 1, "a": 2}', "{'a': 1}", ""]
    found = probe_schema(texts, schema={}, expected=[None] * 5)
    assert not found["parsed"].any()
    assert found["fault"].str.contains("JSON: (?:NaN|Infinity|a key is repeated|Expecting)").all()


def test_invalid_schemas_are_refused():
    with pytest.raises(ValueError, match="invalid schema"):
        probe_schema(["1"], schema={"type": "nothing"}, expected=[1])
    for schema, message in [
        ({"type": "array"}, "not supported"),
        ({"type": "object", "properties": {"a": {"type": "integer"}}}, "'a' is optional"),
        ({"type": "string", "pattern": "a|b"}, "class of characters"),
    ]:
        with pytest.raises(ValueError, match=message):
            schema_pattern(schema)


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


def test_every_output_keeps_to_the_pattern(toy_base):
    """Even of a random model, which would write nothing of the kind."""
    model, tokenizer = load(toy_base)
    model.eval()
    prompts = ["A record:", "Something else, and longer, about Chad:"]
    pattern = schema_pattern(SCHEMA)
    how = {"pattern": pattern, "max_new_tokens": 120}
    outputs = complete_within(model, tokenizer, prompts, **how)
    assert probe_schema(outputs, schema=SCHEMA, expected=outputs)["valid"].all(), outputs
    alone = [complete_within(model, tokenizer, [prompt], **how)[0] for prompt in prompts]
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


def test_rows_of_small_tasks_are_sound():
    records = [record_of(one) for one in countries()]
    texts = [json.dumps(one, ensure_ascii=False) for one in records]
    assert probe_schema(texts, schema=record_schema(), expected=records)["correct"].all()
    assert {row["messages"][1]["content"] for row in record_rows(20)} <= set(texts)
    assert {row["messages"][1]["content"] for row in unknown_rows(9)} == {UNKNOWN}
    assert not set(INVENTED) & {one.name for one in countries()}
    train, test = split_functions()
    assert len(train) + len(test) == len(functions())
    assert not {one["name"] for one in train} & {one["name"] for one in test}
    assert len(function_rows()) == len(train)
    with pytest.raises(ValueError, match="countries to learn from"):
        record_rows(1000)
