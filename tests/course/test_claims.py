"""The ledger: what is claimed, how it is judged, and that a verdict can only be measured."""

import dataclasses
import inspect
import json
import random

import pandas as pd
import pytest

from sftlab.course import ledger, rules
from sftlab.course.ledger import (
    COLUMNS,
    Record,
    read_records,
    record,
    records_folder,
    rows,
    stored_records,
)
from sftlab.course.rules import ClaimsError, Part, claims, in_unit
from sftlab.measure import Estimate, computed, difference, mean

IDS = """
    B1 B2 B3 B4 B5 B6 B7 B8 B9
    D1 D2 D3 D4 D5 D6 D7 D8 D9 D10 D11 D12 D13 D14 D15
    T1 T2 T3 T4 T5 T6
    R1 R2 R3 R4 R5 R6 R7 R8 R9 R10 R11 R12
    L1 L2 L3 L4 L5 L6 L7 L8 L9
    F1 F2 F3 F4 F5 F6 F7
    E1 E2 E3 E4 E5 E6 E7 E8 E9 E10 E11
    S1 S2 S3 S4 S5
    H1 H2 H3 H4 H5 H6
    C1 C2 C3
    A1 A2 A3 A4
    X1 X2 X3 X4 X5
""".split()
TOML = """
[B3]
claim = "Tuning wins."
source = "P V"
notebook = "01_base_model_problem"
expected = "supported"
[[B3.rule]]
part = "gain"
measures = "One minus the other."
unit = "difference of shares"
at_least = 0.1
"""


def estimate(value=0.34, low=0.28, high=0.41, *, parts=1, inner=None, **others):
    others = {"seeds": 2, "by_seed": (low, high), "items": 150, "entities": 40} | others
    return Estimate(
        value=value, low=low, high=high, level=1 - 0.05 / parts, inner=inner or (low, high),
        method="cluster bootstrap", **others,
    )  # fmt: skip


def part(kind, bound, unit="difference of shares"):
    return Part(name="gain", measures="x", unit=unit, kind=kind, bound=bound)


