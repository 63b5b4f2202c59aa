"""What the template doctor says: findings, each with its level, a plain sentence and a remedy."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

Level = Literal["error", "warning", "note", "ok"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note", "ok")
"""The worst first. With an error training fails or teaches the wrong thing, whatever else is done;
a warning names what goes wrong in some uses; a note is a property that one should know."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    level: Level
    """How bad it is; "ok" when it was looked at and is sound."""
    code: str
    """A stable name, for programs: `no-end-of-turn`."""
    what: str
    """One sentence: what was seen, and why it matters."""
    remedy: str = ""
    """One sentence: what to do. Empty when nothing has to be done."""
    rows: tuple[int, ...] = ()
    """The rows of the data that it is about, counted from 1, in their order."""


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """Everything that `examine` found."""

    template: str
    """The template's name."""
    end_of_turn: str | None
    """What ends an answer, or None where nothing does or the answers could not be found."""
    rows: int | None
    """How many conversations were looked at; None where none were given."""
    findings: tuple[Finding, ...]
    """The worst first."""

    @property
    def problems(self) -> tuple[Finding, ...]:
        """The findings that are not "ok"."""
        return tuple(finding for finding in self.findings if finding.level != "ok")

    @property
    def ok(self) -> bool:
        """Whether no finding is an error."""
        return all(finding.level != "error" for finding in self.findings)

    def of(self, code: str) -> Finding:
        """The finding of that name; KeyError when there is none."""
        for finding in self.findings:
            if finding.code == code:
                return finding
        raise KeyError(code)

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values with stable names, for JSON."""
        return asdict(self) | {"ok": self.ok}

    def __str__(self) -> str:
        lines = [f"template {self.template}"]
        for finding in self.findings:
            lines.append(f"{finding.level:8}{finding.code}: {finding.what}")
            lines += [f"        do: {finding.remedy}"] * bool(finding.remedy)
        return "\n".join(lines)
