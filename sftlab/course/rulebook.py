"""`data/claims.toml`, read and checked: what the articles claim, and the rule for each.

`sftlab.course.recording` is the door to this room; lessons import from there.
"""

import difflib
import hashlib
import json
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from sftlab.course.verdict import KINDS, NOT_TESTABLE, UNITS, VERDICTS, Part
from sftlab.paths import DATA

LESSONS = (
    "00_start_here", "01_base_model_problem", "02_data", "03_chat_templates", "04_loss_masking",
    "05_training", "06_lora_qlora", "07_forgetting", "08_evaluation", "09_safety", "10_shipping",
    "11_classification", "12_beyond_sft",
)  # fmt: skip
"""File stems of the course's notebooks, those that are not written yet included."""
ARTICLES = {
    "P": "practical guide",
    "U": "under the hood",
    "G": "geeks' primer",
    "L": "enhancing accuracy",
    "V": "base-model problem",
}
"""Letter -> the article that it stands for."""
_NEEDED = ("claim", "source", "notebook", "expected")
_OPTIONAL = ("unit", "quoted", "not_testable", "rule")
_PART = ("part", "measures", "unit")


class ClaimsError(ValueError):
    """A mistake in `claims.toml`, or a claim, part or estimate that does not fit it."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One statement of the articles, and what would show that it holds."""

    id: str
    """Such as `B3`."""
    claim: str
    """The statement, in the course's words."""
    source: tuple[str, ...]
    """Letters of `ARTICLES`."""
    notebook: str
    """The lesson that measures it: one of `LESSONS`."""
    quoted: str
    """The figure that the article gives; empty when it gives none."""
    expected: str
    """The verdict that the lesson expects: one of `VERDICTS`."""
    not_testable: str
    """What of it no run here can test, and why; empty when all of it can."""
    rule: tuple[Part, ...]
    """The parts, all of which must hold; empty when nothing of it can be tested here."""

    @property
    def comparisons(self) -> int:
        """What `mean` and `difference` take as `comparisons`: the number of parts."""
        return max(1, len(self.rule))

    @property
    def level(self) -> float:
        """The level that each part's interval must have, so that all of them together err in 5%."""
        return 1 - 0.05 / self.comparisons

    @property
    def part_names(self) -> tuple[str, ...]:
        """The names of the parts, in the order of the rule."""
        return tuple(part.name for part in self.rule)

    @property
    def rule_hash(self) -> str:
        """Hash of all that decides: a record made under another one does not count."""
        text = json.dumps([self.id, [asdict(part) for part in self.rule]], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def claims(path: Path | str | None = None) -> dict[str, Claim]:
    """Id -> claim, in the order of the file.

    Args:
        path: a file other than the course's own.

    Raises:
        ClaimsError: names the id, the key and what is wrong with it.
    """
    path = Path(path or DATA / "claims.toml")
    return dict(_claims(path, path.stat().st_mtime_ns))


def find_claim(claim_id: str) -> Claim:
    """One claim by its id; ClaimsError with the nearest ids when there is none."""
    known = claims()
    if claim_id in known:
        return known[claim_id]
    near = difflib.get_close_matches(str(claim_id).upper(), known, n=3, cutoff=0.4) or list(known)
    raise ClaimsError(f"no claim {claim_id!r} in data/claims.toml; the nearest: {', '.join(near)}")


@lru_cache(maxsize=8)
def _claims(path: Path, changed: int) -> tuple[tuple[str, Claim], ...]:
    text = path.read_text(encoding="utf-8")
    try:
        rows = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        headings = re.findall(r"^\[([^\[\]]+)\]", text, flags=re.M)
        twice = sorted({name for name in headings if headings.count(name) > 1})
        hint = f"; {', '.join(twice)} stands there twice: give each claim one id" if twice else ""
        raise ClaimsError(f"{path.name} is no TOML: {error}{hint}") from None
    return tuple((claim_id, _claim(claim_id, row)) for claim_id, row in rows.items())


def _claim(claim_id: str, row: Any) -> Claim:
    if not isinstance(row, Mapping):
        raise ClaimsError(f"{claim_id}: a claim is a table; write [{claim_id}] above its keys")
    _check_keys(claim_id, row, needed=_NEEDED, optional=_OPTIONAL)
    for key in (*_NEEDED, "unit", "quoted", "not_testable"):
        if key in row and (not isinstance(row[key], str) or not row[key].strip()):
            raise ClaimsError(f"{claim_id}: {key} is {row[key]!r}; write a text in quotes")
    source = tuple(row["source"].split())
    if unknown := [letter for letter in source if letter not in ARTICLES]:
        raise ClaimsError(
            f"{claim_id}: source {unknown[0]!r} is no article; write letters of "
            f"{' '.join(ARTICLES)} with a space between"
        )
    if row["notebook"] not in LESSONS:
        raise ClaimsError(
            f"{claim_id}: notebook {row['notebook']!r} is no lesson; there are: "
            f"{', '.join(LESSONS)}"
        )
    if row["expected"] not in VERDICTS:
        raise ClaimsError(
            f"{claim_id}: expected is {row['expected']!r}; choose one of {', '.join(VERDICTS)}"
        )
    rule = row.get("rule", [])
    if not isinstance(rule, list):
        raise ClaimsError(f"{claim_id}: rule is no list; write [[{claim_id}.rule]] for each part")
    if not rule and "not_testable" not in row:
        raise ClaimsError(
            f"{claim_id}: no rule; add [[{claim_id}.rule]] with part, measures and a bound, or "
            "say why nothing can be tested in not_testable"
        )
    if (row["expected"] == NOT_TESTABLE) != (not rule):
        raise ClaimsError(
            f"{claim_id}: expected is {row['expected']!r} with {len(rule)} parts in its rule; "
            f"{NOT_TESTABLE!r} belongs to a claim without a rule, and to no other"
        )
    parts = tuple(_part(claim_id, part, row.get("unit")) for part in rule)
    names = [part.name for part in parts]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ClaimsError(f"{claim_id}: part {twice[0]!r} stands there twice; rename one")
    return Claim(
        id=claim_id,
        claim=row["claim"],
        source=source,
        notebook=row["notebook"],
        quoted=row.get("quoted", ""),
        expected=row["expected"],
        not_testable=row.get("not_testable", ""),
        rule=parts,
    )


def _part(claim_id: str, row: Mapping[str, Any], unit: str | None) -> Part:
    where = f"{claim_id}, part {row.get('part', '?')!r}"
    _check_keys(where, row, needed=("part", "measures"), optional=("unit", *KINDS))
    kinds = [kind for kind in KINDS if kind in row]
    if len(kinds) != 1:
        raise ClaimsError(
            f"{where}: {' and '.join(kinds) or 'no bound'}; give exactly one of {', '.join(KINDS)}"
        )
    for key in (key for key in _PART if key in row):
        if not isinstance(row[key], str) or not row[key].strip():
            raise ClaimsError(f"{where}: {key} is {row[key]!r}; write a text in quotes")
    kind, bound = kinds[0], row[kinds[0]]
    number = isinstance(bound, int | float) and not isinstance(bound, bool)
    if not number or not math.isfinite(bound) or (kind == "within" and bound <= 0):
        above = " above zero" if kind == "within" else ""
        raise ClaimsError(f"{where}: {kind} is {bound!r}; write a number{above}, such as 0.1")
    unit = row.get("unit", unit)
    if unit not in UNITS:
        raise ClaimsError(f"{where}: unit is {unit!r}; choose one of {', '.join(UNITS)}")
    if not UNITS[unit][0] <= bound <= UNITS[unit][1]:
        raise ClaimsError(f"{where}: {kind} is {bound!r}, which no {unit} can be; 10% is 0.1")
    return Part(
        name=row["part"], measures=row["measures"], unit=unit, kind=kind, bound=float(bound)
    )


def _check_keys(
    where: str, row: Mapping[str, Any], *, needed: tuple[str, ...], optional: tuple[str, ...]
) -> None:
    if unknown := [key for key in row if key not in (*needed, *optional)]:
        known = ", ".join((*needed, *optional))
        raise ClaimsError(f"{where}: unknown key {unknown[0]!r}; there are: {known}")
    if missing := [key for key in needed if key not in row]:
        raise ClaimsError(f"{where}: no {missing[0]}; add it")