@pytest.fixture
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("SFTLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SFTLAB_RECORDS", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def other_rule(monkeypatch):
    """Call it to give a claim another bound, as an edit of claims.toml would."""

    def change(claim_id, bound):
        known = dict(claims())
        rule = (known[claim_id].rule[0].model_copy(update={"bound": bound}),)
        known[claim_id] = known[claim_id].model_copy(update={"rule": rule})
        for module in (rules, ledger):
            monkeypatch.setattr(module, "claims", lambda: known)

    return change


def ledger_of_the_cache():
    return {row["id"]: row for row in rows(stored_records())}


def test_lesson_01_keeps_its_committed_bounds():
    bounds = {
        (claim_id, p.name): (p.kind, p.bound)
        for claim_id, claim in claims().items()
        for p in claim.rule
        if claim.notebook == "01_base_model_problem"
    }
    assert bounds == {
        ("B1", "continued"): ("at_least", 0.5),
        ("B1", "answered"): ("at_most", 0.1),
        ("B2", "gain"): ("at_least", 0.25),
        ("B2", "rest"): ("at_least", 0.1),
        ("B3", "gain"): ("at_least", 0.1),
        ("B4", "prompt"): ("at_least", 0.1),
        ("B4", "consistency"): ("at_least", 0.05),
        ("B5", "held out"): ("at_least", 0.5),
        ("B5", "stated"): ("at_least", 0.5),
        ("B5", "unseen"): ("at_most", 0.1),
        ("B6", "gain"): ("at_least", 0.05),
        ("B7", "agreement"): ("at_least", 0.6),
        ("B8", "shorter"): ("at_least", 0.2),
        ("B8", "alike"): ("at_least", 0.1),
        ("B8", "on format"): ("at_least", 0.3),
        ("B9", "two hops"): ("at_most", 0.3),
        ("B9", "gap"): ("at_least", 0.3),
        ("X1", "right context"): ("at_least", 0.05),
    }


def test_the_claims_are_those_of_the_articles():
    assert list(claims()) == IDS
    within = {c.id for c in claims().values() if any(p.kind == "within" for p in c.rule)}
    assert within >= {"D10", "T2", "R3", "R4", "R5", "R7", "L2", "L4"}
    assert {c.id for c in claims().values() if c.not_testable} == {"A3", "A4", "D12", "L5"}
    assert claims()["B3"].quoted.startswith("25-40%")
    assert claims()["X1"].expected == "contradicted"


@pytest.mark.parametrize(
    ("kind", "bound", "low", "high", "inner", "expected"),
    [
        ("at_least", 0.1, 0.1, 0.3, (0.12, 0.28), "supported"),
        ("at_least", 0.1, 0.0999, 0.3, (0.12, 0.28), "inconclusive"),
        ("at_least", 0.1, -0.2, 0.1, (-0.1, 0.0), "inconclusive"),
        ("at_least", 0.1, -0.2, 0.0999, (-0.1, 0.0), "contradicted"),
        ("at_most", 0.1, 0.0, 0.1, (0.01, 0.09), "supported"),
        ("at_most", 0.1, 0.0, 0.1001, (0.01, 0.09), "inconclusive"),
        ("at_most", 0.1, 0.1, 0.3, (0.12, 0.28), "inconclusive"),
        ("at_most", 0.1, 0.1001, 0.3, (0.12, 0.28), "contradicted"),
        # The inner interval decides sameness, though the outer one crosses the margin.
        ("within", 0.05, -0.06, 0.02, (-0.049, 0.01), "supported"),
        ("within", 0.05, -0.06, 0.02, (-0.051, 0.01), "inconclusive"),
        ("within", 0.05, -0.01, 0.06, (0.0, 0.049), "supported"),
        ("within", 0.05, 0.05, 0.2, (0.06, 0.19), "inconclusive"),
        ("within", 0.05, 0.0501, 0.2, (0.06, 0.19), "contradicted"),
        ("within", 0.05, -0.2, -0.0501, (-0.19, -0.06), "contradicted"),
        ("within", 0.05, -0.3, 0.3, (-0.25, 0.25), "inconclusive"),
    ],
)
def test_verdict_at_the_boundaries(kind, bound, low, high, inner, expected):
    found = estimate((low + high) / 2, low, high, inner=inner)
    assert part(kind, bound).judge(found) == expected


@pytest.mark.parametrize("bound", [2.0, 4.0])
def test_a_number_that_all_runs_gave_alike_decides_nothing(bound):
    runs = pd.DataFrame({"seed": range(3), "times": 3.0})
    found = mean(runs, value="times", entity=None)
    assert (found.low, found.high) == (3.0, 3.0)
    rule = part("at_least", bound, "ratio")
    assert rule.judge(found) == "inconclusive"
    assert "all runs gave this number" in rule.sentence(found)
    assert rule.judge(computed(3.0)) == ("supported" if bound == 2.0 else "contradicted")


def test_a_claim_needs_all_its_parts():
    assert rules.combine(["supported", "supported"]) == "supported"
    assert rules.combine(["supported", "inconclusive"]) == "inconclusive"
    assert rules.combine(["inconclusive", "contradicted", "supported"]) == "contradicted"


def test_the_deciding_part_is_named_with_its_numbers(own_cache):
    wide = {"held out": estimate(0.9, 0.8, 0.95, parts=3), "unseen": estimate(0, 0, 0.05, parts=3)}
    narrow = record("B5", {**wide, "stated": estimate(0.6, 0.51, 0.7, parts=3)}, profile="tiny")
    assert narrow.verdict == "supported"
    assert narrow.deciding.name == "stated"  # the interval nearest to its bound
    assert "All 3 parts hold" in narrow.reason
    assert "+60 points (+51 to +70)" in narrow.reason
    failed = record("B5", {**wide, "stated": estimate(0.3, 0.2, 0.4, parts=3)}, profile="tiny")
    assert (failed.verdict, failed.deciding.name) == ("contradicted", "stated")
    assert "at least +50 points" in failed.reason
    partly = record("A4", estimate(0.8, 0.7, 0.9), profile="tiny")
    assert partly.verdict == "supported"
    assert "Not testable here: 1.3B against 175B" in partly.reason


def test_shuffled_labels_do_not_support_a_claim(own_cache):
    """The same frames with right and wrong dealt out at random: the effect is gone."""
    draw = random.Random(0)
    rows = [
        {"country": f"c{c}", "seed": s, "tuned": c % 10 != 0, "prompt": c % 2 == 0}
        for c in range(40)
        for s in range(3)
    ]

    def judged(rows):
        tuned, prompt = (
            pd.DataFrame(
                [{"country": r["country"], "seed": r["seed"], "right": r[k]} for r in rows]
            )
            for k in ("tuned", "prompt")
        )
        return record("B3", difference(tuned, prompt), profile="tiny").verdict

    assert judged(rows) == "supported"
    deck = [row[k] for row in rows for k in ("tuned", "prompt")]
    draw.shuffle(deck)
    sabotaged = [r | {"tuned": deck.pop(), "prompt": deck.pop()} for r in rows]
    assert judged(sabotaged) in ("contradicted", "inconclusive")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('source = "P V"', 'source = "P V"\nverdict = "supported"', "B3: verdict: Extra inputs"),
        ("at_least = 0.1", "at_least = 0.1\nbound = 2\nx = 1", "rule 0 x: Extra inputs"),
        ('claim = "Tuning wins."', "", "B3: claim: Field required"),
        ('claim = "Tuning wins."', "claim = 3", "B3: claim: Input should be a valid string"),
        ('measures = "One minus the other."', "", "rule 0 measures: Field required"),
        ('source = "P V"', 'source = "P Z"', "B3: source 1: Input should be 'P'"),
        ("01_base_model_problem", "01_base", "B3: notebook: Input should be '00_start_here'"),
        ('"supported"', '"proven"', "B3: expected: Input should be 'supported'"),
        ('"supported"', '"not testable here"', "is expected of claims without a rule"),
        ("at_least = 0.1", "", "part 'gain': give exactly one of at_least, at_most, within"),
        ("at_least = 0.1", "at_least = 0.1\nwithin = 0.2", "part 'gain': give exactly one of"),
        ("at_least = 0.1", 'at_least = "big"', "bound: Input should be a valid number"),
        ("at_least = 0.1", "at_least = nan", "bound: Input should be a finite number"),
        ("at_least = 0.1", "at_least = 10", "at_least is 10.0, beyond any difference of shares"),
        ("at_least = 0.1", "within = -0.1", "write a margin above zero"),
        ('"difference of shares"', '"percent"', "unit: Input should be 'share'"),
        (TOML[TOML.index("[[") :], "", "B3: Value error, no rule"),
        (TOML[TOML.index("[[") :], 'rule = "more"', "B3: "),
        (TOML, TOML + TOML[TOML.index("[[") :], "two parts have one name: gain, gain"),
        (TOML, TOML + TOML, "cannot be read as TOML"),
        (TOML, 'B3 = "wins"', "B3: "),
    ],
)
def test_mistakes_in_the_file_name_id_and_key(tmp_path, old, new, said):
    file = tmp_path / "claims.toml"
    file.write_text(TOML)
    assert claims(file)["B3"].rule[0].bound == 0.1
    assert old in TOML
    file = tmp_path / "mistaken.toml"
    file.write_text(TOML.replace(old, new))
    with pytest.raises(ClaimsError) as error:
        claims(file)
    assert said in str(error.value)


