"""The mask X-ray: what it marks is what is supervised, in HTML and in text; its losses too."""

import re
from html import unescape
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sftlab.chat import FAMILIES, IGNORED, labels
from sftlab.models import load
from sftlab.show import show_mask

HI = [{"role": "user", "content": "Hi <b>"}, {"role": "assistant", "content": "Ho & ho.\nSo"}]
TWO = [
    *HI,
    {"role": "user", "content": "Öl 🙂?"},
    {"role": "assistant", "content": "<script>alert('x')</script>\t\"É\""},
]


class Box(NamedTuple):
    """A token of a card."""

    marked: bool
    title: str
    text: str
    losses: list


def boxes(page):
    """The tokens of a card; text that came out as markup is missing from theirs."""
    found = []
    row = page.partition('<div class="row')[2]
    token = r'<(mark|span) class="t[^"]*" title="([^"]*)">(.*?)</\1>'
    for tag, title, inside in re.findall(token, row, flags=re.S):
        losses = re.findall(r"<small[^>]*>([^<]+)</small>", inside)
        text = unescape(re.sub(r"<small.*?</small>|<[^>]*>", "", inside))
        found.append(Box(tag == "mark", unescape(title), unmarked(text), losses))
    return found


def unmarked(text):
    return text.replace("·", " ").replace("⏎", "\n").replace("⇥", "\t").replace("▫", "")


def marked(xray):
    """The supervised text, by its boxes in HTML and by its brackets in the plain text."""
    runs = []
    for line in xray.lines:
        assert f"  {line.before}{line.text}{line.after}" in str(xray)
        assert (line.before == "[" or line.after == "]") <= line.supervised
        if line.before == "[":
            assert not runs or runs[-1].endswith("]")
            runs.append("")
        if line.supervised:
            runs[-1] += line.text + line.after
    assert all(run.endswith("]") for run in runs)
    runs = [unmarked(run[:-1]) for run in runs]
    assert "".join(runs) == "".join(box.text for box in boxes(xray.html) if box.marked)
    return runs


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("turns", ["all", "last"])
def test_html_and_text_mark_exactly_the_supervised_tokens(toy_tokenizer, family, turns):
    made = labels(toy_tokenizer, TWO, template=family, turns=turns)
    xray = show_mask(TWO, tokenizer=toy_tokenizer, template=family, turns=turns)
    assert [box.marked for box in boxes(xray.html)] == [one != IGNORED for one in made.labels]
    assert len(marked(xray)) == len(made.spans)
    roles = re.findall(r'<b class="r [^"]*">(.*?)</b>', xray.html)
    assert roles == ["user", "assistant", "user", "assistant"]


SAID = st.text(st.sampled_from("ab []<&'\"\n\té🙂"), min_size=1).filter(str.strip)


@given(question=SAID, answer=SAID)
@settings(max_examples=30, deadline=None)
def test_no_text_is_lost_or_comes_out_as_markup(toy_tokenizer, question, answer):
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    xray = show_mask(messages, tokenizer=toy_tokenizer, template="chatml")
    assert "".join(token.text for token in xray.tokens) == xray.text
    assert "".join(box.text for box in boxes(xray.html)) == xray.text
    assert unmarked("".join(line.text for line in xray.lines)) == xray.text
    # The line break before an answer that begins with one may share its token.
    shared = "\n" * answer.startswith("\n")
    assert marked(xray) in ([f"{answer}<|im_end|>"], [f"{shared}{answer}<|im_end|>"])


def test_template_writes_what_no_message_holds(toy_tokenizer):
    xray = show_mask(HI, tokenizer=toy_tokenizer, template="chatml")
    assert xray._repr_mimebundle_() == {"text/html": xray.html, "text/plain": str(xray)}
    assert "<script" not in xray.html
    assert "http" not in xray.html
    said = {}
    for token in xray.tokens:
        said[token.role] = said.get(token.role, "") + token.text
    assert said == {
        "template": "<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n\n",
        "user": "Hi <b>",
        "assistant": "Ho & ho.\nSo<|im_end|>",
    }
    framed = {token.text for token in xray.tokens if token.special}
    assert framed == {"<|im_start|>", "<|im_end|>"}


def test_a_role_is_escaped_and_an_unsupervised_end_stays_the_assistant_s(toy_tokenizer):
    given = [{"role": "<script>", "content": "a"}, *HI]
    text = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"
    page = show_mask(given, tokenizer=toy_tokenizer, template=text).html
    assert "&lt;script&gt;</b>" in page
    assert "<script" not in page
    for options in ({"end_of_turn": False}, {"turns": "last"}):
        xray = show_mask(TWO, tokenizer=toy_tokenizer, template="chatml", **options)
        ends = [token.role for token in xray.tokens if token.text == "<|im_end|>"]
        assert ends == ["template", "assistant", "template", "assistant"]


