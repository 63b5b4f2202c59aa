"""What a run leaves in claims.json and on the index, from results made here."""

import json

import pytest

from sftlab.course.ledger import Record, write_claims
from sftlab.course.lessons import Lesson
from sftlab.course.pages import write_index
from sftlab.course.rules import claims
from sftlab.course.runner import Result
from sftlab.measure import Estimate


def make_result(name, effects, *, status="passed", items=9, **parameters):
    """A lesson's result with a record for each claim -> value of all its parts in `effects`."""
    defaults = {"seeds": 3, "profile": "tiny"}
    lesson = Lesson(name=name, path=None, title=name, promise="", defaults=defaults)
    result = Result(lesson=lesson, parameters=parameters, status=status)
    alike = {"seeds": 1, "items": items, "entities": items, "method": "typed"}
    for claim_id, value in effects.items():
        claim = claims()[claim_id]
        numbers = {"value": value, "low": value - 0.02, "high": value + 0.02}
        numbers |= {"inner": (value, value), "by_seed": (value,), "level": claim.level}
        estimates = {part.name: Estimate(**numbers, **alike) for part in claim.rule}
        made = Record(claim=claim, estimates=estimates, profile=result.profile)
        result.records = {**result.records, claim_id: made}
    return result


@pytest.fixture
def write(tmp_path):
    """Writes the ledger of some results; returns its rows by id, read back from the file."""
    for name in ("01_base_model_problem", "02_data"):
        (tmp_path / f"{name}.ipynb").touch()

    def write(*results):
        write_claims(results, folder=tmp_path, notebooks=tmp_path)
        rows = json.loads((tmp_path / "claims.json").read_text("utf-8"))
        assert [row["id"] for row in rows] == list(claims())
        return {row["id"]: row for row in rows}

    write.file = tmp_path / "claims.json"
    return write


FIRST = ("01_base_model_problem", {"B3": 0.3, "B6": 0.2})
SECOND = ("02_data", {"D1": 0.2, "D8": 0.06})


def test_lesson_run_again_replaces_its_rows_and_keeps_those_of_others(write):
    write(make_result(*FIRST), make_result(*SECOND))
    rows = write(make_result("01_base_model_problem", {"B3": 0.15}, seeds=5))
    assert (rows["B3"]["effect"], rows["B3"]["parameters"]["seeds"]) == (0.15, 5)
    assert rows["B6"]["verdict"] == "not measured"  # the lesson ran, and no longer records it
    assert rows["B6"]["parameters"] is None
    assert (rows["D1"]["effect"], rows["D1"]["parameters"]["seeds"]) == (0.2, 3)
    assert rows["D8"]["verdict"] == "inconclusive"


@pytest.mark.parametrize("status", ["failed", "interrupted", "not run"])
def test_lesson_that_did_not_end_takes_nothing_away(write, status):
    write(make_result(*FIRST))
    rows = write(make_result("01_base_model_problem", {"B3": 0.4}, status=status))
    assert (rows["B3"]["effect"], rows["B6"]["effect"]) == (0.4, 0.2)


def test_ledger_is_that_of_one_model(write):
    write(make_result(*FIRST), make_result(*SECOND))
    rows = write(make_result("01_base_model_problem", {"B3": 0.4}, profile="small"))
    assert rows["B3"]["profile"] == "small"
    assert (rows["B6"]["verdict"], rows["D1"]["verdict"]) == ("not measured", "not measured")


def test_earlier_row_is_judged_again_and_one_under_another_rule_is_not_counted(write):
    rows = write(make_result("02_data", {"D1": 0.2, "D8": -0.5}))
    assert rows["D8"]["verdict"] == "contradicted"
    rows["D8"]["verdict"] = "supported"
    rows["D1"]["rule"] = "another"
    write.file.write_text(json.dumps(list(rows.values())), "utf-8")
    rows = write(make_result(*FIRST))
    assert (rows["D8"]["verdict"], rows["D8"]["effect"]) == ("contradicted", -0.5)
    assert (rows["D1"]["verdict"], rows["D1"]["effect"]) == ("not measured", None)
    assert rows["D1"]["reason"] == "its rule has changed since it was measured: run lesson 02"


@pytest.mark.parametrize("text", ["{", '{"a": 1}', "[3]", '[{"parts": [1]}]'])
def test_damaged_ledger_of_an_earlier_run_is_written_anew(write, text):
    write.file.write_text(text)
    assert write(make_result(*SECOND))["D1"]["effect"] == 0.2


@pytest.mark.parametrize(
    ("claim_id", "effect", "parameters", "told", "failing"),
    [
        ("B3", 0.3, {}, 0, 0),
        ("B3", 0.1, {}, 0, 0),  # inconclusive
        ("B3", -0.1, {}, 1, 1),
        ("B3", -0.1, {"seeds": 3, "profile": "small"}, 1, 1),
        ("B3", -0.1, {"seeds": 5}, 1, 0),
        ("B3", -0.1, {"profile": "smollm2-135m"}, 1, 0),
        ("X1", 0.0, {}, 0, 0),  # expected to be contradicted
        ("X1", 0.3, {}, 1, 1),
    ],
)
def test_opposite_verdict_fails_a_lesson_as_committed_on_a_model_that_ships(
    claim_id, effect, parameters, told, failing
):
    result = make_result("01_base_model_problem", {claim_id: effect}, **parameters)
    assert (len(result.surprises), len(result.failing_surprises)) == (told, failing)
    assert all(record.verdict in record.surprise for record in result.surprises)


def test_index_keeps_lessons_of_earlier_runs_whose_page_is_there(tmp_path):
    def written(results):
        return write_index(results, folder=tmp_path, notebooks=tmp_path).read_text("utf-8")

    both = [make_result("01_base_model_problem", {"B2": 0.26, "B3": 0.26}, items=1)]
    both.append(make_result("02_data", {"D1": 0.2}))
    for result in both:
        result.page = tmp_path / f"{result.name}.html"
        result.page.touch()
    index = written(both)
    assert "earlier runs" not in index
    # Of a claim with several parts the index says which of them its effect is.
    two, one = (index.split(f'<tr id="{name}">')[1].split("</tr>")[0] for name in ("B2", "B3"))
    assert '<td class="number">gain: +26 points<br>' in two
    assert '<td class="number">+26 points<br>' in one
    assert "1 seed × 1 item<" in one
    written(both[:1])
    now, earlier = written(both[:1]).split("From earlier runs")  # a run writes it several times
    assert '<a href="01_base_model_problem.html">' in now
    assert '<a href="02_data.html">' in earlier
    assert "Kept from earlier runs: D1." in earlier
    both[1].page.unlink()
    assert "From earlier runs" not in written(both[:1])


def test_a_record_is_not_changed_by_hand():
    with pytest.raises(AttributeError, match="cannot assign"):
        make_result(*FIRST).records["B3"].estimates = {}
