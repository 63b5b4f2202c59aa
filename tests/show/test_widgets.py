"""Widgets, driven without a browser; each shows its static twin where there is no kernel."""

import json

import pandas as pd
import pytest
from IPython.core.formatters import DisplayFormatter

from sftlab.chat import FAMILIES
from sftlab.course import ARCHETYPES, Limits, Situation, decide
from sftlab.measure import Pair, PairError, mean
from sftlab.show import Point, Rating, decision_guide, map_walker, mask_explorer, votes_sentence
from sftlab.show.explorer import BREAKS, MESSAGES, PADS, STRATEGIES
from sftlab.show.widgets import decision_card, read_votes

BOT = ARCHETYPES["Support bot in house style"]
VIEW = "application/vnd.jupyter.widget-view+json"
TURNS = len(MESSAGES)
ANSWERS = TURNS // 2


def twin(widget):
    """What a notebook's output holds next to the widget's view."""
    data, _ = DisplayFormatter().format(widget)
    assert data[VIEW]["model_id"] == widget.model_id
    return data["text/html"], data["text/plain"]


def test_card_follows_a_menu():
    guide = decision_guide(BOT)
    before = guide.card.value
    assert "Fine-tune" in before
    guide.controls["task"].value = "facts"
    assert "Retrieve" in guide.card.value
    assert "Retrieve" in twin(guide)[1]
    guide.controls["task"].value = "format"
    assert guide.card.value == before == twin(guide)[0]


def test_card_follows_a_slider_and_its_tick():
    guide = decision_guide(BOT)
    guide.controls["prompt_score"].value = 0.95
    assert guide.advice.choice == "prompt"
    guide.measured["prompt_score"].value = False
    assert guide.situation.prompt_score is None
    assert guide.controls["prompt_score"].disabled
    assert "Measure a prompt first" in guide.card.value


def test_form_starts_with_the_situation_given():
    assert decision_guide().advice.choice == "measure a prompt first"
    odd = Situation(
        task="domain", examples=137, prompt_score=0.123, needed_score=1 / 3, stable_weeks=2.5,
        model_billions=1.24, memory_gb=11,
    )  # fmt: skip
    for situation in (odd, *ARCHETYPES.values()):
        guide = decision_guide(situation)
        assert guide.situation == situation
        assert guide.card.value == decision_card(decide(situation)).html
        assert all(getattr(one, "label", "x") for one in guide.controls.values()), "an empty menu"


def test_every_option_of_every_control_gives_an_advice():
    guide = decision_guide()
    for control in guide.controls.values():
        for option in getattr(control, "options", ()):
            control.value = option[1]
            assert guide.advice.choice[1:] in guide.card.value


def test_limits_and_all_that_the_advice_says_reach_the_card():
    limits = Limits(format_pilot_examples=4_000, format_reliable_examples=9_000)
    assert decision_guide(BOT, limits=limits).advice.choice == "collect data first"
    advice = decide(BOT)
    card = decision_card(advice)
    for text in (*advice.reasons, *advice.next_steps, *map(str, advice.would_change)):
        assert text in card.text
        assert text.replace("'", "&#39;") in card.html


def share(*of_twenty):
    rows = [(f"c{c}", s, c < n) for s, n in enumerate(of_twenty) for c in range(20)]
    return mean(pd.DataFrame(rows, columns=["country", "seed", "right"]))


def reading(right):
    rows = [("facts", n < right, 0.5) for n in range(10)]
    return pd.DataFrame(rows, columns=["skill", "right", "nats"]).astype({"right": "boolean"})


def test_a_walk_shows_the_chosen_setting():
    points = {
        "slow": {"0%": Point(share(18, 18), share(19, 19)), "20%": Point(share(16), share(20))},
        "fast": {"0%": Point(share(19), share(2)), "20%": Point(share(10, 12), share(8, 14))},
    }
    every = [(curve, label) for curve, row in points.items() for label in row]
    readings = {at: reading(n) for n, at in enumerate(every)}
    walker = map_walker(points, readings=readings, before=reading(10))
    assert walker.chosen == ("slow", "0%")
    first = walker.map.value
    walker.controls["curve"].value, walker.controls["label"].value = "fast", "20%"
    assert walker.map.value != first
    for cell in ("fast, 20%", "55%", "<td>100%</td>", "<td>30%</td>"):
        assert cell in walker.table.value
    assert twin(walker)[1].count("task") == 4, "the map with every setting"
    with pytest.raises(ValueError, match="no entry for"):
        map_walker(points, readings={}, before=reading(10))


PAIRS = [Pair(question=f"q{n}?", first=f"ours{n}", second=f"<b>{n}</b>") for n in range(6)]


def test_a_run_without_a_person_says_that_nobody_rated(tmp_path):
    widget = Rating(PAIRS, votes=tmp_path / "votes.jsonl")
    assert "Nobody rated: 0 of 6" in twin(widget)[1]
    assert not widget.path.exists()
    assert read_votes(widget.path, PAIRS).empty


def test_votes_are_blind_shuffled_kept_and_counted(tmp_path):
    path = tmp_path / "below" / "votes.jsonl"
    widget = Rating(PAIRS, votes=path, seed=1, ours="the run")
    shown, left = [], 0
    while widget.place is not None:
        shown.append(widget.place)
        assert "win" not in widget.said.value
        assert "<b>" not in widget.left.value + widget.right.value, "answers are escaped"
        on_left = f"ours{widget.place}" in widget.left.value
        left += on_left
        if len(shown) == 3:  # another kernel goes on where the votes end
            widget = Rating(PAIRS, votes=path, seed=1, ours="the run")
            assert widget.place == shown[-1]
        widget.vote(1.0 if on_left else 0.0)
    assert sorted(shown) == list(range(6)) != shown
    assert left == 3, "half of ours stand on the left"
    votes = read_votes(path, PAIRS)
    assert list(votes["won"]) == [1] * 6
    assert sorted(votes["shown_first"]) == [0, 0, 0, 1, 1, 1]
    said = votes_sentence(path, PAIRS, ours="the run")
    assert "6 of 6 pairs are rated: the run wins 100%" in said
    assert all(button.disabled for button in widget.buttons.values())
    with pytest.raises(PairError, match="all pairs are rated"):
        widget.vote(1.0)
    assert len(path.read_text().splitlines()) == 6


