"""Pages of results: the report of an evaluation, and that of your own training."""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sftlab.measure import Estimate, share
from sftlab.paths import write_atomically
from sftlab.show.cards import render
from sftlab.show.plots import Picture
from sftlab.show.run_plots import plot_loss, plot_meter
from sftlab.train import OwnRun


class Report:
    """A page from a template, as Markdown and as one HTML file that needs no other."""

    def __init__(self, template: str, *, pictures: Mapping[str, Picture], **values: Any) -> None:
        self.pictures = dict(pictures)  # by file name; the Markdown refers to these files
        values |= {"pictures": self.pictures, "fence_for": _fence}
        self.markdown = render(template, kind="md", **values)
        self.html = render(template, kind="html", **values)

    def save(self, folder: Path) -> None:
        """Write report.md, its pictures, and last report.html."""
        for name, picture in self.pictures.items():
            picture.save(folder / name)
        write_atomically(folder / "report.md", self.markdown)
        write_atomically(folder / "report.html", self.html)


def _fence(text: str) -> str:
    """More backticks than stand in a row in the text."""
    return "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))


def evaluation_report(
    title: str,
    *,
    verdict: str,
    scores: Mapping[str, Estimate],
    baselines: Mapping[str, Mapping[str, Estimate]],
    segments: Mapping[str, Estimate],
    losses: Sequence[str],
    samples: Sequence[tuple[str, str, str]],
    provenance: Mapping[str, str],
) -> Report:
    """The evaluation of a run on one page, as one would hand it to a team.

    Args:
        verdict: one or two sentences that somebody will act on.
        scores: measure -> score; `baselines` have the same measures, by name.
        segments: segment -> score; the weakest comes first.
        losses: what the run does worse than before, and what was not measured.
        samples: (question, answer, right answer) of answers that are wrong.
    """
    rows = []
    for name, found in scores.items():
        compared = [one[name] for one in baselines.values()]
        rows.append([name, found, *compared, f"{found.seeds} × {found.items:,}"])
    weakest = sorted(segments.items(), key=lambda pair: pair[1].value)
    return Report(
        "evaluation.report",
        pictures={},
        title=title,
        verdict=verdict,
        baselines=baselines,
        rows=rows,
        segments=[(name, one, f"{one.items:,}") for name, one in weakest],
        losses=losses,
        samples=samples,
        provenance=provenance,
    )


def write_report(done: OwnRun) -> Report:
    """Write report.md, report.html and their pictures into the folder of a run on your own file."""
    run, before, data = done.run, done.before, done.data
    points = [(0, before.loss)] if before else []
    points += [(point["step"], point["loss"]) for point in run.validation]
    skills = {"before": done.skills["before"], "title": "Old skills"}
    name, origin = run.provenance["profile"]["name"], run.provenance
    settings = {k: v for k, v in vars(run.settings).items() if v is not None and k != "template"}
    report = Report(
        "own_run.report",
        title=f"{done.folder.resolve().name}: {name} fine-tuned on {data.file}",
        summary=summary(done),
        next_command=next_command(done),
        data=data,
        problems=[(f"{n:,}", what) for what, n in data.report.kinds.most_common()],
        samples=_samples(done) if before else [],
        provenance=[
            ("file", f"{data.file}, SHA-256 {data.sha256}"),
            ("training rows", f"SHA-256 {origin['data']}"),
            ("base", f"{name}, weights SHA-256 {origin['base_weights']}"),
            ("settings", ", ".join(f"{k} {v}" for k, v in settings.items())),
            ("versions", ", ".join(f"{k} {v}" for k, v in origin["packages"].items())),
        ],
        pictures={
            "curves.png": plot_loss(run.history, title="Loss during training", validation=points),
            "meter.png": plot_meter({"trained": done.skills["after"]}, **skills),
        },
    )
    report.save(done.folder)
    return report


def next_command(done: OwnRun) -> str:
    """What to type next."""
    return f"sftlab chat {shlex.quote(str(done.folder))}"


def summary(done: OwnRun) -> list[str]:
    """What came of it, a sentence each."""
    run, rows, held = done.run, len(done.data.train), done.data.held_out
    # The mean of the last tenth of the steps: one step's batch says little.
    last = run.history[-max(1, len(run.history) // 10) :]
    end = sum(row["loss"] for row in last) / len(last)
    lines = [
        f"{rows:,} rows, {run.history[-1]['step']:g} steps, {run.settings.method} "
        f"({run.trained:,} weights trained), learning rate {run.settings.learning_rate:g}: the "
        f"training loss went from {run.history[0]['loss']:.2f} to {end:.2f} nats per token."
    ]
    if not run.trained:
        lines.append(
            "No weight changed: what was measured is the base. A larger learning rate is needed."
        )
    if run.kept_epoch is not None:
        lines.append(
            f"The weights are those of epoch {run.kept_epoch:g}, where the loss on the held-out "
            "rows was lowest: because they chose it, that loss is a little too good."
        )
    right = {when: frame["right"].dropna().astype(float) for when, frame in done.skills.items()}
    kept, left = right["before"].mean(), right["after"].mean()
    lines.append(
        f"Old skills, by the forgetting meter: {kept:.0%} of {len(right['before'])} items right "
        f"before the training, {left:.0%} after it."
    )
    if kept - left > 0.1:
        lines[-1] += " That is forgetting: a lower learning rate or general examples help."
    if not done.before:
        lines.append("No row was held out, so nothing is known about untrained questions.")
        return lines
    before, after = done.before, done.after
    lower = sum(a < b for a, b in zip(after.losses, before.losses, strict=True))
    lines.append(
        f"On the held-out rows the loss went from {before.loss:.2f} (the base, with the same "
        f"template) to {after.loss:.2f}; it is lower on {lower:,} of {len(held):,}."
    )
    if count := len(after.answers):
        was, now = (share([one["exact"] for one in found.answers]) for found in (before, after))
        lines.append(f"Exact matches: from {was} to {now} of {count:,} held-out rows.")
        first, now = (sum(one["ended"] for one in found.answers) for found in (before, after))
        lines.append(f"Answers that end by themselves: from {first:,} to {now:,} of {count:,}.")
        lines[-1] += " The others run on: more epochs often help." if now < count else ""
    return lines


def _samples(done: OwnRun) -> list[list[tuple[str, str]]]:
    """Of the first held-out rows who said what."""
    samples = []
    for base, trained in list(zip(done.before.answers, done.after.answers, strict=True))[:8]:
        *asked, _ = done.data.held_out[trained["row"]]["messages"]
        said = [(message["role"], _said(message)) for message in asked]
        said.append(("reference", trained["wanted"]))
        for who, answer in (("base", base), ("trained", trained)):
            stopped = "" if answer["ended"] else " [stopped here: it did not end]"
            said.append((who, answer["text"] + stopped))
        samples.append(said)
    return samples


def _said(message: Mapping[str, Any]) -> str:
    """The text of a message, with its thinking and its tool calls."""
    thought = message.get("reasoning_content")
    calls = [json.dumps(o["function"], ensure_ascii=False) for o in message.get("tool_calls", ())]
    parts = [f"<think>{thought}</think>" if thought else "", message["content"], *calls]
    return "\n".join(filter(None, parts))
