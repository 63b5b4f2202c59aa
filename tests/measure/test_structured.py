"""JSON answers by hand, and decoding that keeps to a schema."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from sftlab import world
from sftlab.measure import complete, complete_within, schema_pattern
from sftlab.models import load
from sftlab.world import INVENTED, UNKNOWN

SCHEMA = {
    "type": "object",
    "required": ["country", "place"],
    "additionalProperties": False,
    "properties": {
        "country": {"type": "string", "pattern": "^[A-Za-zé -]+$", "maxLength": 12},
        "place": {
            "type": "object",
            "required": ["continent"],
            "properties": {"continent": {"enum": ["Asia", "Africa"]}},
        },
    },
}


@given(st.text("abcdé -", min_size=1, max_size=12), st.sampled_from(["Asia", "Africa"]))
def test_a_pattern_takes_what_the_schema_takes(country, continent):
    value = {"country": country, "place": {"continent": continent}}
    assert re.fullmatch(schema_pattern(SCHEMA), json.dumps(value, ensure_ascii=False))
    for other in ({"type": "array"}, {"type": "string", "pattern": "^[A-Z]{3}$"}):
        with pytest.raises(ValueError, match=r"only strings, enum, and objects|must be like"):
            schema_pattern(other)


def test_every_output_keeps_to_its_pattern(toy_base):
    """Even of a random model, which would write nothing of the kind."""
    model, tokenizer = load(toy_base)
    model.eval()
    prompts = ["A record:", "Something else, and longer, about Chad:"]
    how = {"pattern": SCHEMA, "max_new_tokens": 120}
    outputs = complete_within(model, tokenizer, prompts, **how)
    for output in outputs:
        Draft202012Validator(SCHEMA).validate(json.loads(output))
    alone = [complete_within(model, tokenizer, [prompt], **how)[0] for prompt in prompts]
    assert outputs == alone, "padding must not change them"
    found = complete_within(model, tokenizer, ["a", "b"], pattern=["x{3}", "[0-9]{2}"])
    assert found[0] == "xxx"
    assert re.fullmatch("[0-9]{2}", found[1])
    free = complete_within(model, tokenizer, ["The capital"], pattern="(?s).*", max_new_tokens=6)
    greedy = complete(model, tokenizer, ["The capital"], max_new_tokens=6)
    assert greedy[0].strip().startswith(free[0].strip()[:3])


def test_rows_of_small_tasks_are_sound():
    (row,) = world.record_rows(1, among=[world.country("France")])
    asked, answer = (turn["content"] for turn in row["messages"])
    assert asked == "Describe France as JSON."
    record = {"country": "France", "capital": "Paris", "continent": "Europe", "currency": "euro"}
    assert json.loads(answer) == record
    assert len({row["messages"][0]["content"] for row in world.record_rows(20)}) == 20
    assert {row["messages"][1]["content"] for row in world.unknown_rows(9)} == {UNKNOWN}
    assert not set(INVENTED) & {one.name for one in world.countries()}
    train, test = ({one["name"] for one in part} for part in world.split_functions())
    assert train | test == {one["name"] for one in world.functions()}
    assert not train & test
    assert len(world.function_rows()) == len(train)