def test_buttons_vote(tmp_path):
    widget = Rating(PAIRS[:2], votes=tmp_path / "votes.jsonl")
    widget.buttons["no difference"].click()
    assert list(read_votes(widget.path, PAIRS)["won"]) == [0.5]
    assert "too few" in votes_sentence(widget.path, PAIRS)


WON_7 = {"question": "q", "first": "", "second": "", "won": 7, "swapped": False}


@pytest.mark.parametrize("line", ["{", '{"won": 1}', "[]", json.dumps(WON_7)])
def test_broken_votes_are_named(tmp_path, line):
    path = tmp_path / "votes.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(PairError, match="line 1 is not a vote"):
        read_votes(path, PAIRS)


def test_mistakes_of_rating(tmp_path):
    with pytest.raises(PairError, match="pairs is empty"):
        Rating([], votes=tmp_path / "v")
    with pytest.raises(PairError, match=r"must be 1, 0\.5 or 0, got 0\.7"):
        Rating(PAIRS, votes=tmp_path / "v").vote(0.7)


@pytest.fixture
def explorer(toy_tokenizer):
    return mask_explorer(toy_tokenizer)


def choose(explorer, **values):
    for name, value in values.items():
        explorer.controls[name].value = value
    return explorer.xray


def ends(xray, text):
    return [token.supervised for token in xray.tokens if token.text == text]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_and_toggle_is_shown(explorer, family):
    sound = choose(explorer, family=family)
    assert sound.template == family
    assert "It learns to stop" in explorer.verdict.value
    changes = {
        "drop_end": (-ANSWERS, 0),
        "pad_is_eos": (-ANSWERS, PADS),
        "double_bos": (0, int(FAMILIES[family].writes_bos)),
        "mask_nothing": (sound.total + PADS - sound.supervised, PADS),
    }
    assert changes.keys() == BREAKS.keys()
    for name, change in changes.items():
        shown = choose(explorer, **{name: True})
        assert explorer.picture.value == shown.html
        assert (shown.supervised - sound.supervised, shown.total - sound.total) == change
        assert ("to stop as well" in explorer.verdict.value) == (name == "double_bos")
        assert choose(explorer, **{name: False}) == sound
    assert twin(explorer)[0].endswith(sound.html)


def test_dropping_the_end_takes_the_ends_only(explorer):
    assert ends(explorer.xray, "<|im_end|>") == [False, True] * ANSWERS
    kept = [t.supervised for t in explorer.xray.tokens if t.text != "<|im_end|>"]
    shown = choose(explorer, drop_end=True)
    assert ends(shown, "<|im_end|>") == [False] * TURNS
    assert [t.supervised for t in shown.tokens if t.text != "<|im_end|>"] == kept


def test_padding_that_is_the_end_takes_every_end(explorer, toy_tokenizer):
    shown = choose(explorer, pad_is_eos=True)
    assert [token.text for token in shown.tokens[-PADS:]] == ["<|im_end|>"] * PADS
    assert ends(shown, "<|im_end|>") == [False] * (TURNS + PADS)
    assert f"{ANSWERS} ends of turn" in explorer.verdict.value
    choose(explorer, drop_end=True)
    assert "not supervised anyway" in explorer.verdict.value
    both = choose(explorer, drop_end=False, mask_nothing=True)
    assert both.total - both.supervised == TURNS + PADS
    shown = choose(explorer, pad_is_eos=False)
    assert shown.supervised == shown.total
    assert [token.id for token in shown.tokens[-PADS:]] == [toy_tokenizer.pad_token_id] * PADS


def test_two_bos_where_the_template_writes_one(explorer, toy_tokenizer):
    shown = choose(explorer, family="llama-3", double_bos=True)
    assert [token.id for token in shown.tokens[:2]] == [toy_tokenizer.bos_token_id] * 2
    assert not shown.tokens[0].supervised
    choose(explorer, family="chatml")
    assert "llama-3" in explorer.verdict.value


def test_strategies_and_starts(explorer):
    counts = {name: choose(explorer, strategy=name).supervised for name in STRATEGIES}
    assert 0 < counts["last"] < counts["all"] < counts["everything"] == explorer.xray.total
    assert explorer.controls["start"].disabled
    last = [token.text for token in choose(explorer, strategy="last").tokens if token.supervised]
    assert "".join(last) == "Rome.<|im_end|>"
    content = choose(explorer, family="vicuna", strategy="all")
    generation = choose(explorer, start="generation")
    # The space between `ASSISTANT:` and the answer is written by the model; in a byte-level
    # vocabulary it is a part of the answer's first token.
    assert generation.spans[0].start == content.spans[0].start - 1
    assert generation.text[generation.spans[0].start] == " "


def test_a_refusal_is_shown_and_left_again(toy_tokenizer):
    explorer = mask_explorer(
        toy_tokenizer, messages=[{"role": "system", "content": "<i>"}, *MESSAGES]
    )
    assert choose(explorer, family="gemma") is None
    assert explorer.picture.value == ""
    assert "Refused" in explorer.verdict.value
    assert "row 0" not in explorer.verdict.value
    assert choose(explorer, family="chatml").supervised > 0
