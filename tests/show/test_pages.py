"""Pages: cards, claims with every seed, reports; what is bold, shaded, refused, escaped."""

import json
import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import pandas as pd
import pytest

from sftlab.chat import FAMILIES, examine, find_template
from sftlab.course import ARCHETYPES, Record, claims
from sftlab.measure import Estimate, computed
from sftlab.profiles import find_profile
from sftlab.show import (
    claim_card,
    continuations,
    conversation,
    decision_table,
    findings,
    next_command,
    side_by_side,
    summary,
    write_report,
)
from sftlab.show.claims import strip
from sftlab.train import Settings, prepare, run_identity, run_state, train_own_data


class Page(HTMLParser):
    """The tags of a page and what they point to; fails where one is not closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.sources = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href")]
        if tag not in ("br", "img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


TALK = [{"role": "user", "content": "Hi <i>"}, {"role": "assistant", "content": "Ho"}]


def plain(cell):
    return unescape(re.sub(r"<[^>]*>", "", cell.replace("↵", "")))


def rows(card):
    """The cells of each row but the first."""
    body = card.html.partition("<tbody>")[2]
    cell = r"<t[hd][^>]*>(.*?)</t[hd]>"
    return [re.findall(cell, row, flags=re.S) for row in body.split("<tr>")[1:]]


PARTS = {
    "B1": [("share", "at_least = 0.5", 0.99, 0.97, 1, (1, 1, 0.98, 0.99, 1))],
    "B2": [("difference of shares", "at_least = 0.1", 0.34, 0.28, 0.41, (0.3, 0.32, 0.34, 0.38))],
    "B3": [
        ("difference of shares", "at_least = 0.5", 0.6, 0.51, 0.7, (0.6,) * 10),
        ("difference of shares", "at_least = 0.5", 0.47, 0.38, 0.56, (0.4, 0.41, 0.5, 0.52)),
        ("share", "at_most = 0.1", 0.02, 0, 0.05, (0.02, 0, 0.05, 0.01)),
    ],
    "B4": [("nats", "at_least = 0.05", 0.0004, -0.001, 0.003, (-0.0009, 0.001, 0.0011))],
    "B5": [
        ("difference of shares", "within = 0.05", 0.01, -0.03, 0.04, (-0.02, 0.01, 0.03)),
        ("difference of shares", "within = 0.05", -0.02, -0.06, 0.02, (-0.05, 0, 0.01)),
    ],
    "B6": [("ratio", "at_most = 0.7", 0.41, 0.41, 0.41, (0.41, 0.41))],
    "B7": [("correlation", "at_least = 0.5", 0.7, 0.4, 0.9, (0.7,))],
}
"""Claims in each unit: of each part its unit, its rule, value, low end, high end and seeds."""


@pytest.fixture(scope="module")
def ledger(tmp_path_factory):
    """Claim id -> a record of PARTS."""
    text = ""
    for claim_id, parts in PARTS.items():
        text += f'[{claim_id}]\nclaim = "It helps."\nsource = "P"\nquoted = "25-40%"\n'
        text += 'notebook = "00_start_here"\nexpected = "supported"\nbaseline = "inconclusive"\n'
        for n, (unit, rule, *_) in enumerate(parts):
            text += f'[[{claim_id}.rule]]\npart = "part {n}"\nmeasures = "It, {n}."\n'
            text += f'unit = "{unit}"\n{rule}\n'
    file = tmp_path_factory.mktemp("ledger") / "claims.toml"
    file.write_text(text)
    return {claim_id: record_of(claim) for claim_id, claim in claims(file).items()}


def record_of(claim):
    made = {}
    for part, (*_, value, low, high, by_seed) in zip(claim.rule, PARTS[claim.id], strict=True):
        counts = {"items": 1200, "seeds": len(by_seed), "entities": 40}
        ends = {"low": low, "high": high, "inner": (low, high), "wider": ((low, high),) * 4}
        made[part.name] = Estimate(value=value, by_seed=by_seed, method="x", **counts, **ends)
    return Record(claim=claim, estimates=made, profile="tiny", note="<b>a note")


def test_a_card_says_all_of_a_claim_needs_no_network_and_follows_the_theme(ledger):
    card = claim_card(ledger["B2"])
    seeds = "+30 points, +32 points, +34 points, +38 points"
    counted = ("+34 points (+28 to +41)", "4 seeds × 1,200 items, on tiny", seeds)
    article = "A Practical Guide for Real-World Use (P)"
    for said in (
        "Supported",
        "First expected: supported. Last recorded: inconclusive",
        *counted,
        "25-40%",
        article,
        "a note",
    ):
        assert said in card.text
        assert said in unescape(card.html)
    assert repr(card) == card.text == card._repr_mimebundle_()["text/plain"]
    assert "inconclusive: +47 points" in claim_card(ledger["B3"]).html
    assert "[data-jp-theme-light=false] .sl" in card.html
    assert "http" not in card.html
    assert "Last recorded on tiny:" in claim_card(replace(ledger["B2"], profile="small")).text


def test_what_was_computed_is_not_said_to_be_measured():
    found = computed(0.0058, 0.006)
    card = claim_card(Record(claim=claims()["L1"], estimates={"at 7B": found}, profile="tiny"))
    assert "0.59% (0.58% to 0.6%), computed, not measured" in card.text
    assert "tiny" not in card.text
    assert 'class="seed"' not in card.html


@pytest.mark.parametrize("claim_id", PARTS)
def test_a_claim_shows_every_seed_its_interval_and_its_bound(claim_id, ledger):
    record = ledger[claim_id]
    card = claim_card(record)
    assert not {"b", "img", "script"} & set(Page(card.html).tags)
    several = len(record.claim.rule) > 1  # then the part that decides is in the first line, too
    assert card.html.count("<svg ") == len(record.claim.rule) + several
    for part in record.claim.rule:
        estimate, text = record.estimates[part.name], card.text
        drawn = strip(part, estimate, len(record.claim.rule))
        assert len({y for _, y in drawn["seeds"]}) == len(estimate.by_seed), "none hides another"
        level, ends = part.deciding(estimate)
        assert level == (90 if part.kind == "within" else 95)
        # All places are on one scale: that of the interval and the value.
        (low, high), value = drawn["ends"], drawn["value"]
        scale = (high - low) / (ends[1] - ends[0]) if high > low else 0
        places = [x for x, _ in drawn["seeds"]] + drawn["bounds"][-1:]
        for place, number in zip(places, [*estimate.by_seed, part.bound], strict=True):
            assert 0 <= place <= 100
            assert not scale or place == pytest.approx(low + scale * (number - ends[0]), abs=0.1)
        start, width = drawn["holds"]
        inside = all(start <= end <= start + width for end in (low, high))
        assert inside == (record.judged(part) == "supported")
        assert value == pytest.approx(low + scale * (estimate.value - ends[0]), abs=0.1)
        for words in (part.name, part.asks, part.measures):
            assert words in text
            assert words in unescape(card.html)


def test_transcripts_shade_what_the_model_wrote():
    card = conversation(TALK)
    assert card.text == "user: Hi <i>\nassistant: [Ho]"
    assert re.findall("<mark>(.*?)</mark>", card.html) == ["Ho"]
    assert "i" not in set(Page(card.html).tags)
    card = continuations(["1 + 1 ="], [" 2"], label="base")
    assert card.text == "base: 1 + 1 =[ 2]"
    assert "1 + 1 =<mark> 2</mark>" in card.html


def test_each_row_reads_as_rendered_and_shades_the_answer_with_its_end():
    card = side_by_side(list(FAMILIES), TALK)
    Page(card.html)
    for (name, text), family in zip(rows(card), FAMILIES, strict=True):
        rendered = find_template(family).render(TALK)
        assert name == family
        assert plain(text) == rendered
        assert text.count("↵") == rendered.count("\n")
        (marked,) = re.findall(r"<mark[^>]*>(.*?)</mark>", text, flags=re.S)
        assert plain(marked) == f"Ho{FAMILIES[family].end(find_template(family).eos_token)}"


def test_tokens_of_the_template_are_bold_and_a_refusal_is_in_its_words():
    ((_, text),) = rows(side_by_side(["llama-3"], TALK))
    bold = [plain(one) for one in re.findall(r"<b>(.*?)</b>", text)]
    header = ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    assert bold == ["<|begin_of_text|>", *header, *header]
    ((_, text),) = rows(side_by_side(["chatml"], TALK[:1], add_generation_prompt=True))
    assert plain(text).endswith("<|im_start|>assistant\n")
    system = {"role": "system", "content": "Brief."}
    (_, refused), (_, rendered) = rows(side_by_side(["gemma", "chatml"], [system, *TALK]))
    assert plain(refused).startswith("refused: Gemma has no system role")
    assert "Brief." in rendered


def test_tables_of_findings_and_decisions():
    card = findings(examine("{% for m in messages %}{{ m.content }}{% endfor %}"))
    (_, level, found), *_, (_, last, sound) = rows(card)
    assert "error" in level
    assert "Do:" in found
    assert "ok" in last
    assert "system" in sound
    assert "level: ✓" in card.text
    card = decision_table()
    assert card.html.count('scope="row"') == len(ARCHETYPES)
    assert "Situation: General assistant\nAdvice: Neither" in card.text
    Page(card.html)


SYSTEM = {"role": "system", "content": "Short."}
ASKED = [{"role": "user", "content": f"Is {n * 7919:x} <b>bold</b>?"} for n in range(40)]
ANSWER = {"role": "assistant", "content": "a | b ```` c"}
ROWS = [{"messages": [SYSTEM, asked, ANSWER]} for asked in ASKED]


@pytest.fixture(scope="module")
def done(tmp_path_factory, toy_base):
    folder = tmp_path_factory.mktemp("report")
    file = folder / "my.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in [*ROWS, {"prompt": "", "a": 1}]))
    profile = find_profile(toy_base)
    settings = Settings(num_train_epochs=3, learning_rate=1e-2, per_device_train_batch_size=8)
    data = prepare(file, profile=profile, settings=settings, skip_bad=True)
    wanted = run_identity(file, profile, settings)
    made = train_own_data(data, profile, folder=folder / "run", wanted=wanted, progress=False)
    write_report(made)
    assert run_state(folder / "run", wanted) == "finished"
    return made


def test_the_page_stands_alone_and_shows_texts_as_they_are(done):
    text = (done.folder / "report.html").read_text()
    found = Page(text)
    assert found.tags.count("img") == 2
    assert all(source.startswith("data:image/png;base64,") for source in found.sources)
    assert not {"b", "script", "link"} & set(found.tags)
    assert "&lt;b&gt;bold&lt;/b&gt;?" in text


def test_what_the_report_tells(done):
    text = (done.folder / "report.md").read_text()
    assert "41 in" in text
    assert "40 used, 1 bad, 0 left out" in text
    assert done.data.sha256 in text
    assert done.run.provenance["data"] in text
    for name in re.findall(r"\]\((\S+\.png)\)", text):
        assert (done.folder / name).read_bytes()[:4] == b"\x89PNG"
    assert text.count("\nreference\n") == 8
    assert text.count("\n`````\na | b ```` c\n`````\n") == 8, "fences are longer than their text"
    assert text.count("\nsystem\n\n```\nShort.\n```\n") == 8
    assert text.count("<b>bold</b>?\n```\n") == 8, "nothing is escaped in them"
    shown = [one for outcome in (done.before, done.after) for one in outcome.answers[:8]]
    assert text.count("[stopped here") == sum(not one["ended"] for one in shown) > 0
    assert next_command(done) in text


def test_the_summary_is_of_the_outcomes_and_speaks_of_forgetting_where_there_is_some(done):
    def told(after):
        before = pd.DataFrame({"skill": "facts", "right": [True] * 9 + [False], "nats": 1.0})
        now = before.assign(right=[True] * after + [False] * (10 - after))
        return "\n".join(summary(replace(done, skills={"before": before, "after": now})))

    assert re.search(f"from {done.before.loss:.2f} .* to {done.after.loss:.2f};", told(6))
    ended = sum(one["ended"] for one in done.after.answers)
    assert f"to {ended} of {len(done.after.answers)}" in told(6)
    assert "90% of 10 items right before the training, 60% after it. That is forgetting" in told(6)
    assert "80% after it" in told(8)
    assert "forgetting:" not in told(9)
