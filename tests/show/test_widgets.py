"""Widgets, driven without a browser; each shows its static twin where there is no kernel."""

import json

import pytest
from IPython.core.formatters import DisplayFormatter
from markupsafe import escape

from sftlab.chat import FAMILIES
from sftlab.course import ARCHETYPES, Limits, Situation, decide
from sftlab.measure import Pair, PairError
from sftlab.show import Rating, decision_guide, map_walker, mask_explorer, votes_sentence
from sftlab.show.widgets import PADS, WORDS, decision_card, explore, read_votes

BOT = ARCHETYPES["Support bot in house style"]
VIEW = "application/vnd.jupyter.widget-view+json"
MESSAGES = WORDS["messages"]
ANSWERS = len(MESSAGES) // 2


def twin(widget):
    """What a notebook's output holds next to the widget's view."""
    data, _ = DisplayFormatter().format(widget)
    assert data[VIEW]["model_id"] == widget.model_id
    return data["text/html"], data["text/plain"]


def card(guide):
    """The card of a form, which its twin shows too."""
    assert guide.panel.value == twin(guide)[0]
    return guide.panel.value


def test_card_follows_menus_sliders_and_ticks():
    guide = decision_guide(BOT)
    before = card(guide)
    assert "Fine-tune" in before
    guide.controls["task"].value = "facts"
    assert "Retrieve" in card(guide)
    guide.controls["task"].value = "format"
    assert card(guide) == before
    guide.controls["prompt_score"].value = 0.95
    assert "<strong>Prompt</strong>" in card(guide)
    guide.controls["prompt_score"].value = -1
    assert "Measure a prompt first" in card(guide)
    limits = Limits(format_pilot_examples=4_000, format_reliable_examples=9_000)
    assert "Collect data first" in card(decision_guide(BOT, limits=limits))


def test_form_starts_with_the_situation_given_and_shows_all_that_the_advice_says():
    assert "Measure a prompt first" in card(decision_guide())
    odd = {"model_billions": 1.24, "memory_gb": 11, "stable_weeks": 2.5, "needed_score": 1 / 3}
    odd = Situation(task="domain", examples=137, prompt_score=0.123, **odd)
    for situation in (odd, *ARCHETYPES.values()):
        guide, advice = decision_guide(situation), decide(situation)
        shown = decision_card(advice)
        assert card(guide) == shown.html
        assert all(getattr(one, "label", "x") for one in guide.controls.values()), "an empty menu"
        for text in (*advice.reasons, *advice.next_steps, *map(str, advice.would_change)):
            assert text in shown.text
            assert str(escape(text)) in shown.html


def test_every_option_of_every_control_gives_an_advice():
    guide = decision_guide()
    for control in guide.controls.values():
        for _, value in getattr(control, "options", ()):
            control.value = value
            assert "Next steps" in card(guide)


def test_a_walk_shows_the_chosen_setting(points, reading):
    every = [(curve, label) for curve, row in points.items() for label in row]
    readings = {at: reading(facts=n / 10) for n, at in enumerate(every)}
    walker = map_walker(points, readings=readings, before=reading(facts=1))
    first = walker.panel.value
    walker.controls["curve"].value, walker.controls["label"].value = "fast", "20%"
    assert walker.panel.value.partition("<table")[0] != first.partition("<table")[0]
    for cell in ("fast, 20%", "55%", "<td>100%</td>", "<td>30%</td>"):
        assert cell in walker.panel.value
    assert twin(walker)[1].count(" percent task ") == 4, "the map with every setting"


PAIRS = [Pair(question=f"q{n}?", first=f"ours{n}", second=f"<b>{n}</b>") for n in range(6)]


def test_votes_are_blind_shuffled_kept_and_counted(tmp_path):
    path = tmp_path / "below" / "votes.jsonl"
    widget = Rating(PAIRS, votes=path, seed=1, ours="the run")
    assert "Nobody rated: 0 of 6" in twin(widget)[1]
    assert not path.exists()
    shown, left = [], 0
    while widget.place is not None:
        shown.append(widget.place)
        page = widget.panel.value
        assert "wins" not in page
        assert "<b>" not in page, "answers are escaped"
        on_left = page.index(f"ours{widget.place}") < page.index("&lt;b&gt;")
        left += on_left
        if len(shown) == 3:  # another kernel goes on where the votes end
            widget = Rating(PAIRS, votes=path, seed=1, ours="the run")
            assert widget.place == shown[-1]
        widget.buttons[f"{'left' if on_left else 'right'} is better"].click()
    assert sorted(shown) == list(range(6)) != shown
    assert left == 3, "half of ours stand on the left"
    votes = read_votes(path, PAIRS)
    assert list(votes["won"]) == [1] * 6
    assert sorted(votes["shown_first"]) == [0, 0, 0, 1, 1, 1]
    assert "6 of 6 pairs are rated: the run wins 100%" in widget.panel.value
    assert all(button.disabled for button in widget.buttons.values())
    assert len(path.read_text().splitlines()) == 6


