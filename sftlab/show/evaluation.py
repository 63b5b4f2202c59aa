"""The evaluation of a fine-tune on one page, with a verdict that is computed from its baselines."""

from collections.abc import Sequence

import pandas as pd

from sftlab.measure import Estimate, components, detectable, difference, equivalent, mean, percent
from sftlab.show.report import Report
from sftlab.sweeps import Results
from sftlab.train import Run

BETTER, WORSE, EQUAL, OPEN = "better", "worse", "equal", "not resolved"


class ReportError(ValueError):
    """An evaluation from which no verdict can follow."""


def evaluation_report(
    title: str,
    results: Results,
    *,
    subject: str,
    run: Run,
    measure: str = "answers",
    before: str | None = None,
    margin: float = 0.05,
    allowed: float = 0.1,
    segments: Sequence[str] = ("relation", "group"),
    not_measured: Sequence[str] = (),
) -> Report:
    """Compare one arm of an experiment with every other arm, and say what follows.

    Args:
        results: of `Experiment.run`, in whose frame `measure` has the columns right and country.
        subject: the arm that is judged; all other arms are its baselines.
        run: a run of this arm, for its provenance.
        before: the arm of the untrained base, where the experiment has the measure "meter".
        margin: differences within +-margin count as equal (two one-sided tests).
        allowed: by how much the share of old skills on the meter may fall.
        segments: columns by which accuracy is reported apart.
        not_measured: what nobody looked at; it stands on the page too.

    Raises:
        ReportError: there is no baseline, or the subject or `before` is not an arm.
    """
    frame = results.frame[results.frame["measure"] == measure]
    arms = list(frame["arm"].unique())
    if missing := [arm for arm in (subject, before) if arm is not None and arm not in arms]:
        raise ReportError(f"no arm is called {missing[0]!r}; there are {', '.join(arms)}")
    baselines = [arm for arm in arms if arm != subject]
    if not baselines:
        raise ReportError(
            f"{subject!r} is compared with nothing, so no verdict follows: add a baseline to the "
            "experiment, at least the untrained base with a few-shot prompt"
        )
    ours, several = results.of(measure, arm=subject), {"comparisons": len(baselines)}
    gaps = {arm: results.difference(subject, arm, measure, **several) for arm in baselines}
    readings = {arm: _reading(gap, margin) for arm, gap in gaps.items()}
    skills, drop = _skills(results, subject, before)
    verdict = _verdict(subject, gaps, readings, drop, margin, allowed)
    changes = [
        _change(
            subject, arm, gap, readings[arm], _smallest(ours, results.of(measure, arm=arm), gap)
        )
        for arm, gap in gaps.items()
    ]
    wrong = ours[~ours["right"].astype(bool)]
    wrong = wrong[wrong["seed"] == wrong["seed"].min()].head(6)
    unknown = list(not_measured)
    if drop is None:
        unknown.insert(0, "Forgetting: the experiment has no measure 'meter' of subject and base.")
    score = mean(ours)
    return Report(
        "evaluation.report",
        pictures={},
        title=title,
        verdict=verdict,
        score=f"{subject}: accuracy {score}, {score.seeds} seeds × {score.items:,} questions.",
        baselines=[
            (arm, mean(results.of(measure, arm=arm)), gap, _win_rate(gap), readings[arm])
            for arm, gap in gaps.items()
        ],
        changes=changes,
        segments=_segments(ours, segments, score),
        drop=drop,
        skills=skills,
        unknown=unknown,
        samples=list(zip(wrong["prompt"], wrong["output"], wrong["expected"], strict=True)),
        provenance=provenance(run, score.seeds),
    )


def _reading(gap: Estimate, margin: float) -> str:
    if equivalent(gap, margin):
        return f"{EQUAL} within {100 * margin:g} points"
    return BETTER if gap.low > 0 else WORSE if gap.high < 0 else OPEN