def test_everything_nothing_and_a_cut(toy_tokenizer):
    options = {"tokenizer": toy_tokenizer, "template": "chatml"}
    full = show_mask(HI, turns="everything", **options)
    assert full.supervised == full.total
    assert all(box.marked for box in boxes(full.html))
    assert "(100%)" in full.sentence
    none = show_mask([HI[0]], **options)
    assert none.supervised == 0
    assert "<li>Nothing is supervised" in none.html
    assert "! nothing" in str(none)
    whole = show_mask(HI, **options)
    cut = show_mask(HI, max_length=whole.total - 3, **options)
    assert (cut.total, cut.supervised) == (whole.total - 3, whole.supervised - 2)
    assert any("removed 2" in warning for warning in cut.warnings)


def test_labels_by_hand_are_shown_as_they_are_and_diagnosed(toy_tokenizer):
    options = {"tokenizer": toy_tokenizer, "template": "chatml"}
    made = labels(toy_tokenizer, HI, template="chatml")
    mine = [IGNORED] * len(made.ids)
    mine[5] = made.ids[5]
    for form in (mine, torch.tensor(mine), torch.tensor([mine])):
        xray = show_mask(HI, labels=form, **options)
        assert [n for n, token in enumerate(xray.tokens) if token.supervised] == [5]
        assert xray.tokens[5].role == "user"
        assert not xray.warnings
    (warning,) = show_mask(HI, labels=[*made.labels[1:], IGNORED], **options).warnings
    assert "shifted" in warning
    odd = list(made.labels)
    odd[-2] = 0
    (warning,) = show_mask(HI, labels=odd, **options).warnings
    assert f"token {len(odd) - 2} is 0" in warning


def test_losses_equal_a_computation_by_hand_and_stand_side_by_side():
    (model, tokenizer), (other, _) = load("tiny"), load("tiny")
    xray = show_mask(HI, tokenizer=tokenizer, template="chatml", model=model)
    ids = torch.tensor([[token.id for token in xray.tokens]])
    with torch.no_grad():
        asked = torch.tensor([[token.label for token in xray.tokens]])
        made = model(ids, labels=asked)
        other.get_output_embeddings().weight.mul_(0.5)
    nats = -made.logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])
    assert xray.tokens[0].losses == (None,)
    told = [token.losses[0] for token in xray.tokens[1:]]
    assert told == pytest.approx(nats.flatten().tolist(), rel=1e-3, abs=1e-4)
    assert xray.mean_losses == (pytest.approx(made.loss.item(), rel=1e-3),)
    assert f"their mean loss is {xray.mean_losses[0]:.2f} nats." in xray.sentence

    class Run:
        model = other

    Run.tokenizer = tokenizer
    xray = show_mask(HI, tokenizer=tokenizer, model=model, after=Run)
    assert xray.template == "chatml"  # as in finetune, where the tokenizer has none of its own
    shown = [box for box in boxes(xray.html) if box.marked]
    supervised = [token for token in xray.tokens if token.supervised]
    assert [b.losses for b in shown] == [[f"{n:.2f}" for n in t.losses] for t in supervised]
    before, after = supervised[-1].losses
    assert before != after
    assert f"loss before {before:.3f} · loss after {after:.3f}" in shown[-1].title
    assert "before and" in xray.sentence


def test_a_row_with_tools_is_shown_as_it_is_trained(toy_tokenizer):
    call = {"type": "function", "function": {"name": "look", "arguments": {"n": 1, "day": "today"}}}
    talk = [
        HI[0],
        {"role": "assistant", "content": "", "reasoning_content": "So.", "tool_calls": [call]},
        {"role": "tool", "content": "Grey & wet", "name": "look"},
        {"role": "assistant", "content": "Ho & ho.\nSo"},
    ]
    tools = [{"type": "function", "function": {"name": "look", "parameters": {}}}]
    row = {"messages": talk, "tools": tools}
    for template in ("qwen3_training", "glm4moe"):
        made = labels(toy_tokenizer, row, template=template, append_eos=True)
        xray = show_mask(row, tokenizer=toy_tokenizer, template=template)
        assert [token.label for token in xray.tokens] == made.labels
        assert (xray.text, xray.warnings) == (made.text, ())
        said = {}
        for token in xray.tokens:
            said[token.role] = said.get(token.role, "") + token.text
        assert said["tool"] == "Grey & wet"
        assert all(words in said["assistant"] for words in ("So.", "look", "today", "Ho & ho"))
        assert said["assistant"] == "".join(marked(xray))
        assert '"name": "look"' in said["template"]
    assert xray.tokens[-1].text == toy_tokenizer.eos_token  # what glm4moe lacks
    warnings = show_mask(row, tokenizer=toy_tokenizer, template="chatml").warnings
    assert "not in the text that is trained on: tool call of message 1: 'today'" in warnings
    plain = show_mask(
        talk, tools=tools, tokenizer=toy_tokenizer, template="chatml", start="content"
    )
    assert any("--start generation" in warning for warning in plain.warnings)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"labels": [1, 2]}, "2 labels for"),
        ({"labels": [[1], [2]]}, "one conversation"),
        ({"labels": ["a"]}, "integers"),
        ({"turns": "first"}, "'all'"),
        ({"template": "gemma"}, "^the chat template gemma refuses"),
    ],
)
def test_mistakes_are_named(toy_tokenizer, options, said):
    system = [{"role": "system", "content": "a"}] if "template" in options else []
    with pytest.raises(ValueError, match=said):
        show_mask(system + HI, **{"tokenizer": toy_tokenizer} | options)