def test_a_tie_counts_half_and_one_vote_is_too_few(tmp_path):
    widget = Rating(PAIRS[:2], votes=tmp_path / "votes.jsonl")
    widget.buttons["no difference"].click()
    assert list(read_votes(widget.path, PAIRS)["won"]) == [0.5]
    assert "too few" in votes_sentence(widget.path, PAIRS)
    with pytest.raises(PairError, match="pairs is empty"):
        Rating([], votes=widget.path)


WON_7 = {"question": "q", "first": "", "second": "", "won": 7, "swapped": False}


@pytest.mark.parametrize("line", ["{", '{"won": 1}', "[]", json.dumps(WON_7)])
def test_broken_votes_are_named(tmp_path, line):
    path = tmp_path / "votes.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(PairError, match="line 1 is not a vote"):
        read_votes(path, PAIRS)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_each_toggle_changes_in_every_family(toy_tokenizer, family):
    sound, said = explore(toy_tokenizer, MESSAGES, family=family)
    assert "It learns to stop as well." in said
    changes = {
        "drop_end": (-ANSWERS, 0),
        "pad_is_eos": (-ANSWERS, PADS),
        "double_bos": (0, int(FAMILIES[family].writes_bos)),
        "mask_nothing": (sound.total + PADS - sound.supervised, PADS),
    }
    assert changes.keys() == WORDS["breaks"].keys()
    for name, change in changes.items():
        shown, said = explore(toy_tokenizer, MESSAGES, family=family, breaks=[name])
        assert (shown.supervised - sound.supervised, shown.total - sound.total) == change
        assert ("It learns to stop as well." in said) == (name == "double_bos")


def test_what_breaks_do_to_ends_and_padding(toy_tokenizer):
    def broken(*breaks, family="chatml"):
        shown, said = explore(toy_tokenizer, MESSAGES, family=family, breaks=breaks)
        ends = [token.supervised for token in shown.tokens if token.text == "<|im_end|>"]
        return shown, ends, " ".join(said)

    assert broken()[1] == [False, True] * ANSWERS
    assert broken("drop_end")[1] == [False] * 2 * ANSWERS
    shown, ends, said = broken("pad_is_eos")
    assert [token.text for token in shown.tokens[-PADS:]] == ["<|im_end|>"] * PADS
    assert ends == [False] * (2 * ANSWERS + PADS)
    assert f"{ANSWERS} ends of turn" in said
    assert "not supervised anyway" in broken("pad_is_eos", "drop_end")[2]
    both, ends, _ = broken("pad_is_eos", "mask_nothing")
    assert both.total - both.supervised == len(ends)
    shown, _, _ = broken("mask_nothing")
    assert [token.id for token in shown.tokens[-PADS:]] == [toy_tokenizer.pad_token_id] * PADS
    shown, _, _ = broken("double_bos", family="llama-3")
    assert [token.id for token in shown.tokens[:2]] == [toy_tokenizer.bos_token_id] * 2
    assert not shown.tokens[0].supervised
    assert "llama-3" in broken("double_bos")[2]


def test_strategies_and_starts(toy_tokenizer):
    def shown(**options):
        return explore(toy_tokenizer, MESSAGES, **{"family": "chatml"} | options)[0]

    counts = {name: shown(strategy=name).supervised for name in WORDS["strategies"]}
    total = shown().total
    assert 0 < counts["last"] < counts["all"] < counts["everything"] == total
    last = [token.text for token in shown(strategy="last").tokens if token.supervised]
    assert "".join(last) == "Rome.<|im_end|>"
    content, generation = (shown(family="vicuna", start=at) for at in ("content", "generation"))
    # The space between `ASSISTANT:` and the answer is written by the model; in a byte-level
    # vocabulary it is a part of the answer's first token.
    assert generation.spans[0].start == content.spans[0].start - 1
    assert generation.text[generation.spans[0].start] == " "


def test_the_explorer_shows_its_choice_a_refusal_and_goes_on(toy_tokenizer):
    messages = [{"role": "system", "content": "<i>"}, *MESSAGES]
    explorer = mask_explorer(toy_tokenizer, messages=messages)
    explorer.controls["family"].value = "gemma"
    assert "Refused" in explorer.panel.value
    assert "row 0" not in explorer.panel.value
    assert twin(explorer)[1] == ""
    chosen = {"family": "chatml", "strategy": "everything", "drop_end": True}
    for name, value in chosen.items():
        explorer.controls[name].value = value
    options = {"family": "chatml", "strategy": "everything", "breaks": ["drop_end"]}
    xray, said = explore(toy_tokenizer, messages, **options)
    assert said[-1] in explorer.panel.value
    assert explorer.controls["start"].disabled
    assert explorer.panel.value.endswith(xray.html)
    assert twin(explorer) == (explorer.panel.value, str(xray))
