"""The mask X-ray: what it marks is what is supervised, in HTML and in text; its losses too."""

from html.parser import HTMLParser

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sftlab.chat import FAMILIES, IGNORED, TemplateError, labels
from sftlab.measure import token_losses
from sftlab.models import load
from sftlab.show import show_mask

HI = [{"role": "user", "content": "Hi <b>"}, {"role": "assistant", "content": "Ho & ho.\nSo"}]
TWO = [
    *HI,
    {"role": "user", "content": "Öl 🙂?"},
    {"role": "assistant", "content": "<script>alert('x')</script>\t\"É\""},
]


@pytest.fixture(scope="module")
def tiny():
    return load("tiny")


class Marks(HTMLParser):
    """The marked and the other tokens of a card; fails where a tag is not closed in order."""

    def __init__(self, page):
        super().__init__()
        self.open, self.marked, self.pale, self.numbers, self.titles = [], [], [], [], []
        self.roles, self.tags, self._row = [], set(), False
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag == "br":
            return
        attrs = dict(attrs)
        kinds = attrs.get("class", "").split()
        self._row = self._row or "row" in kinds
        self.open.append((tag, kinds))
        if self._row and "t" in kinds:
            self.titles.append(attrs["title"])
            (self.marked if tag == "mark" else self.pale).append("")

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag
        if tag == "div":
            self._row = False

    def handle_data(self, data):
        if not self._row:
            return
        if self.open[-1][0] == "small":
            self.numbers.append(data)
        elif self.open[-1][0] == "b":
            self.roles.append(data)
        else:
            tag = next(tag for tag, kinds in reversed(self.open) if "t" in kinds)
            (self.marked if tag == "mark" else self.pale)[-1] += data


def unmarked(text):
    return text.replace("·", " ").replace("⏎", "\n").replace("⇥", "\t").replace("▫", "")


def bracketed(xray):
    """The stretches between the brackets of the plain text, read back by their column."""
    rows = str(xray).split("\n\n", 1)[1].split("\n\n")[0].split("\n")
    width = max((len(token.role or "") for token in xray.tokens), default=0) + 2
    runs, inside = [], False
    for row in rows:
        if row.startswith("! "):
            break
        if row[width] == "[":
            runs.append("")
            inside = True
        if inside:
            runs[-1] += row[width + 1 :]
        # A run goes on until a line ends otherwise than with a line break.
        inside = inside and row.endswith("⏎")
    assert all(run.endswith("]") for run in runs)
    return [unmarked(run[:-1]) for run in runs]


def learned(made):
    """What each span's tokens hold: the span, and the space before it where a token begins so."""
    runs = []
    for span in made.spans:
        places = [
            offset
            for offset, label in zip(made.offsets, made.labels, strict=True)
            if label != IGNORED and offset[0] < span.end and span.start < offset[1]
        ]
        runs.append(made.text[places[0][0] : places[-1][1]])
        assert runs[-1].strip() == made.text[span.start : span.end].strip()
    return runs


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("turns", ["all", "last"])
def test_html_marks_exactly_the_supervised_tokens(toy_tokenizer, family, turns):
    made = labels(toy_tokenizer, TWO, template=family, turns=turns)
    marks = Marks(show_mask(TWO, tokenizer=toy_tokenizer, template=family, turns=turns).html)
    assert len(marks.marked) == made.supervised
    assert len(marks.marked) + len(marks.pale) == len(made.ids)
    assert unmarked("".join(marks.marked)) == "".join(learned(made))
    assert marks.roles == ["user", "assistant", "user", "assistant"]


@pytest.mark.parametrize("family", FAMILIES)
def test_brackets_of_the_plain_text_hold_the_spans(toy_tokenizer, family):
    xray = show_mask(TWO, tokenizer=toy_tokenizer, template=family)
    assert bracketed(xray) == learned(labels(toy_tokenizer, TWO, template=family))


SAID = st.text(st.sampled_from("ab []<&'\"\n\té🙂"), min_size=1).filter(str.strip)


