"""Cards: what is bold, shaded, refused, escaped; claims with every seed; the plain-text twins."""

import re
from html import unescape

import pytest

from sftlab.chat import FAMILIES, examine, find_template
from sftlab.course import ARCHETYPES, Record, claims
from sftlab.measure import Estimate
from sftlab.show import (
    claim_card,
    continuations,
    conversation,
    decision_table,
    findings,
    side_by_side,
)
from sftlab.show.report import _draw

TALK = [{"role": "user", "content": "Hi <i>"}, {"role": "assistant", "content": "Ho"}]


def plain(cell):
    return unescape(re.sub(r"<[^>]*>", "", cell.replace("↵", "")))


def rows(card):
    """The cells of each row but the first."""
    body = card.html.partition("<tbody>")[2]
    return [
        re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, flags=re.S) for row in body.split("<tr>")[1:]
    ]


def make_record(claim_id, *estimates, note=""):
    """A record from (value, low, high, by_seed) for each part."""
    claim, made = claims()[claim_id], {}
    for part, (value, low, high, by_seed) in zip(claim.rule, estimates, strict=True):
        counts = {"items": 1200, "seeds": len(by_seed), "entities": 40}
        ends = {"low": low, "high": high, "inner": (low, high), "level": claim.level}
        made[part.name] = Estimate(value=value, by_seed=by_seed, method="x", **counts, **ends)
    return Record(claim=claim, estimates=made, profile="tiny", note=note)


B3 = (0.34, 0.28, 0.41, (0.3, 0.32, 0.34, 0.36, 0.38))
CASES = {
    "one": lambda: make_record("B3", B3, note="<b>a note"),
    "three": lambda: make_record(
        "B5",
        (0.99, 0.97, 1, (1, 1, 0.98, 0.99, 1)),
        (0.47, 0.38, 0.56, (0.4, 0.41, 0.5, 0.52, 0.5)),
        (0.02, 0, 0.05, (0.02, 0, 0.05, 0.01, 0.02)),
    ),
    "saturated": lambda: make_record("B7", (1, 0.97, 1, (1.0,) * 10)),
    "nats": lambda: make_record("X1", (0.0004, -0.001, 0.003, (-0.0009, 0.001, 0.0011))),
    "equivalence": lambda: make_record(
        "T2", (0.01, -0.03, 0.04, (-0.02, 0.01, 0.03)), (-0.02, -0.06, 0.02, (-0.05, 0, 0.01))
    ),
    "ratio": lambda: make_record("R6", (0.41, 0.41, 0.41, (0.41, 0.41)), (1.3, 1.2, 1.4, (1.3,))),
    "correlation": lambda: make_record("R12", (0.7, 0.4, 0.9, (0.7,)), (0.3, -0.1, 0.5, (0.3,))),
}


def test_a_card_says_all_of_a_claim_needs_no_network_and_follows_the_theme():
    card = claim_card(CASES["one"]())
    seeds = "+30 points, +32 points, +34 points, +36 points, +38 points"
    counted = ("+34 points (+28 to +41)", "5 seeds × 1,200 items", seeds)
    for said in ("Supported", "expected: supported", *counted, "25-40%", "a note"):
        assert said in card.text
        assert said in card.html
    assert repr(card) == card.text == card._repr_mimebundle_()["text/plain"]
    assert "inconclusive: +47 points" in claim_card(CASES["three"]()).html
    assert "[data-jp-theme-light=false] .sl" in card.html
    assert "http" not in card.html


@pytest.mark.parametrize("name", CASES)
def test_a_claim_shows_every_seed_its_interval_and_its_bound(name, page):
    record = CASES[name]()
    card = claim_card(record)
    assert not {"b", "script"} & set(page(card.html).tags)
    assert card.html.count("<img ") == len(record.claim.rule)
    for part in record.claim.rule:
        estimate = record.estimates[part.name]
        (ax,) = _draw(part, estimate).axes
        dots = [tuple(dot) for dots in ax.collections for dot in dots.get_offsets()]
        assert tuple(x for x, _ in dots) == estimate.by_seed
        assert len({y for _, y in dots}) == len(dots), "no seed hides another"
        lines = {line.get_gid(): list(line.get_xdata()) for line in ax.lines}
        assert lines["interval"] == [estimate.low, estimate.high]
        assert lines["bound"][0] == part.bound
        assert ("inner" in lines) == (part.kind == "within")
        left, right = ax.get_xlim()
        shown = [*estimate.by_seed, estimate.low, estimate.high, part.bound]
        assert left <= min(shown) <= max(shown) <= right
        for text in (card.text, unescape(card.html)):
            assert part.name in text
            assert part.asks in text
            assert part.measures in text


def test_transcripts_shade_what_the_model_wrote(page):
    card = conversation(TALK)
    assert card.text == "user: Hi <i>\nassistant: [Ho]"
    assert re.findall("<mark>(.*?)</mark>", card.html) == ["Ho"]
    assert "i" not in set(page(card.html).tags)
    card = continuations(["1 + 1 ="], [" 2"], label="base")
    assert card.text == "base: 1 + 1 =[ 2]"
    assert "1 + 1 =<mark> 2</mark>" in card.html


def test_each_row_reads_as_rendered_and_shades_the_answer_with_its_end(toy_tokenizer, page):
    card = side_by_side(list(FAMILIES), TALK, tokenizer=toy_tokenizer)
    page(card.html)
    for (name, text, count), family in zip(rows(card), FAMILIES, strict=True):
        rendered = find_template(family, tokenizer=toy_tokenizer).render(TALK)
        assert name == family
        assert plain(text) == rendered
        assert int(count) == len(toy_tokenizer(rendered, add_special_tokens=False)["input_ids"])
        (marked,) = re.findall(r"<mark[^>]*>(.*?)</mark>", text, flags=re.S)
        assert plain(marked) == f"Ho{FAMILIES[family].end(toy_tokenizer.eos_token)}"


def test_tokens_of_the_template_are_bold_and_breaks_are_seen():
    ((_, text),) = rows(side_by_side(["llama-3"], TALK))
    bold = [plain(one) for one in re.findall(r"<b>(.*?)</b>", text)]
    header = ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    assert bold == ["<|begin_of_text|>", *header, *header]
    assert text.count("↵") == find_template("llama-3").render(TALK).count("\n") == 4
    ((_, text),) = rows(side_by_side(["chatml"], TALK[:1], add_generation_prompt=True))
    assert plain(text).endswith("<|im_start|>assistant\n")


def test_a_refusal_is_said_in_the_templates_words():
    system = {"role": "system", "content": "Brief."}
    (_, refused), (_, rendered) = rows(side_by_side(["gemma", "chatml"], [system, *TALK]))
    assert plain(refused).startswith("refused: Gemma has no system role")
    assert "Brief." in rendered


def test_findings_say_what_to_do_and_name_what_is_sound():
    card = findings(examine("{% for m in messages %}{{ m.content }}{% endfor %}"))
    found = rows(card)
    assert "error" in found[0][1]
    assert "Do:" in found[0][2]
    assert "ok" in found[-1][1]
    assert "system" in found[-1][2]
    assert "level: ✓" in card.text


def test_table_of_decisions_has_a_row_for_each_situation_and_escapes_names(page):
    card = decision_table({"<b>bot</b>": ARCHETYPES["General assistant"], **ARCHETYPES})
    assert card.html.count('scope="row"') == len(ARCHETYPES) + 1
    assert "&lt;b&gt;bot" in card.html
    assert "Situation: General assistant\nAdvice: Neither" in card.text
    page(card.html)
