import pandas as pd
import pytest

from sftlab.show.forgetting import plot_meter


def reading(**shares):
    rows = [(skill, n < 10 * share, 0.5) for skill, share in shares.items() for n in range(10)]
    frame = pd.DataFrame(rows, columns=["skill", "right", "nats"]).astype({"right": "boolean"})
    corpus = pd.DataFrame({"skill": "corpus", "right": pd.NA, "nats": [1.0, 2.0]})
    return pd.concat([frame, corpus.astype({"right": "boolean"})], ignore_index=True)


def seeds(*frames):
    return pd.concat([frame.assign(seed=n) for n, frame in enumerate(frames)])


def test_meter_tells_before_and_after():
    before = reading(facts=1, stories=0.9)
    after = seeds(reading(facts=0.5, stories=0), reading(facts=0.7, stories=0))
    picture = plot_meter({"high rate": after}, before=before, title="Meter")
    assert picture.alt == (
        "Meter: before facts 100%; before stories 90%; high rate facts 60%; high rate stories 0%; "
        "high rate loss on the corpus 1.50 nats."
    )
    skills, corpus = picture.figure.axes
    assert len(skills.get_yticklabels()) == 2
    dots = [dot for dots in skills.collections for dot in dots.get_offsets()[:, 0]]
    assert dots == pytest.approx([0.5, 0.7, 0, 0])
    assert [bar.get_width() for bar in corpus.patches] == [1.5]


def test_meter_without_a_known_corpus_has_one_panel():
    before = reading(facts=1)
    before = before[before["skill"] != "corpus"]
    picture = plot_meter({"run": before}, before=before, title="Meter")
    assert len(picture.figure.axes) == 1
    assert picture.alt == "Meter: before facts 100%; run facts 100%."