@given(question=SAID, answer=SAID)
@settings(max_examples=30, deadline=None)
def test_no_text_is_lost_or_comes_out_as_markup(toy_tokenizer, question, answer):
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    xray = show_mask(messages, tokenizer=toy_tokenizer, template="chatml")
    assert "".join(token.text for token in xray.tokens) == xray.text
    assert unmarked("".join(line.text for line in xray.lines)) == xray.text
    assert unmarked("".join(Marks(xray.html).marked)) == f"{answer}<|im_end|>"
    assert bracketed(xray) == [f"{answer}<|im_end|>"]


def test_content_is_escaped_also_in_titles_and_warnings(toy_tokenizer):
    xray = show_mask(TWO, tokenizer=toy_tokenizer, template="alpaca", labels=None)
    assert "script" not in Marks(xray.html).tags
    given = [{"role": "<script>", "content": "a"}, *HI]
    text = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"
    page = show_mask(given, tokenizer=toy_tokenizer, template=text).html
    assert Marks(page).roles[0] == "<script>"
    assert "script" not in Marks(page).tags


def test_template_writes_what_no_message_holds(toy_tokenizer):
    xray = show_mask(HI, tokenizer=toy_tokenizer, template="chatml")
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


def test_end_of_turn_stays_the_assistant_s_when_it_is_not_supervised(toy_tokenizer):
    for options in ({"end_of_turn": False}, {"turns": "last"}):
        xray = show_mask(TWO, tokenizer=toy_tokenizer, template="chatml", **options)
        ends = [token.role for token in xray.tokens if token.text == "<|im_end|>"]
        assert ends == ["template", "assistant", "template", "assistant"]


def test_everything_and_nothing(toy_tokenizer):
    full = show_mask(HI, tokenizer=toy_tokenizer, template="chatml", turns="everything")
    assert full.supervised == full.total == len(Marks(full.html).marked)
    assert "(100%)" in full.sentence
    none = show_mask([HI[0]], tokenizer=toy_tokenizer, template="chatml")
    assert none.supervised == 0
    assert any("nothing" in warning for warning in none.warnings)
    assert "<li>" in none.html
    assert "! nothing" in str(none)


def test_a_cut_row_says_what_it_lost(toy_tokenizer):
    whole = show_mask(HI, tokenizer=toy_tokenizer, template="chatml")
    cut = show_mask(HI, tokenizer=toy_tokenizer, template="chatml", max_length=whole.total - 3)
    assert (cut.total, cut.supervised) == (whole.total - 3, whole.supervised - 2)
    assert any("removed 2" in warning for warning in cut.warnings)


def test_labels_by_hand_are_shown_as_they_are(toy_tokenizer):
    made = labels(toy_tokenizer, HI, template="chatml")
    mine = [IGNORED] * len(made.ids)
    mine[5] = made.ids[5]
    for form in (mine, torch.tensor(mine), torch.tensor([mine])):
        xray = show_mask(HI, tokenizer=toy_tokenizer, template="chatml", labels=form)
        assert [n for n, token in enumerate(xray.tokens) if token.supervised] == [5]
        assert xray.tokens[5].role == "user"
        assert not xray.warnings


def test_bare_ids_need_no_messages(toy_tokenizer):
    made = labels(toy_tokenizer, TWO, template="chatml")
    xray = show_mask(ids=made.ids, labels=made.labels, tokenizer=toy_tokenizer)
    assert xray.text == made.text
    assert "".join(bracketed(xray)) == "".join(made.text[s.start : s.end] for s in made.spans)
    assert {token.role for token in xray.tokens} == {None}
    bare = show_mask(ids=torch.tensor([made.ids]), tokenizer=toy_tokenizer)
    assert bare.sentence == f"{len(made.ids)} tokens, without labels."
    assert "supervised" not in Marks(bare.html).titles[0]


def test_shifted_labels_are_diagnosed(toy_tokenizer):
    made = labels(toy_tokenizer, HI, template="chatml")
    shifted = [*made.labels[1:], IGNORED]
    (warning,) = show_mask(ids=made.ids, labels=shifted, tokenizer=toy_tokenizer).warnings
    assert "shifted" in warning
    odd = list(made.labels)
    odd[-2] = 0
    (warning,) = show_mask(ids=made.ids, labels=odd, tokenizer=toy_tokenizer).warnings
    assert f"token {len(odd) - 2} is 0" in warning


