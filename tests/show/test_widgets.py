"""The decision guide as form, card and table, driven without a browser."""

from html.parser import HTMLParser

import pytest
from IPython.display import HTML

from sftlab.course import ARCHETYPES, Limits, Situation, decide
from sftlab.show.widgets import decision_card, decision_guide, decision_table

BOT = ARCHETYPES["Support bot in house style"]


class Balance(HTMLParser):
    """Fails where a tag is not closed in order."""

    def __init__(self, page):
        super().__init__()
        self.open = []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_card_follows_a_dropdown():
    guide = decision_guide(BOT)
    before = guide.card.value
    assert "Fine-tune" in before
    guide.controls["task"].value = "facts"
    assert guide.card.value != before
    assert "Retrieve" in guide.card.value
    guide.controls["task"].value = "format"
    assert guide.card.value == before


def test_card_follows_a_slider_and_the_tick_beside_it():
    guide = decision_guide(BOT)
    guide.controls["prompt_score"].value = 0.95
    assert guide.advice.choice == "prompt"
    guide.measured["prompt_score"].value = False
    assert guide.situation.prompt_score is None
    assert guide.controls["prompt_score"].disabled
    assert "Measure a prompt first" in guide.card.value


@pytest.mark.parametrize("name", ARCHETYPES)
def test_form_starts_with_the_situation_given(name):
    guide = decision_guide(ARCHETYPES[name])
    assert guide.situation == ARCHETYPES[name]
    assert guide.card.value == decision_card(ARCHETYPES[name]).data


def test_form_keeps_values_that_are_not_among_its_options():
    odd = Situation(
        task="domain", examples=137, prompt_score=0.123, needed_score=1 / 3, stable_weeks=2.5,
        model_billions=1.24, memory_gb=11,
    )  # fmt: skip
    assert decision_guide(odd).situation == odd


def test_every_option_of_every_control_gives_an_advice():
    guide = decision_guide()
    for control in guide.controls.values():
        for option in getattr(control, "options", ()):
            control.value = option[1]
            Balance(guide.card.value)


def test_form_starts_before_anything_is_measured():
    assert decision_guide().advice.choice == "measure a prompt first"


def test_limits_reach_form_card_and_table():
    limits = Limits(format_pilot_examples=4_000, format_reliable_examples=9_000)
    assert decision_guide(BOT, limits=limits).advice.choice == "collect data first"
    assert "Collect data first" in decision_card(BOT, limits=limits).data
    assert "Collect data first" in decision_table({"bot": BOT}, limits=limits).data


def test_card_has_all_that_the_advice_says():
    advice = decide(BOT)
    card = decision_card(advice)
    assert isinstance(card, HTML)
    assert card.data == decision_card(BOT).data
    for text in (*advice.reasons, *advice.next_steps, *map(str, advice.would_change)):
        assert text.replace("'", "&#x27;") in card.data
    Balance(card.data)


def test_table_has_a_row_for_each_situation_and_escapes_names():
    page = decision_table({"<b>bot</b>": BOT, **ARCHETYPES}).data
    assert page.count('scope="row"') == len(ARCHETYPES) + 1
    assert "&lt;b&gt;bot" in page
    Balance(page)


def test_static_pictures_set_ink_and_ground_and_need_no_network():
    for page in (decision_card(BOT).data, decision_table(ARCHETYPES).data):
        assert "var(--jp-ui-font-color1, #222)" in page
        assert "var(--jp-layout-color1, #fff)" in page
        assert "http" not in page
        assert "<script" not in page


def test_no_menu_looks_empty():
    for name, control in decision_guide().controls.items():
        if hasattr(control, "options"):
            assert control.label, name
