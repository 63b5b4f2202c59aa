"""Diagrams: well-formed, described in words, and their text fits on a phone and on a page."""

from xml.etree import ElementTree

import pytest

from sftlab.show import diagram

NAMES = "journey shift causal_mask labels generation_prompt padding packing group_split lora"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("name", NAMES.split())
def test_is_well_formed_and_says_in_words_what_it_shows(name):
    shown = diagram(name)
    svg = ElementTree.fromstring(shown.svg)
    assert svg.get("role") == "img"
    labels = {one.get("id"): " ".join(str(one.text).split()) for one in svg}
    wanted = [shown.title, shown.description]
    assert [labels[key] for key in svg.get("aria-labelledby").split()] == wanted
    assert all(one.get("id", name).removeprefix("sl-").startswith(name) for one in svg.iter())
    bundle = shown._repr_mimebundle_()
    assert bundle == {"text/html": shown.svg, "text/plain": str(shown)}
    assert len(shown.description.split()) > 40


def test_another_name_is_refused_with_those_that_there_are():
    with pytest.raises(ValueError, match=r"'shifts'; choose one of causal_mask, .*shift"):
        diagram("shifts")


def test_labels_have_the_numbers_that_the_words_tell():
    texts = [t.text for t in ElementTree.fromstring(diagram("labels").svg).iter(f"{SVG}text")]
    assert texts.count("-100") == 11
    # Once as an id, once as a label; the end of turn and `!` are ids of the question too.
    assert [texts.count(number) for number in ("730", "5", "2")] == [2, 3, 3]
