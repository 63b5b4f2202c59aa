"""A data card written from the data: Markdown with the hub's front matter, and what it lacks.

What can be counted is counted. What only people know (where the data come from, who labelled it,
what they examined) is stated in `About`; what is not stated stands in the card as `NOT_STATED`,
and `check_card` names it.

    ---                         front matter: license, language, size_categories ... (YAML)
    ---
    # Name
    ## Purpose ... ## Provenance ... ## Licence ... ## Labelling ...     stated
    ## Composition ... ## Bias ... ## Personal data ... ## Checklist     counted
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from sftlab.data.checks import checklist
from sftlab.data.parts import Key, Row, RowsError, checked
from sftlab.data.privacy import LIMITS, listed, redact, redact_text
from sftlab.data.quality import coverage, lengths
from sftlab.data.splits import Splits

if TYPE_CHECKING:
    from huggingface_hub import DatasetCard

NOT_STATED = "Not stated."
CREATORS = (
    "found", "crowdsourced", "expert-generated", "machine-generated", "no-annotation", "other",
)  # fmt: skip
_SIZES = (
    (10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"), (10**8, "10M<n<100M"), (10**9, "100M<n<1B"), (10**10, "1B<n<10B"),
    (10**11, "10B<n<100B"), (10**12, "100B<n<1T"),
)  # fmt: skip
SIZE_CATEGORIES = (*(name for _, name in _SIZES), "n>1T")


@dataclass(frozen=True, kw_only=True)
class About:
    """What the rows can't tell about themselves. Leave empty what you do not know."""

    name: str
    """What the data set is called."""
    purpose: str = ""
    """What the data is for, and what it is not for."""
    origin: str = ""
    """Where the rows come from: sources, with versions or dates; people, programs, models."""
    collection: str = ""
    """How and when they were collected and chosen, or generated."""
    license: str = ""
    """The hub's identifier of the licence, such as mit, apache-2.0 or cc-by-4.0; or other."""
    license_name: str = ""
    """With `other`: a short identifier of your own."""
    license_link: str = ""
    """With `other`: the address or file of its text."""
    rights: str = ""
    """Why the sources may be used under this licence; opt-outs that were honoured."""
    labeller: str = ""
    """Who wrote or labelled the answers: people and what qualifies them, a program, a model."""
    labelling: str = ""
    """How: instructions, checks, agreement between labellers."""
    annotations: str = ""
    """The same for the hub's filter: one of `CREATORS`."""
    preparation: str = ""
    """What was cleaned, dropped, redacted, converted, and how many rows that took."""
    bias: str = ""
    """Which biases were looked for, what was found, what was done about it."""
    personal: str = ""
    """Whose personal data is inside, why it was first collected, and the ground to use it."""
    gaps: str = ""
    """What is missing, outdated or thin, and what follows from it."""
    languages: tuple[str, ...] = ()
    """ISO 639 codes of the languages, such as en."""
    tasks: tuple[str, ...] = ("text-generation",)
    """The hub's task categories."""
    tags: tuple[str, ...] = ()
    """Free tags of the hub."""

    def __post_init__(self):
        if not self.name.strip():
            raise RowsError("name is empty: a card needs the data set's name")
        for field in ("languages", "tasks", "tags"):
            if isinstance(getattr(self, field), str):
                raise RowsError(f"{field}={getattr(self, field)!r}: give a tuple of strings")
        if self.annotations and self.annotations not in CREATORS:
            raise RowsError(f"annotations={self.annotations!r}: use one of {', '.join(CREATORS)}")


