"""What the template doctor says: a finding, all of them together, and their words."""

import string
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LEVELS = ("error", "warning", "note", "ok")
"""The worst first."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was checked: one sentence on what was seen, and one on what to do."""

    level: str
    'One of LEVELS; "ok" when it was checked and is right.'
    code: str
    "A stable name, for programs: `no-end-of-turn`."
    what: str
    remedy: str = ""
    "Empty when nothing has to be done."
    rows: tuple[int, ...] = ()
    "The rows of the data that it is about, counted from 1."


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """Everything that `examine` found."""

    template: str
    end_of_turn: str | None
    "What ends an answer, or None where nothing does or the answers could not be found."
    rows: int | None
    "How many conversations were checked; None where none were given."
    findings: tuple[Finding, ...]
    "The worst first."

    @property
    def problems(self) -> tuple[Finding, ...]:
        """The findings that are not "ok"."""
        return tuple(finding for finding in self.findings if finding.level != "ok")

    @property
    def ok(self) -> bool:
        """Whether no finding is an error."""
        return all(finding.level != "error" for finding in self.findings)

    def __str__(self) -> str:
        lines = [f"template {self.template}"]
        for finding in self.findings:
            lines.append(f"{finding.level:8}{finding.code}: {finding.what}")
            lines += [f"        do: {finding.remedy}"] * bool(finding.remedy)
        return "\n".join(lines)


TEXTS = tomllib.loads(Path(__file__).with_name("findings.toml").read_text(encoding="utf-8"))


def make_finding(name: str, rows: Iterable[int] = (), **values: Any) -> Finding:
    """The finding of findings.toml with the values filled in."""
    texts = {"code": name} | TEXTS[name]
    filled = {key: string.Template(text).substitute(values) for key, text in texts.items()}
    return Finding(**filled, rows=tuple(rows))
