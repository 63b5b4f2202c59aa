"""The report of a training on one's own file: one page that needs nothing else."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pandas as pd
import pytest

from sftlab.measure import mean
from sftlab.models import find_profile
from sftlab.show import evaluation_report, next_command, plot_shares, summary, write_report
from sftlab.show.report import _fence, _question, _shown
from sftlab.train import Answer, Settings, prepare, run_identity, run_state, train_own_data

ROWS = [{"prompt": f"Is {n * 7919:x} <b>bold</b>?", "completion": "a | b"} for n in range(40)]


@pytest.fixture(scope="module")
def done(tmp_path_factory, toy_base):
    folder = tmp_path_factory.mktemp("report")
    file = folder / "my.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in [*ROWS, {"prompt": "", "a": 1}]))
    profile, settings = (
        find_profile(toy_base),
        Settings(num_train_epochs=3, learning_rate=1e-2, per_device_train_batch_size=8),
    )
    data = prepare(file, profile=profile, settings=settings, skip_bad=True)
    wanted = run_identity(file, profile, settings)
    made = train_own_data(data, profile, folder=folder / "run", wanted=wanted, progress=False)
    write_report(made)
    assert run_state(folder / "run", wanted) == "finished"
    return made


class Tags(HTMLParser):
    """The tags of a page, whether they are closed, and what they point to."""

    def __init__(self, text):
        super().__init__()
        self.open, self.seen, self.sources = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href")]
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_stands_alone_and_shows_texts_as_they_are(done):
    text = (done.folder / "report.html").read_text()
    page = Tags(text)
    assert page.open == []
    assert page.seen.count("img") == 3
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert not {"b", "script", "link"} & set(page.seen)
    assert "&lt;b&gt;bold&lt;/b&gt;?" in text


def test_what_the_report_tells(done):
    text = (done.folder / "report.md").read_text()
    assert "41 in" in text
    assert "40 used, 1 bad, 0 left out" in text
    assert done.data.sha256 in text
    assert done.run.provenance["data"] in text
    assert f"{done.before.loss:.3f} | {done.after.loss:.3f}" in text
    for point in done.run.validation:
        assert f"| {point['epoch']:g} | {point['loss']:.3f} |" in text
    for name in re.findall(r"\]\((\S+\.png)\)", text):
        assert (done.folder / name).read_bytes()[:4] == b"\x89PNG"
    assert text.count("\nreference\n") == 8
    assert next_command(done) in text
    assert (
        "\\<b>bold" not in text.partition("question\n")[2].partition("```")[2].partition("```")[0]
    )


def test_the_summary_is_of_the_outcomes(done):
    lines = "\n".join(summary(done))
    assert f"from {done.before.loss:.2f}" in lines
    assert f"to {done.after.loss:.2f}" in lines
    ended = sum(one.ended for one in done.after.answers)
    assert f"to {ended} of {len(done.after.answers)}" in lines


def test_the_summary_speaks_of_forgetting_where_there_is_some(done):
    def told(after):
        before = pd.DataFrame({"skill": "facts", "right": [True] * 9 + [False], "nats": 1.0})
        skills = {
            "before": before,
            "after": before.assign(right=[True] * after + [False] * (10 - after)),
        }
        return "\n".join(summary(replace(done, skills=skills)))

    assert "90% of 10 items right before the training, 60% after it. That is forgetting" in told(6)
    assert "80% after it" in told(8)
    assert "forgetting:" not in told(9)


def test_a_fence_is_longer_than_what_it_holds():
    assert _fence("no backticks") == "```"
    assert _fence("``\n````\ncode") == "`````"


def test_a_conversation_shows_who_spoke_and_an_empty_answer_is_named():
    talk = [{"role": role, "content": role[0]} for role in ("system", "user", "assistant")]
    assert _question({"messages": talk}) == "system: s\nuser: u"
    assert _question({"messages": talk[1:]}) == "u"
    assert _shown(Answer(row=0, text="", ended=True)) == "[nothing]"
    assert _shown(Answer(row=0, text="a", ended=False)).startswith("a [stopped")


def share(right):
    rows = [(seed, n, n < right) for seed in range(2) for n in range(10)]
    return mean(pd.DataFrame(rows, columns=["seed", "country", "right"]))


def test_an_evaluation_is_one_page(tmp_path):
    made = evaluation_report(
        "A run",
        verdict="Do not ship it.",
        scores={"right": share(8), "alone": share(5)},
        baselines={"base": {"right": share(4)}},
        segments={"good": share(9), "weak": share(2)},
        losses=["Not measured: safety."],
        samples=[("<i>Q?", "no|pe\nno", "yes")],
        provenance={"seeds": "2"},
        pictures={"shares.png": plot_shares({"a": share(2)}, title="P")},
    )
    text = made.markdown
    assert text.index("Do not ship it.") < text.index("| right | 80%") < text.index("| weak | 20%")
    assert text.index("| weak |") < text.index("| good |") < text.index("Not measured")
    assert "2 × 10" in text
    assert r"| \<i>Q? | no\|pe no | yes |" in text
    made.save(tmp_path)
    assert {one.name for one in tmp_path.iterdir()} == {"report.md", "report.html", "shares.png"}
    assert Tags((tmp_path / "report.html").read_text()).seen.count("img") == 1
    with pytest.raises(ValueError, match="scores is empty"):
        evaluation_report("x", verdict="", scores={})
