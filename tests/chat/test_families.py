"""The built-in families: what they write, character for character, beside what TRL installs."""

import re
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from sftlab.chat import FAMILIES, assistant_spans, find_template


def said(*turns):
    """Messages from `role: content` lines; u, a and s are short for user, assistant, system."""
    names = {"u": "user", "a": "assistant", "s": "system"}
    parts = (turn.split(": ", 1) for turn in turns)
    return [{"role": names.get(role, role), "content": content} for role, content in parts]


CHAT = said("u: Hi", "a: Ho", "u: And?", "a: Yes")
SYSTEM = said("s: Be brief.") + CHAT

FORMS = tomllib.loads(Path(__file__).with_name("written.toml").read_text(encoding="utf-8"))


def rendered(text, messages, *, bos="", eos="", ask=False):
    """The text that transformers makes of a template, and the character spans that it marks."""
    texts, marked = render_jinja_template(
        conversations=[messages],
        chat_template=text,
        add_generation_prompt=ask,
        return_assistant_tokens_mask=not ask,
        bos_token=bos,
        eos_token=eos,
    )
    return texts[0], marked[0] if marked else []


def of_family(name, messages, *, ask=False):
    family = FAMILIES[name]
    return rendered(family.text, messages, bos=family.bos_token, eos=family.eos_token, ask=ask)


@pytest.mark.parametrize("name", FAMILIES)
def test_two_turns_and_what_is_marked(name):
    text, spans = of_family(name, CHAT)
    shown = text
    for start, end in reversed(spans):
        shown = f"{shown[:start]}[{shown[start:end]}]{shown[end:]}"
    assert shown == FORMS[name]["written"]


@pytest.mark.parametrize("name", FAMILIES)
def test_the_lab_renders_and_masks_them_as_they_are_marked(name):
    """Two ways to the same spans: the marks of the template, and the lab's masks without them."""
    template = find_template(name)
    for messages in (CHAT, said("u: Ho", "a: Ho"), said("u: Ü 🙂", "a: a\nb </b>", "u: x", "a: x")):
        text, marked = of_family(name, messages)
        assert template.render(messages) == text
        found = assistant_spans(template, messages)
        assert [(span.start, span.end) for span in found.spans] == marked
        assert found.end_of_turn == FAMILIES[name].end()
        assert found.warnings == ()


@pytest.mark.parametrize("name", FAMILIES)
def test_eos_of_another_tokenizer_ends_the_turns_that_eos_ends(name):
    family = FAMILIES[name]
    text, spans = rendered(family.text, CHAT, bos="<B>", eos="<E>")
    assert all(text[:stop].endswith(family.end("<E>")) for _, stop in spans)
    assert ("<E>" in text) == (family.end_of_turn is None)
    assert text.startswith("<B>") == family.writes_bos
    assert text.count("<B>") == family.writes_bos


@pytest.mark.parametrize("name", FAMILIES)
def test_history_is_a_prefix(name):
    """What the model was shown at each step is how the finished conversation begins."""
    whole, _ = of_family(name, CHAT)
    for turns in (1, 3):
        prompt, _ = of_family(name, CHAT[:turns], ask=True)
        assert whole.startswith(prompt)
        assert CHAT[turns]["content"] not in prompt
    assert whole.startswith(of_family(name, CHAT[:2])[0])


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("answer", ["Paris", "the euro.", "12", "- one\n- two"])
def test_the_prompt_s_tokens_are_those_of_training(name, answer, toy_tokenizer):
    """A space that ends the prompt would cut the token that begins the answer in two."""
    template = find_template(name, tokenizer=toy_tokenizer)
    messages = said("u: What is it?", f"a: {answer}")
    trained, asked = (
        toy_tokenizer(text, add_special_tokens=False)["input_ids"]
        for text in (
            template.render(messages),
            template.render(messages[:1], add_generation_prompt=True),
        )
    )
    assert trained[: len(asked)] == asked
    assert len(trained) > len(asked) + 1


@pytest.mark.parametrize("name", FAMILIES)
def test_system_message_is_rendered_or_refused(name):
    if "with_system" in FORMS[name]:
        whole, _ = of_family(name, SYSTEM)
        assert whole.startswith(FORMS[name]["with_system"])
        assert whole.count("Be brief.") == 1
        assert whole.endswith(of_family(name, CHAT)[0][-20:])
    else:
        with pytest.raises(Exception, match="before the user's message"):
            of_family(name, SYSTEM)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_role_without_a_place_is_refused_and_never_dropped(name):
    messages = [*CHAT[:2], {"role": "tool", "content": "42 degrees"}]
    if name in ("chatml", "llama-3"):  # any role is a header there
        assert re.search("tool(<.*>)?\n+42 degrees", of_family(name, messages)[0])
    else:
        with pytest.raises(Exception, match=r"tool|alternate"):
            of_family(name, messages)


@pytest.mark.parametrize("name", FAMILIES)
def test_control_tokens_are_written_and_are_all_markers(name):
    family = FAMILIES[name]
    text, _ = of_family(name, SYSTEM if "with_system" in FORMS[name] else CHAT)
    assert all(token in text for token in family.control_tokens)
    markers = set(re.findall(r"<\|?\w+\|?>|</s>|\[/?INST\]", text))
    assert markers <= {*family.control_tokens, family.bos_token, family.eos_token}
    assert family.end_of_turn in (None, *family.control_tokens)


EQUAL = {
    "llama-3": ("llama3", "llama3_training"),
    "gemma": ("gemma", "gemma_training"),
    "chatml": ("lfm2", "lfm2_training"),
    "phi-3": ("phi3", "phi3_training", "phi3_5"),
}
"""TRL installs none for Mistral's text models, Alpaca, Vicuna or the article's form."""

DIFFERS = {
    ("phi-3", "phi3"): "writes eos behind a conversation that is not asked to go on",
    ("phi-3", "phi3_training"): "the same",
    ("phi-3", "phi3_5"): "the same",
}


@pytest.mark.parametrize(("name", "theirs"), [(n, t) for n, all_ in EQUAL.items() for t in all_])
def test_renders_as_trl_does(name, theirs):
    template = (files("trl") / "chat_templates" / f"{theirs}.jinja").read_text(encoding="utf-8")
    family = FAMILIES[name]
    tokens = {"bos": family.bos_token, "eos": family.eos_token}
    odd = said("u:  \n Grüße 🙂 {{ 1 }} ", "a: \t<b>&amp;</b> 'so' \"x\" \n", "u: ok", "a: ok")
    for messages in (CHAT, odd, said("u: Hi", "a: Ho"), SYSTEM):
        if messages is SYSTEM and "with_system" not in FORMS[name]:
            with pytest.raises(Exception, match="System role not supported"):
                rendered(template, messages, **tokens)
            continue
        ours = rendered(family.text, messages, **tokens)[0]
        expected = rendered(template, messages, **tokens)[0]
        if (name, theirs) in DIFFERS:
            assert expected == ours + family.eos_token
        else:
            assert ours == expected
        asked = [rendered(t, messages[:-1], ask=True, **tokens)[0] for t in (family.text, template)]
        assert asked[0] == asked[1]
