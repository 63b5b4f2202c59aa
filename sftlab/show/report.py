"""The report of a training on your own file: what was masked and dropped, and what it changed."""

import json
from collections.abc import Sequence

import pandas as pd

from sftlab.data import part_of
from sftlab.measure import share
from sftlab.show.document import Document
from sftlab.show.forgetting import plot_meter
from sftlab.show.plots import COLOURS, GREY, Picture, _axes
from sftlab.train import Answer, Outcome, OwnRun, first_difference, is_exact, is_short

SAMPLES = 8
"""Rows whose answers are shown."""
LOSS = 0.1
"""Of the old skills, from which the summary speaks of forgetting."""


def write_report(done: OwnRun) -> Document:
    """Write report.md, curves.png, lengths.png, meter.png and report.html into the run's folder."""
    made = Document(f"{done.folder.resolve().name}: {done.run.provenance['profile']['name']} "
                    f"fine-tuned on {done.data.file}")  # fmt: skip
    for line in summary(done):
        made.paragraph(line)
    made.heading("Talk to it")
    made.code(next_command(done))
    made.heading("The data")
    made.table(done.data.table(), head=("what", "found"))
    if done.data.report.problems:
        made.paragraph(
            f"What was wrong with the {done.data.report.bad:,} bad rows; data/rejected.jsonl has "
            "each of them with its own faults."
        )
        made.table(
            [(f"{n:,}", what) for what, n in done.data.report.kinds.most_common()],
            head=("times", "problem"),
        )
    for note in done.data.notes:
        made.paragraph(f"Note: {note}.")
    made.picture("lengths.png", _lengths(done))
    made.heading("The training")
    made.picture("curves.png", _curves(done))
    if done.run.validation:
        made.table(
            [(f"{point['epoch']:g}", f"{point['loss']:.3f}") for point in done.run.validation],
            head=("epoch", "loss on held-out rows"),
        )
    if done.before:
        _before_and_after(made, done)
    made.heading("What it could before")
    made.picture("meter.png", plot_meter(
        {"trained": done.skills["after"]}, before=done.skills["before"], title="Old skills"
    ))  # fmt: skip
    made.paragraph(
        "The forgetting meter: questions that have nothing to do with the file, which the base "
        "answers, and what the training left of them. Lesson 07 says what helps against a loss."
    )
    made.heading("Where it came from")
    made.table(_provenance(done), head=("what", "value"))
    made.save(done.folder)
    return made


def next_command(done: OwnRun) -> str:
    """What to type next."""
    name = str(done.folder)
    return "sftlab chat " + (json.dumps(name) if " " in name else name)


def summary(done: OwnRun) -> list[str]:
    """What came of it, a sentence each."""
    rows, steps = len(done.data.train), done.run.history[-1]["step"]
    lines = [
        f"{rows:,} rows, {steps:g} steps, {done.run.settings.method} "
        f"({done.run.trained:,} weights trained), learning rate "
        f"{done.run.settings.learning_rate:g}: the loss on what was learned went from "
        f"{done.run.history[0]['loss']:.2f} to {_end(done.run.history):.2f} nats a token."
    ]
    if done.run.kept_epoch is not None:
        lines.append(
            f"The weights are those of epoch {done.run.kept_epoch:g}, where the loss on the "
            "held-out rows was lowest: as they chose it, it flatters a little."
        )
    lines.append(_old_skills(done))
    if not done.before:
        return [*lines, "No row was held out, so nothing is known of questions that were not "
                "trained."]  # fmt: skip
    before, after, held = done.before, done.after, done.data.held_out
    lower = sum(a < b for a, b in zip(after.losses, before.losses, strict=True))
    lines.append(
        f"On the held-out rows the loss went from {before.loss:.2f} (the base, asked in "
        f"the same template) to {after.loss:.2f}; it is lower on {lower:,} of {len(held):,}."
    )
    if after.answers and is_short(held):
        told = " to ".join(str(share(_exact(one, held))) for one in (before, after))
        lines.append(
            f"Answered word for word: from {told} of {len(after.answers):,} held-out rows."
        )
    if after.answers:
        ended = [sum(one.ended for one in found.answers) for found in (before, after)]
        lines.append(
            f"Answers that end by themselves: from {ended[0]:,} to {ended[1]:,} of "
            f"{len(after.answers):,}."
            + (
                " The others go on without an end: more epochs often teach it."
                if ended[1] < len(after.answers)
                else ""
            )
        )
    return lines


def _old_skills(done: OwnRun) -> str:
    right = {when: frame["right"].dropna() for when, frame in done.skills.items()}
    before, after = (float(right[when].astype(float).mean()) for when in ("before", "after"))
    told = (
        f"Old skills, by the forgetting meter: {before:.0%} of {len(right['before'])} items right "
        f"before the training, {after:.0%} after it."
    )
    if before - after > LOSS:
        told += " That is forgetting: a lower learning rate or general examples among yours help."
    return told


