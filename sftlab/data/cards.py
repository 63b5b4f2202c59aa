"""A data card written from the data, as Markdown with the hub's front matter, and what it lacks.

What can be counted is counted. What only people know is stated in `About`; what is not stated is
`NOT_STATED` in the card (its form is `card.md`), and `check_card` names it (`card.toml` has why).

The EU AI Act (Regulation 2024/1689) asks providers of high-risk systems to document their training
data, in Article 10(2) and Annex IV(2)(d); it does not prescribe a data card. `check_card` sees that
something is stated, not that it is true or enough.
"""

import hashlib
import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from sftlab.data.privacy import LIMITS, listed, redact, redact_text
from sftlab.data.quality import checklist, count_values, lengths
from sftlab.data.rows import Key, Row, RowsError, checked
from sftlab.data.splits import Splits

NOT_STATED = "Not stated."
_HERE = Path(__file__)
RULES = tomllib.loads(_HERE.with_name("card.toml").read_text(encoding="utf-8"))
_SIZES = RULES["front_matter"]["size_categories"][0].split("|")


@dataclass(frozen=True, kw_only=True)
class About:
    """What the rows can't say about themselves. Leave empty what you do not know."""

    name: str
    purpose: str = ""  # what the data is for, and what it is not for
    origin: str = ""  # sources, with versions or dates; people, programs, models
    collection: str = ""  # how and when rows were collected and chosen, or generated
    license: str = ""  # the hub's identifier, such as mit, apache-2.0 or cc-by-4.0; or other
    license_name: str = ""  # with `other`: a short identifier of your own
    license_link: str = ""  # with `other`: the address or file of its text
    rights: str = ""  # why the sources may be used under it; opt-outs that were honoured
    labeller: str = ""  # who wrote or labelled the answers, and what qualifies them
    labelling: str = ""  # how: instructions, checks, agreement between labellers
    preparation: str = ""  # what was cleaned, dropped, redacted, converted; how many rows
    bias: str = ""  # which biases were looked for, what was found and done
    personal: str = ""  # whose personal data is inside, and the ground to use it
    gaps: str = ""  # what is missing, outdated or thin, and what follows from it
    languages: tuple[str, ...] = ()  # ISO 639 codes, such as en
    tasks: tuple[str, ...] = ("text-generation",)  # the hub's task categories
    tags: tuple[str, ...] = ()

    def __post_init__(self):
        for field in ("languages", "tasks", "tags"):
            if isinstance(getattr(self, field), str):
                raise RowsError(f"{field}={getattr(self, field)!r}: give a tuple of strings")


def write_card(
    rows: Iterable[Row],
    about: About,
    *,
    bias_by: Mapping[str, Key] | None = None,
    splits: Splits | None = None,
    checks: pd.DataFrame | None = None,
    names: Iterable[str] = (),
):
    """A card of the rows, as a `huggingface_hub.DatasetCard`: `.save(path)`, `.text`, `.data`.

    Args:
        bias_by: names and keys whose counts the section on bias shows, such as {"region": ...}.
        splits, checks: what `split` and `checklist` gave; by default a checklist of the rows alone.
        names: names of people to look for in the rows.
    """
    from huggingface_hub import DatasetCard, DatasetCardData

    rows, bias_by, names = checked(rows), dict(bias_by or {}), listed(names)
    if checks is None:
        checks = checklist(rows, cover=bias_by, names=names)
    # A reading may quote a row, and the card is for everyone.
    checks = checks.assign(reading=[redact_text(one, names) for one in checks["reading"]])
    counted = []
    for name, key in bias_by.items():
        counts = pd.Series(count_values(rows, key), name="rows").rename_axis("value").reset_index()
        shares = counts.assign(share=counts["rows"] / counts["rows"].sum())
        counted.append(f"Rows by {name}:\n\n{_table(shares)}")
    lines = (json.dumps(row, sort_keys=True, ensure_ascii=False, default=str) for row in rows)
    text = "".join(f"{line}\n" for line in lines)
    personal = pd.DataFrame(redact(rows, names=names)[1].items(), columns=["kind", "found"])
    duplicates = checks[checks["aspect"] == "deduplication"].drop(columns="aspect")
    front = DatasetCardData(
        language=list(about.languages) or None,
        license=about.license or None,
        license_name=about.license_name or None,
        license_link=about.license_link or None,
        size_categories=[_SIZES[max(len(str(len(rows))) - 3, 0)]],
        task_categories=list(about.tasks) or None,
        pretty_name=about.name,
        tags=list(about.tags) or None,
    )
    return DatasetCard.from_template(
        front,
        template_path=str(_HERE.with_name("card.md")),
        about=about,
        not_stated=NOT_STATED,
        licence=" ".join(filter(None, (about.license, about.license_name, about.license_link))),
        count=len(rows),
        sha256=hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest(),
        lengths=_table(lengths(rows).reset_index()),
        counted="\n\n".join(counted),
        personal=_table(personal),
        limits=LIMITS,
        splits="" if splits is None else _table(splits.report.reset_index()),
        duplicates=_table(duplicates),
        checklist=_table(checks),
    )


