"""The report of an evaluation: its verdict follows from the differences, and from nothing else."""

from html.parser import HTMLParser
from types import SimpleNamespace

import pandas as pd
import pytest

from sftlab.show import ReportError, evaluation_report
from sftlab.sweeps import Results
from sftlab.train import Settings

RUN = SimpleNamespace(
    settings=Settings(method="lora", learning_rate=0.002, num_train_epochs=3),
    provenance={
        "profile": {"name": "tiny"},
        "base_weights": "beef",
        "data": "f00d",
        "packages": {"trl": "1.2"},
        "device": "cpu",
        "python": "3.11",
    },
)


def rows(arm, hits, *, measure="answers", seeds=5, of=120, group="asked"):
    """`hits` of `of` countries are right, the same ones for every seed but one."""
    for seed in range(seeds):
        for n in range(of):
            here = n < hits + (seed % 2)
            yield {
                "arm": arm, "measure": measure, "seed": seed, "country": f"c{n}", "item": f"c{n}",
                "right": here, "relation": "capital", "group": group, "skill": "facts",
                "prompt": f"<i>{n}?", "output": "no|pe\nno", "expected": "yes",
            }  # fmt: skip


def report(*arms, meter=(), **how):
    made = [row for arm in arms for row in rows(*arm)]
    made += [row for arm in meter for row in rows(*arm, measure="meter")]
    how = {"subject": "LoRA", "run": RUN, **how}
    return evaluation_report("A run", Results(pd.DataFrame(made)), **how)


def verdict(*arms, **how):
    return report(*arms, **how).markdown.split("\n## ")[0].split("\n", 1)[1].strip()


@pytest.mark.parametrize(
    ("hits", "says"),
    [
        ({"zero-shot": 6, "4-shot": 114}, "Do not ship LoRA: it is worse than 4-shot (-"),
        ({"zero-shot": 6, "4-shot": 30}, "Ship LoRA, as far as these questions go: it is better"),
        ({"zero-shot": 6, "4-shot": 90}, "LoRA equals 4-shot within 5 points and is better than"),
        ({"zero-shot": 6, "4-shot": 87}, "Not decided: LoRA is neither better nor worse than 4-"),
    ],
)
def test_the_verdict_follows_from_the_difference_to_every_baseline(hits, says):
    assert verdict(("LoRA", 90), *hits.items()).startswith(says)


def test_no_verdict_without_a_baseline():
    with pytest.raises(ReportError, match="'LoRA' is compared with nothing, so no verdict follows"):
        report(("LoRA", 30))
    with pytest.raises(ReportError, match="no arm is called 'base'; there are LoRA, full"):
        report(("LoRA", 30), ("full", 30), before="base")


def test_a_model_that_forgot_is_not_shipped():
    arms, how = [("LoRA", 114), ("base", 6)], {"before": "base"}
    assert verdict(*arms, meter=[("LoRA", 114), ("base", 114)], **how).startswith("Ship LoRA")
    lost = verdict(*arms, meter=[("LoRA", 30), ("base", 114)], **how)
    assert lost.startswith("Do not ship LoRA. Old skills fell by -70 points")
    unsure = verdict(*arms, meter=[("LoRA", 105), ("base", 114)], **how)
    assert unsure.startswith("Ship LoRA")
    assert "a fall of more than 10 points cannot be ruled out" in unsure


def test_an_evaluation_is_one_page(tmp_path):
    made = report(("LoRA", 90), ("4-shot", 114), not_measured=["Safety: lesson 10."])
    text = made.markdown
    assert (
        text.index("Do not ship") < text.index("| 4-shot | 95%") < text.index("Safety: lesson 10")
    )
    assert "has to gain 20 points to draw level" in text
    assert r"| \<i>90? | no\|pe no | yes |" in text
    assert "Forgetting: the experiment has no measure" in text
    assert "tiny, weights SHA-256 beef" in text
    assert "trl 1.2" in text
    assert "| group: asked | 75% (" in text
    assert "| 120 |" in text
    made.save(tmp_path)
    assert (tmp_path / "report.md").read_text() == text
    page = HTMLParser()
    page.feed((tmp_path / "report.html").read_text())