def _end(history: Sequence[dict]) -> float:
    """The mean of the last tenth of the steps: one step's batch says little."""
    last = history[-max(1, len(history) // 10) :]
    return sum(row["loss"] for row in last) / len(last)


def _exact(found: Outcome, held: Sequence[dict]) -> list[bool]:
    return [is_exact(one.text, held[one.row]) for one in found.answers]


def _before_and_after(made: Document, done: OwnRun) -> None:
    before, after, held = done.before, done.after, done.data.held_out
    made.heading("Before and after, on rows that were not trained on")
    rows = [("loss, nats a learned token", f"{before.loss:.3f}", f"{after.loss:.3f}")]
    if after.answers:
        n = len(after.answers)
        if is_short(held):
            rows.append((f"answered word for word, of {n}",
                         *(str(share(_exact(one, held))) for one in (before, after))))  # fmt: skip
        ended = [f"{sum(a.ended for a in one.answers)}" for one in (before, after)]
        rows.append((f"answers that end by themselves, of {n}", *ended))
        agreed = [sorted(first_difference(a.text, held[a.row]) for a in one.answers)
                  for one in (before, after)]  # fmt: skip
        rows.append(("words that agree before the first that differs, in the middle",
                     *(f"{found[n // 2]}" for found in agreed)))  # fmt: skip
    made.table(rows, head=("measure", "base", "trained"))
    made.paragraph(
        "The base is asked in the template of the training. Shares have their 95% interval in "
        "brackets. What agrees with the reference, up to the first difference, is marked."
    )
    for old, new in list(zip(before.answers, after.answers, strict=True))[:SAMPLES]:
        row = held[new.row]
        made.sample([
            ("asked", _asked(row), 0),
            ("reference", part_of(row, "answer"), 0),
            *((who, _told(one), _marked(one.text, row))
              for who, one in (("base", old), ("trained", new))),
        ])  # fmt: skip


def _asked(row: dict) -> str:
    """All before the answer; who said it, where it is more than a question."""
    messages = row["messages"][:-1]
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n".join(f"{message['role']}: {message['content']}" for message in messages)


def _told(answer: Answer) -> str:
    if not answer.ended:
        return f"{answer.text} [stopped here: it did not end]"
    return answer.text if answer.text.strip() else "[nothing]"


def _marked(answer: str, row: dict) -> int:
    """Characters of the words that agree with the reference."""
    count, place = first_difference(answer, row), 0
    for word in answer.split()[:count]:
        place = answer.index(word, place) + len(word)
    return place


def _provenance(done: OwnRun) -> list[tuple[str, str]]:
    told = done.run.provenance
    settings = {k: v for k, v in vars(done.run.settings).items() if v is not None}
    shown = " ".join(str(settings.pop("template")).split())
    rows = [
        ("file", f"{done.data.file}, SHA-256 {done.data.sha256}"),
        ("rows learned from", f"SHA-256 {told['data']}"),
        ("base", f"{told['profile']['name']}, weights SHA-256 {told['base_weights']}"),
        ("template", shown if len(shown) < 100 else f"{shown[:100]}... (run.json has all of it)"),
        ("settings", ", ".join(f"{k} {v}" for k, v in settings.items())),
        ("versions", ", ".join(f"{k} {v}" for k, v in told["packages"].items())),
        ("machine", f"Python {told['python']}, {told['platform']}, {told['device']}"),
        ("seconds of training", f"{done.run.seconds:.1f} (after the last resumption)"),
    ]
    if told["added_tokens"]:
        rows.insert(4, ("tokens added", ", ".join(told["added_tokens"])))
    return rows


def _curves(done: OwnRun) -> Picture:
    """The loss by step; on held-out rows after each epoch, and of the base before the first."""
    history = done.run.history
    figure, (ax,) = _axes(7.2, 3.2)
    losses = pd.Series([row["loss"] for row in history])
    smooth = losses.rolling(max(1, len(losses) // 10), min_periods=1, center=True).mean()
    steps = [row["step"] for row in history]
    ax.plot(steps, losses, color=COLOURS[4], linewidth=1, alpha=0.5)
    ax.plot(steps, smooth, color=COLOURS[0], linewidth=2, label="learned from (running mean)")
    told = f"Training loss from {losses.iloc[0]:.2f} to {smooth.iloc[-1]:.2f}"
    points = [(point["step"], point["loss"]) for point in done.run.validation]
    if done.before:
        points = [(0, done.before.loss), *points]
    if points:
        ax.plot(*zip(*points, strict=True), color=COLOURS[5], marker="o", linewidth=1.6,
                label="held out (before, and after each epoch)")  # fmt: skip
        told += f"; on held-out rows from {points[0][1]:.2f} to {points[-1][1]:.2f}"
    ax.set_ylim(0, None)
    ax.legend(frameon=False, fontsize=9)
    ax.set_xlabel("step", fontsize=9, color="#444444")
    ax.set_ylabel("loss, nats a learned token", fontsize=9, color="#444444")
    ax.set_title("Loss while it trained", loc="left", fontsize=11)
    return Picture(figure, alt=told + ".")


def _lengths(done: OwnRun) -> Picture:
    """How long the rows are, and the limit where it is near."""
    tokens = [one.tokens for one in done.data.lengths]
    limit = done.data.settings.max_length
    figure, (ax,) = _axes(7.2, 2.3)
    ax.hist(tokens, bins=min(40, max(5, len(set(tokens)))), color=COLOURS[0])
    near = limit < 1.5 * max(tokens)
    if near:
        ax.axvline(limit, color=GREY, linewidth=1.2, linestyle="--")
    where = "dashed" if near else "beyond the picture"
    ax.set_xlabel(f"tokens of a row (max_length {limit:,}: {where})", fontsize=9, color="#444444")
    ax.set_ylabel("rows", fontsize=9, color="#444444")
    ax.set_title("How long the rows are", loc="left", fontsize=11)
    longer = sum(count > limit for count in tokens)
    return Picture(
        figure,
        alt=f"Rows of {min(tokens):,} to {max(tokens):,} tokens, {longer:,} of them longer than "
        f"max_length {limit:,}.",
    )
