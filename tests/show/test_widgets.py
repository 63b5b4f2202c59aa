"""Widgets, driven without a browser; each shows its static twin where there is no kernel."""

import pytest
from IPython.core.formatters import DisplayFormatter
from markupsafe import escape

from sftlab.chat import FAMILIES
from sftlab.course import Situation, decide
from sftlab.show import decision_guide, mask_explorer
from sftlab.show.widgets import PADS, WORDS, decision_card, explore

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


def test_the_card_follows_the_controls_and_shows_all_that_the_advice_says():
    guide = decision_guide()
    assert "Measure a prompt first" in card(guide)
    guide.controls["prompt_score"].value = 0.95
    assert "<strong>Prompt</strong>" in card(guide)
    guide.controls["task"].value = "facts"
    assert "Retrieve" in card(guide)
    advice = decide(Situation(task="facts", examples=200, needed_score=0.9, prompt_score=0.95))
    shown = decision_card(advice)
    assert card(guide) == shown.html
    for text in (*advice.reasons, *advice.next_steps, *map(str, advice.would_change)):
        assert text in shown.text
        assert str(escape(text)) in shown.html


def test_every_option_of_every_control_gives_an_advice():
    guide = decision_guide()
    for control in guide.controls.values():
        for _, value in getattr(control, "options", ()):
            control.value = value
            assert "Next steps" in card(guide)


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
    def broken(*breaks):
        shown, said = explore(toy_tokenizer, MESSAGES, family="chatml", breaks=breaks)
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
    assert "llama-3" in broken("double_bos")[2]


def test_the_explorer_shows_its_choice(toy_tokenizer):
    explorer = mask_explorer(toy_tokenizer)
    chosen = {"family": "gemma", "strategy": "everything", "drop_end": True}
    for name, value in chosen.items():
        explorer.controls[name].value = value
    options = {"family": "gemma", "strategy": "everything", "breaks": ["drop_end"]}
    xray, said = explore(toy_tokenizer, MESSAGES, **options)
    assert said[-1] in explorer.panel.value
    assert explorer.panel.value.endswith(xray.html)
    assert twin(explorer) == (explorer.panel.value, str(xray))