def _verdict(
    subject: str,
    gaps: dict[str, Estimate],
    readings: dict[str, str],
    drop: Estimate | None,
    margin: float,
    allowed: float,
) -> str:
    """One or two sentences that somebody will act on."""
    named = {word: [arm for arm, r in readings.items() if r == word] for word in (WORSE, OPEN)}
    equal = [arm for arm, reading in readings.items() if reading.startswith(EQUAL)]
    better = [arm for arm, reading in readings.items() if reading == BETTER]
    forgot = ""
    if drop is not None and drop.low < -allowed:
        sure = drop.high < -allowed
        forgot = f"Old skills fell by {drop}, " + (
            f"more than the {100 * allowed:g} points allowed."
            if sure
            else f"and a fall of more than {100 * allowed:g} points cannot be ruled out."
        )
    if named[WORSE]:
        lost = "; ".join(f"{arm} ({gaps[arm]})" for arm in named[WORSE])
        found = f"Do not ship {subject}: it is worse than {lost}."
    elif drop is not None and drop.high < -allowed:
        return f"Do not ship {subject}. {forgot}"
    elif named[OPEN]:
        found = f"Not decided: {subject} is neither better nor worse than {_and(named[OPEN])}"
        found += f", and not shown to be equal within {100 * margin:g} points."
    elif equal:
        found = f"{subject} equals {_and(equal)} within {100 * margin:g} points"
        found += f" and is better than {_and(better)}" if better else ""
        found += ": ship whichever costs less."
    else:
        found = f"Ship {subject}, as far as these questions go: it is better than {_and(better)}."
    return f"{found} {forgot}".strip()


def _and(names: Sequence[str]) -> str:
    *first, last = names
    return f"{'; '.join(first)} and {last}" if first else last


def _smallest(ours: pd.DataFrame, theirs: pd.DataFrame, gap: Estimate) -> float | None:
    """The smallest difference that this test sees four times in five; None where unknown."""
    if ours["seed"].nunique() < 2 or gap.entities < 2:
        return None
    pilot = components(ours, theirs)
    return detectable(pilot, seeds=gap.seeds, entities=gap.entities)


def _change(subject: str, arm: str, gap: Estimate, reading: str, smallest: float | None) -> str:
    """What would change the verdict, as far as this baseline goes."""
    if reading == WORSE:
        return (
            f"Against {arm}: {subject} has to gain {-100 * gap.value:.0f} points to draw level, or "
            f"there has to be a reason why {arm} cannot be used, such as its cost per request."
        )
    if reading == BETTER:
        least = max(1, round(100 * gap.low))
        return f"Against {arm}: a stronger version of it, by {least} points or more."
    if reading == OPEN:
        seen = f" (this test sees {100 * smallest:.0f} points or more)" if smallest else ""
        return f"Against {arm}: more questions, then more seeds{seen}."
    return f"Against {arm}: a reason to care about less than the margin."


def _win_rate(gap: Estimate) -> str:
    """A judge who knows the truth gives 1, 0.5 or 0: on average 0.5 + difference / 2."""
    value, low, high = (percent(0.5 + end / 2) for end in (gap.value, gap.low, gap.high))
    return f"{value} ({low} to {high})"


def _segments(
    ours: pd.DataFrame, columns: Sequence[str], score: Estimate
) -> list[tuple[str, Estimate, str, str]]:
    """The weakest first: segment, accuracy, number of questions, and whether it stands out."""
    found = []
    for column in columns:
        for name, part in ours.groupby(column):
            here = mean(part)
            apart = (
                "weaker" if here.high < score.low else "stronger" if here.low > score.high else ""
            )
            found.append((f"{column}: {name}", here, f"{here.items:,}", apart or OPEN))
    return sorted(found, key=lambda row: row[1].value)


def _skills(results: Results, subject: str, before: str | None):
    """(skill, base, subject) of the forgetting meter, and by how much the whole of it changed."""
    frame = results.frame[results.frame["measure"] == "meter"]
    if before is None or not {subject, before} <= set(frame["arm"]):
        return [], None
    frame = frame.dropna(subset=["right"]).assign(right=lambda f: f["right"].astype(bool))
    base, now = (frame[frame["arm"] == arm] for arm in (before, subject))
    rows = [
        (skill, percent(base[base["skill"] == skill]["right"].mean()), mean(part, entity="item"))
        for skill, part in now.groupby("skill", sort=False)
    ]
    return rows, difference(now, base, entity="item")


def provenance(run: Run, seeds: int) -> list[tuple[str, str]]:
    """What a run was made from, as rows of a table."""
    origin, used = run.provenance, run.settings
    training = (
        f"{used.method}, learning rate {used.learning_rate:g}, {used.num_train_epochs:g} epochs"
    )
    runs = f"{seeds} seed{'s' * (seeds != 1)}"
    return [
        ("base", f"{origin['profile']['name']}, weights SHA-256 {origin['base_weights']}"),
        ("training rows", f"SHA-256 {origin['data']}"),
        ("training", f"{training}, batches of {used.per_device_train_batch_size}, {runs}"),
        ("versions", ", ".join(f"{name} {one}" for name, one in origin["packages"].items())),
        ("machine", f"{origin['device']}, Python {origin['python']}"),
    ]
