"""The report of a training on one's own file: one page that needs nothing else."""

import json
import re
from dataclasses import replace

import pandas as pd
import pytest

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
    profile = find_profile(toy_base)
    settings = Settings(num_train_epochs=3, learning_rate=1e-2, per_device_train_batch_size=8)
    data = prepare(file, profile=profile, settings=settings, skip_bad=True)
    wanted = run_identity(file, profile, settings)
    made = train_own_data(data, profile, folder=folder / "run", wanted=wanted, progress=False)
    write_report(made)
    assert run_state(folder / "run", wanted) == "finished"
    return made


def test_the_page_stands_alone_and_shows_texts_as_they_are(done, page):
    text = (done.folder / "report.html").read_text()
    found = page(text)
    assert found.tags.count("img") == 3
    assert all(source.startswith("data:image/png;base64,") for source in found.sources)
    assert not {"b", "script", "link"} & set(found.tags)
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


def test_the_summary_is_of_the_outcomes_and_speaks_of_forgetting_where_there_is_some(done):
    def told(after):
        before = pd.DataFrame({"skill": "facts", "right": [True] * 9 + [False], "nats": 1.0})
        now = before.assign(right=[True] * after + [False] * (10 - after))
        return "\n".join(summary(replace(done, skills={"before": before, "after": now})))

    assert f"from {done.before.loss:.2f}" in told(6)
    assert f"to {done.after.loss:.2f}" in told(6)
    ended = sum(one.ended for one in done.after.answers)
    assert f"to {ended} of {len(done.after.answers)}" in told(6)
    assert "90% of 10 items right before the training, 60% after it. That is forgetting" in told(6)
    assert "80% after it" in told(8)
    assert "forgetting:" not in told(9)


def test_a_fence_is_longer_than_what_it_holds_and_a_conversation_shows_who_spoke():
    assert _fence("no backticks") == "```"
    assert _fence("``\n````\ncode") == "`````"
    talk = [{"role": role, "content": role[0]} for role in ("system", "user", "assistant")]
    assert _question({"messages": talk}) == "system: s\nuser: u"
    assert _question({"messages": talk[1:]}) == "u"
    assert _shown(Answer(row=0, text="", ended=True)) == "[nothing]"
    assert _shown(Answer(row=0, text="a", ended=False)).startswith("a [stopped")


def test_an_evaluation_is_one_page(tmp_path, share, page):
    made = evaluation_report(
        "A run",
        verdict="Do not ship it.",
        scores={"right": share(16, 16), "alone": share(10)},
        baselines={"base": {"right": share(8)}},
        segments={"good": share(18, 18), "weak": share(4, 4)},
        losses=["Not measured: safety."],
        samples=[("<i>Q?", "no|pe\nno", "yes")],
        provenance={"seeds": "2"},
        pictures={"shares.png": plot_shares({"a": share(4, 4)}, title="P")},
    )
    text = made.markdown
    assert text.index("Do not ship it.") < text.index("| right | 80%") < text.index("| weak | 20%")
    assert text.index("| weak |") < text.index("| good |") < text.index("Not measured")
    assert "2 × 20" in text
    assert r"| \<i>Q? | no\|pe no | yes |" in text
    made.save(tmp_path)
    assert {one.name for one in tmp_path.iterdir()} == {"report.md", "report.html", "shares.png"}
    assert page((tmp_path / "report.html").read_text()).tags.count("img") == 1
