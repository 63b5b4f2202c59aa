"""JSON answers by hand, and decoding that keeps to a schema."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftlab import world
from sftlab.measure.generation import complete
from sftlab.measure.structured import complete_within, probe_schema, schema_pattern
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


@pytest.mark.parametrize(
    ("output", "steps", "fault"),
    [
        (json.dumps(GOOD), [1, 1, 1, 1], ""),
        (json.dumps(GOOD | {"size": 8}), [1, 1, 1, 0], ""),
        (json.dumps(GOOD | {"size": "seven"}), [1, 1, 0, 0], "$.size"),
        (json.dumps({"country": "Chad"}), [1, 0, 0, 0], "'place' is a required"),
        ("Here it is: " + json.dumps(GOOD), [0, 0, 0, 0], "not JSON: Expecting"),
        ("[" * 100_000, [0, 0, 0, 0], "not JSON"),
        # What only Python reads is not JSON.
        ("NaN", [0, 0, 0, 0], "not JSON: NaN"),
        ('{"a": 1, "a": 2}', [0, 0, 0, 0], "not JSON: a key is repeated"),
        ("", [0, 0, 0, 0], "not JSON: Expecting"),
    ],
    ids="right untrue type missing preface deep NaN repeated empty".split(),
)
def test_each_step_is_reported(output, steps, fault):
    found = probe_schema([output], schema=SCHEMA, expected=[GOOD]).iloc[0]
    assert list(found[["parsed", "fields", "valid", "correct"]]) == steps
    assert fault in found["fault"]
    assert bool(found["fault"]) != found["valid"]


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
    country=st.text("abcdé -", min_size=1, max_size=12),
    continent=st.sampled_from(["Asia", "Africa"]),
    known=st.booleans(),
    size=st.integers(-(10**8), 10**8),
)
def test_pattern_takes_what_the_schema_takes(country, continent, known, size):
    place = {"continent": continent, "known": known}
    value = {"country": country, "place": place, "size": size}
    assert re.fullmatch(schema_pattern(SCHEMA), json.dumps(value, ensure_ascii=False))


def test_every_output_keeps_to_its_pattern(toy_base):
    """Even of a random model, which would write nothing of the kind."""
    model, tokenizer = load(toy_base)
    model.eval()
    prompts = ["A record:", "Something else, and longer, about Chad:"]
    how = {"pattern": schema_pattern(SCHEMA), "max_new_tokens": 120}
    outputs = complete_within(model, tokenizer, prompts, **how)
    assert probe_schema(outputs, schema=SCHEMA, expected=outputs)["valid"].all(), outputs
    alone = [complete_within(model, tokenizer, [prompt], **how)[0] for prompt in prompts]
    assert outputs == alone, "padding must not change them"
    found = complete_within(model, tokenizer, ["a", "b"], pattern=["x{3}", "[0-9]{2}"])
    assert found[0] == "xxx"
    assert re.fullmatch("[0-9]{2}", found[1])
    free = complete_within(model, tokenizer, ["The capital"], pattern="(?s).*", max_new_tokens=6)
    greedy = complete(model, tokenizer, ["The capital"], max_new_tokens=6)
    assert greedy[0].strip().startswith(free[0].strip()[:3])


def test_rows_of_small_tasks_are_sound():
    names = {one.name for one in world.countries()}
    records = [world.record_of(one) for one in world.countries()]
    texts = [json.dumps(one, ensure_ascii=False) for one in records]
    found = probe_schema(texts, schema=world.record_schema(), expected=records)
    assert found["correct"].all()
    assert {row["messages"][1]["content"] for row in world.record_rows(20)} <= set(texts)
    assert {row["messages"][1]["content"] for row in world.unknown_rows(9)} == {world.UNKNOWN}
    assert not set(world.INVENTED) & names
    train, test = ({one["name"] for one in part} for part in world.split_functions())
    assert train | test == {one["name"] for one in world.functions()}
    assert not train & test
    assert len(world.function_rows()) == len(train)
    with pytest.raises(ValueError, match="countries to learn from"):
        world.record_rows(1000)
