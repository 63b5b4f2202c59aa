"""Reports of a training on your own file and of an evaluation, as Markdown and as an HTML page."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sftlab.data import part_of
from sftlab.measure import Estimate, share
from sftlab.paths import write_atomically
from sftlab.show.cards import render
from sftlab.show.plots import COLOURS, GREY, Picture, finish, new_axes, styled
from sftlab.show.run_plots import plot_loss, plot_meter
from sftlab.train import Answer, Outcome, OwnRun, first_difference, is_exact, is_short

_SAMPLES = 8
"""Rows whose answers are shown."""
_LOSS = 0.1
"""The loss of old skills from which the summary speaks of forgetting."""


class Report:
    """A page from a template, as Markdown and as one HTML file that needs no other."""

    def __init__(self, template: str, *, pictures: Mapping[str, Picture], **values: Any) -> None:
        self.pictures = dict(pictures)
        """File name -> picture; the Markdown refers to these files."""
        self._template, self._values = template, values

    def _render(self, kind: str) -> str:
        values = {"pictures": self.pictures, "fence_for": _fence, **self._values}
        return render(self._template, kind=kind, **values)

    @property
    def markdown(self) -> str:
        """The report as Markdown."""
        return self._render("md")

    @property
    def html(self) -> str:
        """The report as one page."""
        return self._render("html")

    def save(self, folder: Path) -> None:
        """Write report.md, its pictures, and last report.html, whole or not at all."""
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
    baselines: Mapping[str, Mapping[str, Estimate]] | None = None,
    segments: Mapping[str, Estimate] | None = None,
    losses: Sequence[str] = (),
    samples: Sequence[tuple[str, str, str]] = (),
    pictures: Mapping[str, Picture] | None = None,
    provenance: Mapping[str, str] | None = None,
) -> Report:
    """The evaluation of a run on one page, as one would hand it to a team.

    Args:
        title: what was evaluated, and `verdict` one or two sentences that somebody will act on.
        scores: measure -> score; `baselines` have the same measures, by name.
        segments: segment -> score, as `segment_means` gives them; the weakest comes first.
        losses: what the run does worse than before, and what was not measured.
        samples: (question, answer, right answer) of answers that are wrong.
        pictures: by file name.

    Raises:
        ValueError: there is no score.
    """
    if not scores:
        raise ValueError("scores is empty: give at least one measure with its estimate")
    others, rows = baselines or {}, []
    for name, found in scores.items():
        compared = [one.get(name, "") for one in others.values()]
        rows.append([name, found, *compared, f"{found.seeds} × {found.items:,}"])
    weakest = sorted((segments or {}).items(), key=lambda pair: pair[1].value)
    return Report(
        "evaluation.report",
        title=title,
        verdict=verdict,
        baselines=others,
        rows=rows,
        segments=[(name, one, f"{one.items:,}") for name, one in weakest],
        losses=losses,
        samples=samples,
        pictures=pictures or {},
        provenance=provenance or {},
    )


def write_report(done: OwnRun) -> Report:
    """Write report.md, report.html and their pictures into the folder of a run on your own file."""
    run, before = done.run, done.before
    points = [(0, before.loss)] if before else []
    points += [(point["step"], point["loss"]) for point in run.validation]
    meter = {"before": done.skills["before"], "title": "Old skills"}
    report = Report(
        "own_run.report",
        title=f"{done.folder.resolve().name}: {run.provenance['profile']['name']} fine-tuned on "
        f"{done.data.file}",
        summary=summary(done),
        next_command=next_command(done),
        data=done.data,
        problems=[(f"{n:,}", what) for what, n in done.data.report.kinds.most_common()],
        epochs=[(f"{point['epoch']:g}", f"{point['loss']:.3f}") for point in run.validation],
        measures=_measures(done) if before else [],
        samples=_samples(done) if before else [],
        provenance=_provenance(done),
        pictures={
            "lengths.png": _lengths(done),
            "curves.png": plot_loss(run.history, title="Loss during training", validation=points),
            "meter.png": plot_meter({"trained": done.skills["after"]}, **meter),
        },
    )
    report.save(done.folder)
    return report


def next_command(done: OwnRun) -> str:
    """What to type next."""
    name = str(done.folder)
    return "sftlab chat " + (json.dumps(name) if " " in name else name)


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
    if kept - left > _LOSS:
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
    count = len(after.answers)
    if count and is_short(held):
        shares = " to ".join(_exact(one, held) for one in (before, after))
        lines.append(f"Exact matches: from {shares} of {count:,} held-out rows.")
    if count:
        ended = [sum(one.ended for one in found.answers) for found in (before, after)]
        lines.append(
            f"Answers that end by themselves: from {ended[0]:,} to {ended[1]:,} of {count:,}."
        )
        if ended[1] < count:
            lines[-1] += " The others run on: more epochs often help."
    return lines


def _exact(found: Outcome, held: Sequence[dict]) -> str:
    return str(share([is_exact(one.text, held[one.row]) for one in found.answers]))


def _measures(done: OwnRun) -> list[tuple[str, ...]]:
    """Rows of measure, base, trained."""
    both, held = (done.before, done.after), done.data.held_out
    rows = [("loss, nats per supervised token", *(f"{one.loss:.3f}" for one in both))]
    if n := len(done.after.answers):
        if is_short(held):
            rows.append((f"exact matches, of {n}", *(_exact(one, held) for one in both)))
        ended = [str(sum(answer.ended for answer in one.answers)) for one in both]
        rows.append((f"answers that end by themselves, of {n}", *ended))
        agreed = [[first_difference(a.text, held[a.row]) for a in one.answers] for one in both]
        label = "words that agree before the first that differs, median"
        rows.append((label, *(str(sorted(found)[n // 2]) for found in agreed)))
    return rows


def _samples(done: OwnRun) -> list[list[tuple[str, str, int]]]:
    """Who said what, and how many characters of it agree with the reference."""
    samples = []
    pairs = zip(done.before.answers, done.after.answers, strict=True)
    for base, trained in list(pairs)[:_SAMPLES]:
        row = done.data.held_out[trained.row]
        said = [("question", _question(row), 0), ("reference", part_of(row, "answer"), 0)]
        for who, answer in (("base", base), ("trained", trained)):
            said.append((who, _shown(answer), _marked(answer.text, row)))
        samples.append(said)
    return samples


def _question(row: dict) -> str:
    """All before the answer, and who said it where it is more than a question."""
    messages = row["messages"][:-1]
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n".join(f"{message['role']}: {message['content']}" for message in messages)


def _shown(answer: Answer) -> str:
    if not answer.ended:
        return f"{answer.text} [stopped here: it did not end]"
    return answer.text if answer.text.strip() else "[nothing]"


def _marked(answer: str, row: dict) -> int:
    """Characters of the words that agree with the reference."""
    place = 0
    for word in answer.split()[: first_difference(answer, row)]:
        place = answer.index(word, place) + len(word)
    return place


def _provenance(done: OwnRun) -> list[tuple[str, str]]:
    from_run = done.run.provenance
    settings = {k: v for k, v in vars(done.run.settings).items() if v is not None}
    shown = " ".join(str(settings.pop("template")).split())
    shown = shown if len(shown) < 100 else f"{shown[:100]}... (run.json has all of it)"
    added = ", ".join(from_run["added_tokens"])
    return [
        ("file", f"{done.data.file}, SHA-256 {done.data.sha256}"),
        ("training rows", f"SHA-256 {from_run['data']}"),
        ("base", f"{from_run['profile']['name']}, weights SHA-256 {from_run['base_weights']}"),
        ("template", shown),
        *([("added tokens", added)] if added else []),
        ("settings", ", ".join(f"{k} {v}" for k, v in settings.items())),
        ("versions", ", ".join(f"{k} {v}" for k, v in from_run["packages"].items())),
        ("machine", f"Python {from_run['python']}, {from_run['platform']}, {from_run['device']}"),
        ("seconds of training", f"{done.run.seconds:.1f} (after the last resumption)"),
    ]


@styled
def _lengths(done: OwnRun) -> Picture:
    """How long the rows are, and the limit where it is near."""
    tokens = [one.tokens for one in done.data.lengths]
    limit = done.data.settings.max_length
    (ax,) = new_axes(2.3)
    ax.hist(tokens, bins=min(40, max(5, len(set(tokens)))), color=COLOURS[0])
    near = limit < 1.5 * max(tokens)
    if near:
        ax.axvline(limit, color=GREY, linewidth=1.2, linestyle="--")
    where = "dashed" if near else "beyond the picture"
    x = f"tokens of a row (max_length {limit:,}: {where})"
    longer = sum(count > limit for count in tokens)
    alt = [f"{min(tokens):,} to {max(tokens):,} tokens, {longer:,} rows over the limit {limit:,}"]
    return finish(ax, "How long the rows are", alt, x=x, y="rows")
