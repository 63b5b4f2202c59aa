from dataclasses import replace

import pytest
from huggingface_hub import DatasetCard

from sftlab.data.cards import About, check_card, write_card
from sftlab.data.quality import checklist
from sftlab.world import example

ROWS = [
    {**example(f"Question {n}?", f"Answer {n}."), "meta": {"region": "north" if n else "a|b"}}
    for n in range(10)
]
WHOLE = About(
    name="Countries", purpose="To teach.", origin="A table, version 1.", collection="Generated.",
    license="mit", rights="The table is our own.", labeller="Its authors.", labelling="Looked up.",
    preparation="Nothing was dropped.", bias="The north leads.", personal="None.",
    gaps="The facts are of one year.", languages=("en",),
)  # fmt: skip
FIELDS = {
    "purpose": "Purpose", "origin": "Provenance: Origin", "collection": "Provenance: Collection",
    "labeller": "Labelling: Labeller", "labelling": "Labelling: Labelling", "bias": "Bias",
    "preparation": "Preparation", "personal": "Personal data", "gaps": "Gaps",
}  # fmt: skip


def card(about=WHOLE, rows=ROWS, **options):
    options = {"bias_by": {"region": "region"}, "checks": checklist(rows)} | options
    return write_card(rows, about, **options)


def test_a_whole_card_lacks_nothing_and_has_the_front_matter_that_the_hub_reads():
    whole = card()
    assert check_card(whole) == []
    assert DatasetCard(str(whole)).data.to_dict() == {
        "language": ["en"],
        "license": "mit",
        "size_categories": ["n<1K"],
        "task_categories": ["text-generation"],
        "pretty_name": "Countries",
    }


@pytest.mark.parametrize("field", FIELDS)
def test_each_thing_left_out_is_named(field):
    (missing,) = check_card(card(replace(WHOLE, **{field: ""})))
    assert missing.what == FIELDS[field]
    assert "AI Act" in missing.required_by
    assert f"under '## {FIELDS[field].split(':')[0]}'" in missing.remedy


def test_nothing_stated_is_all_named():
    found = {missing.what for missing in check_card(card(About(name="x"), bias_by={}))}
    front = {"front matter: license", "front matter: language"}
    assert found == {*FIELDS.values(), "Licence: Licence", "Bias: counts", *front}


def test_counts_come_from_the_data():
    text = card().text
    assert "| north | 9 | 0.9 |" in text
    assert r"| a\|b | 1 | 0.1 |" in text
    assert "10 rows; SHA-256 of the rows `" in text


def test_personal_data_is_counted_and_never_quoted():
    rows = [example("Mail ann@example.com?", "Yes."), example("Mail ann@example.com?", "No.")]
    text = card(About(name="x"), rows, bias_by={}).text
    assert "| EMAIL | 2 |" in text
    assert "mail [EMAIL]?" in text
    assert "ann@" not in text


@pytest.mark.parametrize(
    ("change", "what", "message"),
    [
        ({"license": "MIT License"}, "front matter: license", "'MIT License' must be an"),
        ({"license": "other"}, "front matter: license_name", "a licence of your own"),
        ({"languages": ("English",)}, "front matter: language", "'English' must be an ISO 639"),
        ({"languages": ()}, "front matter: language", "'' must be an ISO 639"),
    ],
)
def test_front_matter_is_checked(change, what, message):
    found = {one.what: one.remedy for one in check_card(card(replace(WHOLE, **change)))}
    assert message in found[what]
