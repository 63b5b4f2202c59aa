"""A data card written from the data, as Markdown with the hub's front matter, and what it lacks.

What can be counted is counted; what only people know is stated in `About`. The card's form is
`card.md`; what it must state, and who requires it, is in `card.toml`: the EU AI Act (2024/1689,
Article 10(2)) asks for such documentation of high-risk systems, and prescribes no data card.
"""

import hashlib
import json
import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from sftlab.data.privacy import redact, redact_text
from sftlab.data.quality import lengths
from sftlab.data.rows import Key, Row, checked, values_of

NOT_STATED = "Not stated."
_HERE = Path(__file__)
RULES = tomllib.loads(_HERE.with_name("card.toml").read_text(encoding="utf-8"))
_SIZES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M")


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


def write_card(
    rows: Iterable[Row],
    about: About | Mapping[str, Any],
    *,
    checks: pd.DataFrame,
    bias_by: Mapping[str, Key] | None = None,
):
    """A card of the rows, as a `huggingface_hub.DatasetCard`: `.save(path)`, `.text`, `.data`.

    `checks` is what `checklist` gave; the section on bias counts what `bias_by` names.
    """
    from huggingface_hub import DatasetCard, DatasetCardData

    rows, about = checked(rows), about if isinstance(about, About) else About(**about)
    # A reading may quote a row, and the card is for everyone.
    checks = checks.assign(reading=checks["reading"].map(redact_text))
    counted = []
    for name, key in (bias_by or {}).items():
        values = Counter(values_of(rows, key)).most_common()
        shares = [(value, count, count / len(rows)) for value, count in values]
        table = _table(pd.DataFrame(shares, columns=["value", "rows", "share"]))
        counted.append(f"Rows by {name}:\n\n{table}")
    lines = (json.dumps(row, sort_keys=True, ensure_ascii=False, default=str) for row in rows)
    text = "".join(f"{line}\n" for line in lines)
    personal = pd.DataFrame(redact(rows)[1].items(), columns=["kind", "found"])
    front = DatasetCardData(
        language=list(about.languages) or None,
        license=about.license or None,
        license_name=about.license_name or None,
        license_link=about.license_link or None,
        size_categories=[_SIZES[max(len(str(len(rows))) - 3, 0)]],
        task_categories=["text-generation"],
        pretty_name=about.name,
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
        checklist=_table(checks),
    )


def _table(frame: pd.DataFrame) -> str:
    """The frame as a Markdown table, without its index."""
    lines = [list(frame.columns), ["---"] * len(frame.columns), *frame.itertuples(index=False)]
    return "\n".join("| " + " | ".join(_cell(value) for value in line) + " |" for line in lines)


def _cell(value: object) -> str:
    if isinstance(value, float):
        value = "-" if value != value else f"{round(value, 3):g}"
    return " ".join(str(value).replace("|", "\\|").split())


class Missing(NamedTuple):
    """One thing that a card lacks."""

    what: str  # section and field, or the field of the front matter
    required_by: str
    remedy: str


def check_card(card) -> list[Missing]:
    """Everything that a card of `write_card` lacks; its text may have been edited."""
    parts = re.split(r"^## +(.+?) *$", card.text, flags=re.MULTILINE)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    found = []
    for section, field, required_by, do in RULES["needed"]:
        text = sections.get(section, "").strip()
        pattern = rf"\*\*{field}:\*\*(.*?)(?=\n\s*\n|\Z)" if field else r"(.*?)(?=\n\n|\Z)"
        said = re.search(pattern, text, flags=re.DOTALL)
        if not said or said[1].strip() in ("", NOT_STATED):
            what = f"{section}: {field}" if field else section
            found.append(Missing(what, required_by, f"{do}, under '## {section}'"))
    if not re.search(r"\|\s*\d", sections.get("Bias", "")):
        remedy = "count the rows of each group in a table under '## Bias' (`bias_by`)"
        found.append(Missing("Bias: counts", "AI Act, Article 10(2)(f)", remedy))
    data = card.data.to_dict()
    for field, (form, wanted) in RULES["front_matter"].items():
        value = data.get(field) or ""
        values = [value] if isinstance(value, str) else value
        if bad := [one for one in values if not re.fullmatch(form, one)]:
            remedy = f"{bad[0]!r} must be {wanted}"
            found.append(Missing(f"front matter: {field}", "the hub", remedy))
    for field in ("license_name", "license_link"):
        if data.get("license") == "other" and not data.get(field):
            remedy = "a licence of your own needs it"
            found.append(Missing(f"front matter: {field}", "the hub", remedy))
    return found