def test_losses_equal_a_computation_by_hand(tiny):
    model, tokenizer = tiny
    xray = show_mask(HI, tokenizer=tokenizer, template="chatml", model=model)
    ids = [token.id for token in xray.tokens]
    with torch.no_grad():
        chances = model(torch.tensor([ids])).logits[0].softmax(-1)
        asked = [token.label for token in xray.tokens]
        loss = model(torch.tensor([ids]), labels=torch.tensor([asked])).loss.item()
    assert xray.tokens[0].losses == (None,)
    for place in range(1, len(ids)):
        expected = -chances[place - 1, ids[place]].log().item()
        assert xray.tokens[place].losses[0] == pytest.approx(expected, rel=1e-3, abs=1e-4)
    assert xray.mean_losses == (pytest.approx(loss, rel=1e-3),)
    assert f"their mean loss is {xray.mean_losses[0]:.2f} nats." in xray.sentence


def test_losses_stand_side_by_side_and_can_be_read(tiny):
    model, tokenizer = tiny
    other = load("tiny")[0]
    with torch.no_grad():
        other.get_output_embeddings().weight.mul_(0.5)
    xray = show_mask(HI, tokenizer=tokenizer, template="chatml", model=model, after=other)
    told = [f"{loss:.2f}" for token in xray.tokens if token.supervised for loss in token.losses]
    marks = Marks(xray.html)
    assert marks.numbers == told
    last = next(token for token in reversed(xray.tokens) if token.supervised)
    before, after = last.losses
    assert before != after
    assert any(
        f"loss before {before:.3f} · loss after {after:.3f}" in title for title in marks.titles
    )
    assert f"{before:>6.2f}  {after:>6.2f}  <|im_end|>" in str(xray)
    assert "before and" in xray.sentence


def test_a_run_brings_its_tokenizer_and_template(tiny):
    class Run:
        model, tokenizer = tiny

    xray = show_mask(HI, model=Run)
    assert xray.template == "chatml"  # as in finetune, where the tokenizer has none of its own
    assert xray.losses == ("loss",)


def test_losses_of_a_model_that_is_training(toy_base):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(toy_base).train()
    losses = token_losses(model, [5, 6, 7])
    assert model.training
    assert losses == token_losses(model.eval(), [5, 6, 7])
    with pytest.raises(ValueError, match="fine-tune added"):
        token_losses(model, [5, 99_999])
    with pytest.raises(ValueError, match="max_length=512"):
        token_losses(model, [5] * 513)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "either messages or ids"),
        ({"messages": HI, "ids": [1]}, "either messages or ids"),
        ({"messages": HI, "after": object()}, "give both"),
        ({"messages": HI, "labels": [1, 2]}, "2 labels for"),
        ({"ids": [[1], [2]]}, "one conversation"),
        ({"ids": ["a"]}, "integers"),
        ({"messages": HI, "turns": "first"}, "'all'"),
        ({"messages": HI, "turns": "everything", "labels": [1]}, "leave labels out"),
    ],
)
def test_mistakes_are_named(toy_tokenizer, options, said):
    with pytest.raises(ValueError, match=said):
        show_mask(tokenizer=toy_tokenizer, **options)


def test_without_a_tokenizer_it_asks_for_one():
    with pytest.raises(ValueError, match="give the tokenizer"):
        show_mask(HI)


def test_a_refusal_names_the_template_and_no_row(toy_tokenizer):
    with pytest.raises(TemplateError, match=r"^the chat template gemma refuses"):
        show_mask(
            [{"role": "system", "content": "a"}, *HI], tokenizer=toy_tokenizer, template="gemma"
        )


def test_a_notebook_gets_html_and_text(toy_tokenizer):
    xray = show_mask(HI, tokenizer=toy_tokenizer, template="chatml")
    assert xray._repr_mimebundle_() == {"text/html": xray.html, "text/plain": str(xray)}
    assert "<script" not in xray.html
    assert "http" not in xray.html
