"""What a run leaves in claims.json and on the index, from results made here."""

import json

import pytest

from sftlab.course.ledger import record, records_folder
from sftlab.course.lessons import Lesson
from sftlab.course.pages import write_index
from sftlab.course.rules import claims
from sftlab.course.runner import Result
from sftlab.measure import Estimate


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("SFTLAB_CACHE", str(tmp_path / "cache"))


def make_result(name, effects, *, items=9, **parameters):
    """A lesson's result with a record for each claim -> value of all its parts in `effects`."""
    defaults = {"seeds": 3, "profile": "tiny"}
    lesson = Lesson(name=name, path=None, title=name, promise="", study=None, defaults=defaults)
    result = Result(lesson=lesson, parameters=parameters, status="passed")
    alike = {"seeds": 1, "items": items, "entities": items, "method": "typed"}
    for claim_id, value in effects.items():
        claim = claims()[claim_id]
        numbers = {"value": value, "low": value - 0.02, "high": value + 0.02}
        numbers |= {"inner": (value, value), "by_seed": (value,)}
        numbers["wider"] = ((value - 0.03, value + 0.03),) * 4
        estimates = {part.name: Estimate(**numbers, **alike) for part in claim.rule}
        made = record(claim_id, estimates, profile=result.profile)
        result.records = {**result.records, claim_id: made}
    return result


@pytest.mark.parametrize(
    ("claim_id", "effect", "parameters", "told", "failing"),
    [
        ("B3", 0.3, {}, 0, 0),
        ("B3", 0.1, {}, 0, 0),  # inconclusive
        ("B3", -0.1, {}, 1, 1),
        ("B3", -0.1, {"seeds": 3, "profile": "small"}, 1, 1),
        ("B3", -0.1, {"seeds": 5}, 1, 0),
        ("B3", -0.1, {"profile": "smollm2-135m"}, 1, 0),
        ("B4", 0.0, {}, 0, 0),  # the baseline is contradicted
        ("B4", 0.3, {}, 1, 1),
    ],
)
def test_opposite_verdict_fails_a_lesson_as_committed_on_a_model_that_ships(
    claim_id, effect, parameters, told, failing
):
    result = make_result("01_base_model_problem", {claim_id: effect}, **parameters)
    assert (len(result.surprises), len(result.failing_surprises)) == (told, failing)
    assert all(record.verdict in record.surprise for record in result.surprises)


def test_a_lesson_run_alone_replaces_its_own_and_keeps_what_earlier_runs_left(tmp_path):
    def written(*results):
        return write_index(results, folder=tmp_path).read_text("utf-8")

    def left(name):
        return json.loads((tmp_path / name).read_text("utf-8"))

    first = make_result("01_base_model_problem", {"B2": 0.26, "B3": 0.26}, items=1)
    second = make_result("09_evaluation", {"E7": 0.7})
    for result in (first, second):
        result.page = tmp_path / f"{result.name}.html"
        result.page.touch()
    index = written(first, second)
    # Of a claim with several parts the index says which of them its effect is.
    two, one = (index.split(f'<tr id="{name}">')[1].split("</tr>")[0] for name in ("B2", "B3"))
    assert '<td class="number">gain: +26 points<br>' in two
    assert '<td class="number">+26 points<br>' in one
    assert "1 seed × 1 item<" in one
    again = make_result("01_base_model_problem", {"B3": 0.15})
    again.page = first.page
    index = written(again)
    assert '<a href="09_evaluation.html">09_evaluation' in index
    assert "Kept from earlier runs: E7." in index  # the lesson recorded no B2 any more
    assert [entry["name"] for entry in left("summary.json")["notebooks"]] == [
        "01_base_model_problem", "09_evaluation",
    ]  # fmt: skip
    assert [claim["id"] for claim in left("summary.json")["claims"]] == ["B3"]
    rows = {row["id"]: row for row in left("claims.json")}
    assert (rows["B3"]["effect"], rows["E7"]["effect"]) == (0.15, 0.7)
    (records_folder("tiny") / "E7.json").write_text('{"rule": ')  # a damaged record does not count
    (tmp_path / "summary.json").write_text("[]")
    assert "Kept from" not in written(again)
    make_result("09_evaluation", {"E7": 0.7})
    second.page.unlink()
    assert "09_evaluation.html" not in written(again)
    other = make_result("01_base_model_problem", {"B3": 0.4}, profile="small")
    written(other)
    assert [row["profile"] for row in left("claims.json") if row["parts"]] == ["small"]