def write_card(
    rows: Iterable[Row],
    about: About,
    *,
    bias_by: Mapping[str, Key] | None = None,
    splits: Splits | None = None,
    checks: pd.DataFrame | None = None,
    names: Iterable[str] = (),
) -> "DatasetCard":
    """A card of the rows, as the hub's own object: `.save(path)`, `.text`, `.data`; no network.

    Args:
        about: what people state.
        bias_by: names and keys whose counts the section on bias shows, such as {"region": ...}.
        splits: what `split` gave, for their realised shares.
        checks: what `checklist` gave; by default it is computed with what the rows alone allow.
        names: names of people to look for in the rows.
    """
    from huggingface_hub import DatasetCard

    rows = checked(rows)
    bias_by, names = dict(bias_by or {}), listed(names)
    if checks is None:
        checks = checklist(rows, cover=bias_by, names=names)
    # A reading may quote a row, and the card is for everyone.
    readings = [redact_text(reading, names=names) for reading in checks["reading"]]
    checks = checks.assign(reading=readings)
    counted = "\n\n".join(
        f"Rows by {name}:\n\n{_table(coverage(rows, key).table)}" for name, key in bias_by.items()
    )
    _, personal = redact(rows, names=names)
    pieces = pd.DataFrame({"found": personal}).rename_axis("kind")
    licence = " ".join(filter(None, (about.license, about.license_name, about.license_link)))
    repeats = checks[checks["aspect"] == "deduplication"][["measured", "value", "reading"]]
    sections = {
        "Purpose": [about.purpose or NOT_STATED],
        "Provenance": _stated(Origin=about.origin, Collection=about.collection),
        "Licence": _stated(Licence=licence, Rights=about.rights),
        "Labelling": _stated(Labeller=about.labeller, Labelling=about.labelling),
        "Preparation": [about.preparation or NOT_STATED],
        "Composition": [
            f"{len(rows):,} rows; SHA-256 of the rows `{fingerprint(rows)}`.",
            _table(lengths(rows).reset_index(), index=False),
        ],
        "Bias": [about.bias or NOT_STATED, counted or "Rows by group: not counted."],
        "Personal data": [about.personal or NOT_STATED, _table(pieces), LIMITS],
        "Gaps": [about.gaps or NOT_STATED],
        "Splits": ["Not split." if splits is None else _table(splits.report)],
        "Duplicates": [_table(repeats, index=False)],
        "Checklist": [_table(checks, index=False)],
    }
    body = "\n\n".join(
        "\n\n".join([f"## {heading}", *paragraphs]) for heading, paragraphs in sections.items()
    )
    front = _front_matter(rows, about).to_yaml()
    return DatasetCard(f"---\n{front}\n---\n\n# {about.name}\n\n{body}\n")


def _front_matter(rows: list[Row], about: About):
    from huggingface_hub import DatasetCardData

    return DatasetCardData(
        language=list(about.languages) or None,
        license=about.license or None,
        license_name=about.license_name or None,
        license_link=about.license_link or None,
        annotations_creators=[about.annotations] if about.annotations else None,
        size_categories=[size_category(len(rows))],
        task_categories=list(about.tasks) or None,
        pretty_name=about.name,
        tags=list(about.tags) or None,
    )


def _stated(**fields: str) -> list[str]:
    return [f"**{name}:** {text or NOT_STATED}" for name, text in fields.items()]


def _table(frame: pd.DataFrame, *, index: bool = True) -> str:
    """The frame as a Markdown table."""
    frame = frame.reset_index() if index else frame
    lines = [list(frame.columns), ["---"] * len(frame.columns), *frame.itertuples(index=False)]
    return "\n".join("| " + " | ".join(_cell(value) for value in line) + " |" for line in lines)


def _cell(value: object) -> str:
    if value is None or value != value:
        return "-"
    number = hasattr(value, "__float__") and not isinstance(value, bool | str)
    text = f"{float(value):.3f}".rstrip("0").rstrip(".") if number else str(value)
    return " ".join(text.replace("|", "\\|").split())


def size_category(count: int) -> str:
    """The hub's name for so many rows: `n<1K`, `1K<n<10K` ..."""
    return next((name for limit, name in _SIZES if count < limit), "n>1T")


def fingerprint(rows: Iterable[Row]) -> str:
    """SHA-256 of the rows as JSON lines with sorted keys: it changes with any row and the order."""
    total = hashlib.sha256()
    for row in rows:
        line = json.dumps(row, sort_keys=True, ensure_ascii=False, default=str)
        total.update(line.encode("utf-8", "surrogatepass") + b"\n")
    return total.hexdigest()