def test_a_claim_without_a_rule_is_not_testable_and_cannot_be_recorded(tmp_path):
    file = tmp_path / "claims.toml"
    text = TOML[: TOML.index("[[")].replace('"supported"', '"not testable here"')
    file.write_text(text + 'not_testable = "no such card"')
    claim = claims(file)["B3"]
    assert (claim.rule, claim.comparisons, claim.level) == ((), 1, 0.95)
    with pytest.raises(ClaimsError, match="nothing can be recorded"):
        Record(claim=claim, estimates={}, profile="tiny")


@pytest.mark.parametrize(
    ("claim_id", "parts", "said"),
    [
        ("B33", estimate(), "no claim 'B33'.*nearest: B3"),
        ("B2", estimate(), "B2 has 2 parts; give a dict with 'gain', 'rest'"),
        ("B2", {"gain": estimate(parts=2)}, "has the parts 'gain', 'rest'; got 'gain'"),
        ("B3", {"gain": estimate(), "win": estimate()}, "has the parts 'gain'; got 'gain', 'win'"),
        ("B3", 0.34, "B3, part 'gain': expected the Estimate.*got float"),
        (
            "B2",
            {"gain": estimate(), "rest": estimate()},
            r"interval at 95.00%.*must be at 97.50%: pass comparisons=2",
        ),
        ("B3", estimate(parts=2), "must be at 95.00%: pass comparisons=1"),
        ("B3", estimate(34, 28, 41), "is 34, which no difference of shares can be"),
        ("B3", estimate(unit="share"), "mean gives a share, difference gives points"),
    ],
)
def test_what_does_not_fit_the_rule_is_refused(own_cache, claim_id, parts, said):
    with pytest.raises(ClaimsError, match=said):
        record(claim_id, parts, profile="tiny")
    assert stored_records() == {}


def test_no_function_takes_a_verdict_and_no_field_holds_one(own_cache):
    for module in (ledger, rules):
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if function.__module__ == module.__name__ and name != "combine":
                assert "verdict" not in inspect.signature(function).parameters, name
    assert not {"verdict", "reason"} & {field.name for field in dataclasses.fields(Record)}
    made = record("B3", estimate(), profile="tiny")
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.verdict = "contradicted"


