import pytest

from sftlab.data.checks import COLUMNS, LIMITS, checklist
from sftlab.data.rows import RowsError
from sftlab.world import country_examples, example


def value(table, aspect, opening=""):
    chosen = table[(table["aspect"] == aspect) & table["measured"].str.startswith(opening)]
    assert len(chosen) == 1, chosen
    return chosen.iloc[0]["value"]


def test_every_aspect_has_a_line_and_says_what_it_lacks():
    table = checklist(country_examples(30))
    assert list(table) == COLUMNS
    assert tuple(dict.fromkeys(table["aspect"])) == tuple(limit.aspect for limit in LIMITS)
    assert table["reading"].str.len().min() > 10
    unmeasured = table[table["value"].isna()]
    assert unmeasured["reading"].str.startswith("not measured: give `").all()
    assert set(unmeasured["aspect"]) == {
        "length", "coverage", "balance", "correctness", "safety", "leakage",
    }  # fmt: skip


def test_what_is_wrong_with_a_set_is_counted(toy_tokenizer):
    rows = [
        {**example(prompt, answer), "meta": {"entity": entity, "label": label}}
        for prompt, answer, entity, label in [
            ("Is it good?", "yes", "A", "yes"),
            ("Is it good?", "yes", "A", "yes"),
            ("is it good?", "no", "A", "no"),
            ("Is it bad?", "I cannot say.", "B", "yes"),
            ("Who is it?", "ann@example.com, says Ann", "C", "yes"),
            ("Q: What?", "unsafe", "D", "yes"),
        ]
    ]
    table = checklist(
        rows,
        cover={"entity": "entity"},
        label="label",
        checker=lambda row: row["messages"][1]["content"] != "no",
        unsafe=lambda row: "unsafe" in row["messages"][1]["content"],
        names=["Ann"],
        test=[rows[0]],
        tokenizer=toy_tokenizer,
    )
    assert not table["value"].isna().any()
    assert value(table, "format", "rows with marks") == 1
    assert value(table, "coverage") == 4
    assert value(table, "balance") == 5
    assert value(table, "correctness") == pytest.approx(5 / 6)
    assert value(table, "consistency") == 1
    assert value(table, "safety", "rows that") == 1
    assert value(table, "safety", "answers that refuse") == 1
    assert value(table, "deduplication", "exact") == 1
    assert value(table, "privacy") == 2
    assert value(table, "leakage") == 1
    assert "'yes' has 5 rows, 'no' 1" in table.set_index("aspect").loc["balance", "reading"]


def test_errors_come_through():
    with pytest.raises(RowsError, match="the list is empty"):
        checklist([])
    with pytest.raises(RowsError, match=r"rows\[0\] has no 'country'"):
        checklist([example("a", "b")], cover={"country": "country"})
    with pytest.raises(RowsError, match="test: the list is empty"):
        checklist([example("a", "b")], test=[])
