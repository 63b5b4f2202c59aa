"""The evaluation of a run on one page, as one would hand it to a team."""

from collections.abc import Mapping, Sequence

from sftlab.measure import Estimate
from sftlab.show.document import Document
from sftlab.show.plots import Picture


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
) -> Document:
    """The page: verdict, scores beside those of the baselines, segments, what got worse, samples.

    Args:
        title: what was evaluated.
        verdict: one or two sentences that somebody will act on.
        scores: by measure, with intervals.
        baselines: by name, their scores of the same measures.
        segments: the score by segment, as `segment_means` gives them; the weakest stands first.
        losses: what the run does worse than before, and what was not measured.
        samples: (question, answer, right answer) of answers that are wrong.
        pictures: by file name.
        provenance: where the run and the numbers came from.

    Raises:
        ValueError: there is no score.
    """
    if not scores:
        raise ValueError("there are no scores: a report without a number says nothing")
    made = Document(title)
    made.paragraph(verdict)
    made.heading("Scores, with 95% intervals")
    others = baselines or {}
    head = ("measure", "this run", *others, "seeds × items")
    rows = [
        (name, str(found), *(str(one.get(name, "")) for one in others.values()),
         f"{found.seeds} × {found.items:,}")
        for name, found in scores.items()
    ]  # fmt: skip
    made.table(rows, head=head)
    for name, picture in (pictures or {}).items():
        made.picture(name, picture)
    if segments:
        made.heading("By segment, the weakest first")
        ordered = sorted(segments.items(), key=lambda pair: pair[1].value)
        made.table(
            [(name, str(one), f"{one.items:,}") for name, one in ordered],
            head=("segment", "score", "items"),
        )
    if losses:
        made.heading("What got worse, and what is not known")
        for line in losses:
            made.paragraph(line)
    if samples:
        made.heading("Wrong answers, as they came")
        made.table(samples, head=("asked", "answered", "right"))
    if provenance:
        made.heading("Where it came from")
        made.table(list(provenance.items()), head=("what", "value"))
    return made