def test_a_verdict_typed_into_the_file_is_not_believed(own_cache):
    record("B3", estimate(0.0, -0.02, 0.02), profile="tiny")
    file = records_folder("tiny") / "B3.json"
    text = file.read_text()
    assert text.count('"contradicted"') == 2  # the claim's and the part's
    file.write_text(text.replace('"contradicted"', '"supported"'))
    assert ledger_of_the_cache()["B3"]["verdict"] == "contradicted"


def test_a_record_comes_back_as_it_was_made(own_cache, monkeypatch, tmp_path):
    monkeypatch.setenv("SFTLAB_RECORDS", str(tmp_path / "lesson"))
    made = record("B3", estimate(), profile="tiny", note="one reader")
    assert stored_records() == {"B3": made}
    assert read_records(tmp_path / "lesson") == {"B3": made}
    data = json.loads((own_cache / "claims" / "tiny" / "B3.json").read_text())
    assert data["parts"][0]["estimate"]["by_seed"] == [0.28, 0.41]
    assert data["parts"][0]["at_least"] == 0.1
    assert {"profile", "notebook", "verdict", "reason", "rule", "versions", "when"} <= set(data)
    assert data["versions"]["python"]
    assert [p.name for p in (own_cache / "claims" / "tiny").iterdir()] == ["B3.json"]


def test_a_record_under_another_rule_does_not_count(own_cache, other_rule):
    record("B3", estimate(), profile="tiny")
    other_rule("B3", 0.2)
    row = ledger_of_the_cache()["B3"]
    assert (row["verdict"], row["effect"]) == ("not measured", None)
    assert row["reason"] == "its rule has changed since it was measured: run lesson 01"


@pytest.mark.parametrize("text", ["{", "[]", '{"id": "B3"}', '{"id": "Q1", "rule": ""}'])
def test_a_damaged_record_says_so(own_cache, text):
    folder = records_folder("tiny")
    folder.mkdir(parents=True)
    (folder / "B3.json").write_text(text)
    assert ledger_of_the_cache()["B3"]["reason"].endswith(": run lesson 01")


def test_profiles_are_kept_apart_whatever_they_are_called(own_cache):
    names = ["tiny", "owner/model", "owner-model", "/there/model", "../model"]
    folders = {records_folder(name) for name in names}
    assert len(folders) == len(names)
    assert all(folder.parent == own_cache / "claims" for folder in folders)


def test_rows_have_the_columns_and_a_reason_for_what_is_missing(own_cache, tmp_path):
    for name in ("01_base_model_problem", "02_data"):
        (tmp_path / f"{name}.ipynb").touch()
    made = rows({"B3": record("B3", estimate(), profile="tiny")}, notebooks=tmp_path)
    assert [row["id"] for row in made] == IDS
    assert all(set(COLUMNS) <= set(row) for row in made)
    found = {row["id"]: row for row in made}
    b3 = [found["B3"][name] for name in ("effect", "low", "high", "seeds", "items", "unit")]
    assert b3 == [0.34, 0.28, 0.41, 2, 150, "difference of shares"]
    assert (found["B1"]["verdict"], found["B1"]["reason"]) == ("not measured", "run lesson 01")
    assert found["D1"]["reason"] == "run lesson 02"
    assert found["R1"]["reason"] == "lesson 05 is not written yet"


@pytest.mark.parametrize(
    ("claim_id", "value", "surprise"),
    [
        ("B3", 0.3, False),
        ("B3", 0.1, False),  # inconclusive
        ("B3", 0.0, True),
        ("X1", 0.0, False),
        ("X1", 0.3, True),
    ],
)
def test_only_the_opposite_of_the_expected_is_a_surprise(own_cache, claim_id, value, surprise):
    made = record(claim_id, estimate(value, value - 0.02, value + 0.02), profile="tiny")
    assert bool(made.surprise) == surprise
    assert not surprise or made.verdict in made.surprise


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.813, "share", "81%"),
        (0.34, "difference of shares", "+34 points"),
        (-0.025, "difference of shares", "−2.5 points"),
        (0.01, "difference of shares", "+1 point"),
        (0.0, "difference of shares", "0 points"),
        (0.0002, "difference of shares", "+0.02 points"),
        (0.998, "difference of shares", "+99.8 points"),
        (0.123, "relative difference", "+12%"),
        (-0.31, "nats", "−0.31 nats"),
        (-0.0012, "nats", "−0.0012 nats"),
        (-2.9e-09, "nats", "0 nats"),
        (1.5, "ratio", "1.5 times"),
        (-0.5, "correlation", "−0.50"),
        (13.2, "GB", "13.2 GB"),
    ],
)
def test_effects_are_written_in_their_unit(value, unit, text):
    assert in_unit(value, unit) == text
