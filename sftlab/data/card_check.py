"""What a data card lacks of what the law and the hub ask for.

The EU AI Act (Regulation 2024/1689) asks providers of high-risk systems to document their training
data: Article 10(2) lists the practices, Annex IV(2)(d) what the technical documentation tells of
provenance, selection, labelling and cleaning. It does not prescribe a data card, and names no
licence there; a card is one place for it all. This checks that something is stated, not that it is
true or enough: it is no legal advice.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sftlab.data.card import NOT_STATED, SIZE_CATEGORIES
from sftlab.data.parts import RowsError

if TYPE_CHECKING:
    from huggingface_hub import DatasetCard


@dataclass(frozen=True)
class Needed:
    """One thing that a card must state."""

    section: str
    """The heading under which it stands."""
    field: str
    """The bold word before it there; empty where the section's first paragraph is meant."""
    asked_by: str
    """Who asks for it."""
    remedy: str
    """What to write."""


NEEDED = (
    Needed("Purpose", "", "AI Act, Article 10(2), Annex IV(2)(d)", "say what the data is for"),
    Needed("Provenance", "Origin", "AI Act, Article 10(2)(b)", "name the sources"),
    Needed("Provenance", "Collection", "AI Act, Article 10(2)(b), Annex IV(2)(d)",
           "say how and when the rows were collected and chosen"),
    Needed("Licence", "Licence", "the hub; to show the right to use the sources",
           "name the licence"),
    Needed("Labelling", "Labeller", "AI Act, Article 10(2)(c)",
           "say who wrote or labelled the answers"),
    Needed("Labelling", "Labelling", "AI Act, Article 10(2)(c), Annex IV(2)(d)",
           "say how the labels were made and checked"),
    Needed("Preparation", "", "AI Act, Article 10(2)(c), Annex IV(2)(d)",
           "say what was cleaned, dropped and redacted"),
    Needed("Bias", "", "AI Act, Article 10(2)(f) and (g)",
           "say which biases were looked for, and what was found"),
    Needed("Personal data", "", "AI Act, Article 10(2)(b); GDPR",
           "say whose data is inside and why it may be used, or that there is none"),
    Needed("Gaps", "", "AI Act, Article 10(2)(h)", "say what is missing or outdated"),
)  # fmt: skip
"""Required for a complete card. The four that lesson 02 insists on are among them: provenance,
licence, labeller and the examination for bias."""
FRONT_MATTER = ("license", "language", "size_categories", "task_categories", "pretty_name")
"""Fields that the hub reads to show and to filter data sets."""


@dataclass(frozen=True)
class Missing:
    """One thing that a card lacks."""

    what: str
    """Section and field, or the field of the front matter."""
    asked_by: str
    """Who asks for it."""
    remedy: str
    """What to write, and where."""

    def __str__(self) -> str:
        return f"{self.what}: {self.remedy} (asked by: {self.asked_by})"


def check_card(card: "DatasetCard | str | Path") -> list[Missing]:
    """Everything that a card lacks; an empty list when it is complete.

    `card` is what `write_card` gave, the Markdown, or a file's path. Sections are found by their
    headings, so a card written by hand is checked alike.

    Raises RowsError for a file that is not there, or front matter that is no YAML.
    """
    from huggingface_hub import DatasetCard

    if isinstance(card, Path):
        try:
            card = card.read_text(encoding="utf-8")
        except OSError as error:
            raise RowsError(
                f"{card}: can't be read ({error.strerror}): give a card's path"
            ) from None
    if isinstance(card, str):
        try:
            card = DatasetCard(card)
        except Exception as error:  # the YAML parser's own kinds
            raise RowsError(f"the card's front matter can't be read: {error}") from None
    sections = _sections(card.text)
    found = [
        Missing(
            f"{need.section}: {need.field}" if need.field else need.section,
            need.asked_by,
            f"{need.remedy}, under '## {need.section}'",
        )
        for need in NEEDED
        if not _states(sections.get(need.section.casefold(), ""), need.field)
    ]
    if not re.search(r"\|\s*\d", sections.get("bias", "")):
        remedy = "count the rows of each group in a table under '## Bias' (`bias_by`)"
        found.append(Missing("Bias: counts", "AI Act, Article 10(2)(f)", remedy))
    return found + _front_matter_faults(card.data.to_dict())


def _sections(text: str) -> dict[str, str]:
    parts = re.split(r"^## +(.+?) *$", text, flags=re.MULTILINE)
    return {
        heading.casefold(): body.strip()
        for heading, body in zip(parts[1::2], parts[2::2], strict=True)
    }


def _states(section: str, field: str) -> bool:
    """Whether a section says something: in its field, or else in its first paragraph."""
    if field:
        found = re.search(rf"\*\*{field}:\*\*(.*?)(?=\n\s*\n|\Z)", section, flags=re.DOTALL)
        text = found[1] if found else ""
    else:
        text = section.split("\n\n")[0]
    return text.strip() not in ("", NOT_STATED, "[More Information Needed]")


def _front_matter_faults(data: dict) -> list[Missing]:
    def missing(field: str, remedy: str) -> Missing:
        return Missing(f"front matter: {field}", "the hub", remedy)

    found = [missing(field, "write it") for field in FRONT_MATTER if not data.get(field)]
    for value in _listed(data.get("license")):
        if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", str(value)):
            remedy = f"{value!r} is no identifier of the hub: write one such as mit or cc-by-4.0"
            found.append(missing("license", remedy))
        elif value == "other":
            found += [
                missing(field, "a licence of your own needs it")
                for field in ("license_name", "license_link")
                if not data.get(field)
            ]
    for value in _listed(data.get("language")):
        if not re.fullmatch(r"[a-z]{2,3}|code|multilingual", str(value)):
            remedy = f"{value!r} is no ISO 639 code of two or three letters: write one such as en"
            found.append(missing("language", remedy))
    for value in _listed(data.get("size_categories")):
        if value not in SIZE_CATEGORIES:
            remedy = f"{value!r} is none of {', '.join(SIZE_CATEGORIES)}"
            found.append(missing("size_categories", remedy))
    return found


def _listed(value: object) -> list:
    return value if isinstance(value, list) else [value] if value else []