def _table(frame: pd.DataFrame) -> str:
    """The frame as a Markdown table, without its index."""
    lines = [list(frame.columns), ["---"] * len(frame.columns), *frame.itertuples(index=False)]
    return "\n".join("| " + " | ".join(_cell(value) for value in line) + " |" for line in lines)


def _cell(value: object) -> str:
    if value is None or value != value:
        return "-"
    number = hasattr(value, "__float__") and not isinstance(value, bool | str)
    text = f"{float(value):.3f}".rstrip("0").rstrip(".") if number else str(value)
    return " ".join(text.replace("|", "\\|").split())


class Missing(NamedTuple):
    """One thing that a card lacks."""

    what: str  # section and field, or the field of the front matter
    required_by: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}: {self.remedy} (required by: {self.required_by})"


def check_card(card) -> list[Missing]:
    """Everything that a card lacks; an empty list when it is complete.

    `card` is what `write_card` gave, or Markdown: sections are found by their headings.
    """
    from huggingface_hub import DatasetCard

    card = DatasetCard(card) if isinstance(card, str) else card
    parts = re.split(r"^## +(.+?) *$", card.text, flags=re.MULTILINE)
    sections = {a.casefold(): b.strip() for a, b in zip(parts[1::2], parts[2::2], strict=True)}
    found = []
    for section, field, required_by, do in RULES["needed"]:
        text = sections.get(section.casefold(), "")
        pattern = rf"\*\*{field}:\*\*(.*?)(?=\n\s*\n|\Z)" if field else r"(.*?)(?=\n\n|\Z)"
        said = re.search(pattern, text, flags=re.DOTALL)
        if not said or said[1].strip() in ("", NOT_STATED, "[More Information Needed]"):
            what = f"{section}: {field}" if field else section
            found.append(Missing(what, required_by, f"{do}, under '## {section}'"))
    if not re.search(r"\|\s*\d", sections.get("bias", "")):
        remedy = "count the rows of each group in a table under '## Bias' (`bias_by`)"
        found.append(Missing("Bias: counts", "AI Act, Article 10(2)(f)", remedy))
    data = card.data.to_dict()
    wrong = []
    for field, (form, wanted) in RULES["front_matter"].items():
        values = data.get(field) or []
        values = values if isinstance(values, list) else [values]
        wrong += [] if values else [(field, "write it")]
        bad = (value for value in values if not re.fullmatch(form, str(value)))
        wrong += [(field, f"{value!r} must be {wanted}") for value in bad]
    for field in ("license_name", "license_link"):
        if data.get("license") == "other" and not data.get(field):
            wrong.append((field, "a licence of your own needs it"))
    return found + [Missing(f"front matter: {field}", "the hub", do) for field, do in wrong]
