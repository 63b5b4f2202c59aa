"""The front page of a course run, with its lessons and claims, and a summary for programs."""

import html
import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from sftlab.course.execution import Result
from sftlab.course.ledger import write_claims
from sftlab.course.surroundings import machine, versions
from sftlab.course.verdict import between, in_unit
from sftlab.paths import NOTEBOOKS

_INDEX = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>SFT Lab: this course run</title>
<style>
:root {{ color-scheme: light dark; --ink: #1c2128; --soft: #57606a; --ground: #ffffff;
  --card: #f6f8fa; --line: #d0d7de; --link: #0550ae; --good: #116329; --bad: #a40e26;
  --open: #7d4e00; }}
@media (prefers-color-scheme: dark) {{ :root {{ --ink: #e6edf3; --soft: #9da7b3;
  --ground: #0d1117; --card: #161b22; --line: #30363d; --link: #79b8ff; --good: #56d364;
  --bad: #ff7b72; --open: #e3b341; }} }}
body {{ margin: 0 auto; max-width: 56rem; padding: 2rem 1rem; background: var(--ground);
  color: var(--ink); font: 1rem/1.55 system-ui, sans-serif; }}
h1 {{ line-height: 1.2; margin: 0; }}
p {{ margin: 0.3rem 0; }}
.soft {{ color: var(--soft); font-size: 0.92rem; }}
ol {{ list-style: none; padding: 0; margin: 1.5rem 0; }}
li {{ background: var(--card); border: 1px solid var(--line); border-radius: 0.5rem;
  padding: 0.9rem 1.1rem; margin: 0.8rem 0; }}
li h2 {{ font-size: 1.15rem; margin: 0; }}
a {{ color: var(--link); }}
.passed, .supported {{ color: var(--good); }}
.failed, .interrupted, .contradicted {{ color: var(--bad); }}
.inconclusive {{ color: var(--open); }}
.table {{ overflow-x: auto; }}
table {{ border-collapse: collapse; width: 100%; font-size: 0.95rem; line-height: 1.4; }}
caption {{ text-align: left; }}
th, td {{ text-align: left; vertical-align: top; padding: 0.5rem 0.9rem 0.5rem 0;
  border-bottom: 1px solid var(--line); }}
th[scope=row] {{ font-weight: inherit; min-width: 14rem; }}
.number {{ font-variant-numeric: tabular-nums; min-width: 8.5rem; }}
details {{ margin: 0.6rem 0; }}
details ul {{ padding: 0 0 0 1.2rem; margin: 0.3rem 0; }}
details ul li {{ background: none; border: none; padding: 0; margin: 0.25rem 0; }}
</style>
</head>
<body>
<h1>SFT Lab</h1>
<p>The effects in these lessons were measured on this machine.</p>
<p class="soft">{facts}</p>
<ol>
{lessons}
</ol>
{earlier}<h2 id="claims">Claims</h2>
{claims}
<p class="soft">The executed notebooks are in <code>executed/</code>; <code>summary.json</code> and
<code>claims.json</code> have these figures for programs. To work in the lessons yourself:
<code>make lab</code>, or <code>python -m sftlab lab</code>.</p>
</body>
</html>
"""


def write_index(results: Sequence[Result], *, folder: Path, notebooks: Path = NOTEBOOKS) -> Path:
    """Write `index.html`, `summary.json` and `claims.json`; returns the index's path.

    Lessons that did not run this time keep their place on the index while their page is there.
    """
    claims = write_claims(results, folder=folder, notebooks=notebooks)
    here = {claim_id for result in results for claim_id in result.records}
    summary = {
        "notebooks": [_entry(result) for result in results],
        "earlier": _earlier(folder, {r.name for r in results if r.status != "not run"}),
        "minutes": round(sum(result.minutes for result in results), 2),
        "machine": machine(),
        "versions": versions(),
        "claims": [
            {key: row[key] for key in ("id", "verdict", "expected", "profile", "reason")}
            for row in claims
            if row["parts"] and row["id"] in here
        ],
    }
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    facts = " · ".join(
        [
            f"{summary['minutes']:.1f} minutes in all",
            f"{summary['machine']['cores']} cores",
            summary["machine"]["system"],
            *(f"{name} {version}" for name, version in list(summary["versions"].items())[:4]),
        ]
    )
    earlier = "\n".join(_card(entry) for entry in summary["earlier"])
    index = folder / "index.html"
    index.write_text(
        _INDEX.format(
            facts=html.escape(facts),
            lessons="\n".join(_card(entry) for entry in summary["notebooks"]),
            earlier=f"<h2>From earlier runs</h2>\n<ol>\n{earlier}\n</ol>\n" if earlier else "",
            claims=_claims(claims, folder, here),
        ),
        encoding="utf-8",
    )
    return index


def _entry(result: Result) -> dict[str, Any]:
    entry = {
        "name": result.name,
        "title": result.lesson.title,
        "promise": result.lesson.promise,
        "status": result.status,
        "minutes": round(result.minutes, 2),
        "cells": result.cells,
        "page": result.page.name if result.page else None,
        "parameters": {**result.lesson.defaults, **result.parameters},
    }
    if result.failure:
        entry["failure"] = {
            "cell": result.failure.cell,
            "error": result.failure.traceback.strip().splitlines()[-1],
        }
    return entry


def _earlier(folder: Path, now: set[str]) -> list[dict[str, Any]]:
    """Entries of an earlier summary for lessons that did not run now and whose page is there."""
    try:
        before = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        entries = {e["name"]: e for e in [*before["earlier"], *before["notebooks"]] if e["page"]}
        kept = [e for e in entries.values() if (folder / e["page"]).is_file()]
    except (OSError, ValueError, KeyError, TypeError):
        return []  # none, or of another version of the course
    return sorted((e for e in kept if e["name"] not in now), key=lambda entry: entry["name"])


def _card(entry: Mapping[str, Any]) -> str:
    title, name = html.escape(entry["title"]), html.escape(entry["name"])
    status = entry["status"]
    if entry["page"]:
        title = f'<a href="{html.escape(entry["page"])}">{title}</a>'
    told = f'<span class="{status.replace(" ", "-")}">{status}</span>'
    if (cell := entry.get("failure", {}).get("cell")) is not None:
        told += f" in cell {cell}"
    if status != "not run":
        told += f" · {entry['minutes']:.1f} minutes"
    return (
        f"<li><h2>{title}</h2><p>{html.escape(entry['promise'])}</p>"
        f'<p class="soft">{told} · <code>{name}</code></p></li>'
    )


def _claims(rows: Sequence[Mapping[str, Any]], folder: Path, here: set[str]) -> str:
    """The measured claims as a table, the others folded away by lesson."""
    measured = [row for row in rows if row["parts"]]
    others = [row for row in rows if not row["parts"]]
    counts = {v: sum(row["verdict"] == v for row in measured) for v in _ORDER}
    told = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    head = f"<p>{len(measured)} of {len(rows)} measured{': ' + told if told else ''}.</p>\n"
    if kept := [row["id"] for row in measured if row["id"] not in here]:
        head += f'<p class="soft">Kept from earlier runs: {", ".join(kept)}.</p>\n'
    if profiles := dict.fromkeys(row["profile"] for row in measured):
        head += f'<p class="soft">Measured on {html.escape(", ".join(profiles))}.</p>\n'
    if measured:
        body = "\n".join(_claim(row, folder) for row in measured)
        head += (
            '<div class="table"><table><caption class="soft">Effects with their intervals: 95% for '
            "all the parts of a claim together.</caption>\n<thead><tr><th>Claim</th>"
            "<th>Effect</th><th>Verdict</th><th>Lesson</th></tr></thead>\n"
            f"<tbody>\n{body}\n</tbody></table></div>\n"
        )
    others.sort(key=lambda row: row["notebook"])
    return head + "\n".join(
        _folded(name, list(group)) for name, group in groupby(others, key=lambda r: r["notebook"])
    )


_ORDER = ("supported", "contradicted", "inconclusive")


def _claim(row: Mapping[str, Any], folder: Path) -> str:
    effect = in_unit(row["effect"], row["unit"])
    ends = between(row["low"], row["high"], row["unit"])
    name = html.escape(row["notebook"])
    if (folder / f"{row['notebook']}.html").is_file():
        name = f'<a href="{name}.html">{name.split("_")[0]}</a>'
    verdict = f'<strong class="{row["verdict"]}">{row["verdict"]}</strong>'
    if {row["verdict"], row["expected"]} == {"supported", "contradicted"}:
        verdict += f" (expected: {row['expected']})"
    seeds = f"{row['seeds']} seed{'s' * (row['seeds'] != 1)}"
    seeds += f" × {row['items']:,} item{'s' * (row['items'] != 1)}"
    part = f"{html.escape(row['part'])}: " if len(row["parts"]) > 1 else ""
    if row["quoted"]:
        seeds += f"<br>article: {html.escape(row['quoted'])}"
    return (
        f'<tr id="{row["id"]}"><th scope="row"><strong>{row["id"]}</strong> '
        f"{html.escape(row['claim'])}</th>"
        f'<td class="number">{part}{effect}<br><span class="soft">{ends}<br>{seeds}</span></td>'
        f'<td>{verdict}<br><span class="soft">{html.escape(row["reason"])}</span></td>'
        f"<td>{name}</td></tr>"
    )


def _folded(notebook: str, rows: Sequence[Mapping[str, Any]]) -> str:
    items = "\n".join(
        f"<li><strong>{row['id']}</strong> {html.escape(row['claim'])} "
        f'<span class="soft">{html.escape(row["reason"])}</span></li>'
        for row in rows
    )
    return (
        f"<details><summary>{html.escape(notebook)}: {len(rows)} not measured</summary>\n"
        f"<ul>\n{items}\n</ul></details>"
    )
