"""The source of the course site: a folder that Sphinx reads, made from a run of the course.

    build/executed/NN.ipynb --> NN.ipynb        no set-up cells, links between pages, pictures as
    (else notebooks/NN.ipynb)                   files with their alt text
    build/claims.json       --> ledger.md       each claim, linked to its card in the lesson
    notebooks/glossary.md, recipes/, docs/      pages of the same names
    the faces of the package --> api/ROOM.rst   which autodoc fills

A file is written only when it changes, so Sphinx builds again what has changed; a page of which
nothing is left, such as of a recipe that was deleted, is deleted too.
"""

import ast
import base64
import hashlib
import importlib.metadata
import json
import pkgutil
import re
from collections.abc import Mapping, Sequence
from html import escape
from importlib import import_module
from pathlib import Path
from types import FunctionType
from typing import Any

import sftlab
from sftlab.course import (
    between,
    claims,
    find_lessons,
    in_unit,
    readable,
    real_records,
    recorded_minutes,
    rows,
)
from sftlab.paths import DATA, NOTEBOOKS, RECIPES, write_atomically
from sftlab.show import CURVES
from sftlab.site.filling import fill
from sftlab.site.living import living_html

DEEP = "<!-- deep -->"
"""Marks a section to fold; conf.py folds it when Sphinx has read the page."""
INSERTS = (
    ("00_start_here", "4. Measure it", "ask"),
    ("05_loss_masking", "2. The mask of a conversation, by hand", "mask"),
)
"""(lesson, heading, kind) of living pages: their HTML is put behind that heading."""
DOCS = NOTEBOOKS.parent / "docs"
"""Of a clone; a wheel has none."""
PASSING = re.compile(r"minutes\*\* to study the core path|^[^\n]*\b100%\|[^\n]*\n?$")
"""Outputs for who runs a lesson: its minutes on that machine, and bars of progress."""
UNLISTED = {"cli", "site"}
"""Rooms without a page in the API: commands have `--help`."""
CARD = re.compile(r'(<div class="sl card" role="group") (aria-label="Claim (\w+):)')
PREDICT = re.compile(r'predict\("(\w+)", low=\.\.\., high=\.\.\.(?:, part="(.+)")?\)')
MARK = re.compile(r'<strong class="ledger">(\w+)</strong>')


def slug(title: str) -> str:
    """The anchor of a heading, as lessons link to it: JupyterLab's, in lower case."""
    return title.strip().lower().replace(" ", "-")


def repository() -> str:
    """`Repository` of `[project.urls]` in pyproject.toml, or empty while there is none."""
    urls = importlib.metadata.metadata("sftlab").get_all("Project-URL") or []
    found = dict(line.split(", ", 1) for line in urls)
    return found.get("Repository", "").rstrip("/").removesuffix(".git")


def badges(address: str, lesson: str) -> dict[str, str]:
    """Name -> address of the services that open a lesson of a repository on GitHub."""
    owner_and_name = address.partition("//github.com/")[2]
    if not owner_and_name:
        return {}
    place = f"notebooks/{lesson}.ipynb"
    return {
        "Open in Colab": f"https://colab.research.google.com/github/{owner_and_name}/blob/main/{place}",
        "Open in Binder": f"https://mybinder.org/v2/gh/{owner_and_name}/HEAD?labpath={place}",
    }


def write_sources(folder: Path, *, out: Path, address: str | None = None, api: bool = True) -> None:
    """Write all pages of the site to `folder`, from the results of `sftlab run` in `out`.

    A lesson that was not executed there is shown as it is committed, without outputs. `address`
    takes the place of the package's own repository; without `api` no room is imported.
    """
    address = repository() if address is None else address
    run, shown = _read_run(out), {}
    lessons = [describe(lesson, run) for lesson in find_lessons()]
    for lesson in lessons:
        shown[lesson["name"]] = write_lesson(lesson, folder, out=out, address=address)
    ledger = _ledger(out, shown)
    _write(folder / "_extra/figures/journey.png", (DATA / "models/tiny/journey.png").read_bytes())
    titles = {lesson["name"]: lesson["label"] for lesson in lessons}
    table = _fill("ledger.html.jinja", claims=ledger, titles=titles)
    _write(folder / "ledger.md", _fill("ledger.md.jinja", table=table))
    _write(folder / "glossary.md", _glossary())
    recipes = _write_recipes(folder)
    rooms = _write_api(folder) if api else []
    docs = sorted(DOCS.glob("*.md"))
    for text in docs:
        body = text.read_text(encoding="utf-8").replace("](../notebooks/", "](")
        _write(folder / text.name, re.sub(r"\[([^]]*)\]\(\.\./[^)]*\)", r"\1", body))
    more = ["ledger", "glossary", recipes[0], *rooms[:1], *(text.stem for text in docs)]
    home = {"lessons": lessons, "pages": more, "run": run, "claims": ledger}
    _write(folder / "index.md", _fill("home.md.jinja", **home))
    kept = {"index", *titles, *more, *recipes, *rooms}
    for page in [*folder.glob("*.*"), *folder.glob("recipes/*"), *folder.glob("api/*")]:
        name = page.relative_to(folder).as_posix().rpartition(".")[0]
        if page.is_file() and name not in kept:
            page.unlink()


def write_lesson(lesson: Mapping[str, Any], folder: Path, *, out: Path, address: str) -> set[str]:
    """Write the page of a lesson; returns the claims whose cards it shows."""
    import nbformat

    name, extra = lesson["name"], folder / "_extra"
    executed = out / "executed" / f"{name}.ipynb"
    notebook = readable(executed if executed.is_file() else lesson["path"])
    notebook.metadata["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}
    facts = {"lesson": lesson, "executed": executed.is_file(), "badges": badges(address, name)}
    slides = f"slides/{name}.html"
    facts["slides"] = slides if (out / "site" / slides).is_file() else None
    head = _raw(_fill("facts.html.jinja", **facts))
    inserts = {heading: kind for one, heading, kind in INSERTS if one == name}
    shown: set[str] = set()
    for n, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            cell.source = _prose(cell, inserts)
            if n == 0:
                title = f"# {lesson['label']}\n\n{head}"
                cell.source = re.sub(r"^# .*\n", lambda _, to=title: to, cell.source, count=1)
        if "outputs" in cell:  # the page's head has the minutes of this run
            cell.outputs = [one for one in cell.outputs if not _passing(one)]
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            data.pop(CURVES, None)
            if "image/png" in data:
                width = output.metadata.get("image/png", {}).get("width")
                data["text/html"] = _figure(data.pop("image/png"), data["text/plain"], width, extra)
            if "text/html" in data:
                data["text/html"] = _linked(data["text/html"], shown)
    for cell in notebook.cells:
        if (found := PREDICT.fullmatch(cell.source)) and found[1] in shown:
            values = {"claim": found[1], "part": found[2] or claims()[found[1]].rule[0].name}
            html = _fill("predict.html", **values)
            cell.outputs = [nbformat.v4.new_output("display_data", {"text/html": html})]
    _write(folder / f"{name}.ipynb", nbformat.writes(notebook) + "\n")
    _write(extra / f"notebooks/{name}.ipynb", lesson["path"].read_bytes())
    return shown


def _passing(output: Mapping[str, Any]) -> bool:
    text = output.get("text") or output.get("data", {}).get("text/markdown", "")
    return bool(PASSING.search(text))


def _prose(cell: Any, inserts: Mapping[str, str]) -> str:
    """A text cell with what stands behind its headings: the mark of a fold, a living page."""
    # A link names a heading as JupyterLab does; here anchors are in lower case.
    text = re.sub(
        r"\]\(([\w.-]*(?:\.ipynb|\.md)?)#([^)\s]+)\)",
        lambda m: f"]({m[1]}#{m[2].lower()})",
        cell.source,
    )
    text = re.sub(r"\*\*(Claim (\w+))\*\*", r'**<a href="ledger.html#\2">\1</a>**', text)
    text = re.sub(r"\]\(\.\./recipes/(\w+)\.py\)", r"](recipes/\1.md)", text)
    lines, fenced, deep = [], False, "deep" in cell.metadata.get("tags", [])
    for line in text.splitlines():
        fenced ^= line.startswith("```")
        lines.append(line)
        if not fenced and re.match("#+ ", line):
            if deep:
                lines += ["", _raw(DEEP)]
                deep = False
            if kind := inserts.get(line.lstrip("# ").strip()):
                lines += ["", _raw(living_html(kind, assets="_static/"))]
    return "\n".join(lines)


def _raw(html: str) -> str:
    """HTML as MyST takes it, blank lines included."""
    return f"`````{{raw}} html\n{html.strip()}\n`````\n"


def _figure(png: str, alt: str, width: int | None, extra: Path) -> str:
    """The picture as a file, named by what it holds, and the tag that shows it with its words."""
    content = base64.b64decode(png)
    file = f"figures/{hashlib.sha256(content).hexdigest()[:16]}.png"
    _write(extra / file, content)
    wide = f'width="{width}" ' if width else ""  # pixels
    return f'<img class="figure" src="{file}" alt="{escape(alt)}" {wide}loading="lazy">'


def _linked(html: str, shown: set[str]) -> str:
    """HTML of an output whose claims link to the ledger, with an anchor at each claim's card."""

    def anchor(found: re.Match[str]) -> str:
        new = found[3] not in shown
        shown.add(found[3])
        return f'{found[1]} {f"""id="claim-{found[3]}" """ if new else ""}{found[2]}'

    return MARK.sub(r'<a class="ledger" href="ledger.html#\1">\1</a>', CARD.sub(anchor, html))


def describe(lesson: Any, run: Mapping[str, Any]) -> dict[str, Any]:
    """What pages say of a lesson: number, label, promise, minutes, whether its run stopped."""
    number, title = lesson.name.split("_")[0], lesson.title.removeprefix("Appendix: ")
    minutes, machine = recorded_minutes(lesson.name), recorded_minutes("machine")
    stopped = False
    for entry in run.get("notebooks", []):
        if entry["name"] == lesson.name:
            stopped = entry["status"] in ("failed", "interrupted")
            if entry["status"] == "passed":
                minutes, machine = entry["minutes"], f"{run['machine']['cores']} cores"
    return {
        "name": lesson.name,
        "path": lesson.path,
        "number": number,
        "label": f"{number} {title[0].upper()}{title[1:]}",
        "promise": lesson.promise,
        "study": lesson.study,
        "minutes": minutes,
        "machine": machine,
        "stopped": stopped,  # by an error or Ctrl-C
    }


def _glossary() -> str:
    """The glossary with a heading for each letter."""
    text = (NOTEBOOKS / "glossary.md").read_text(encoding="utf-8")
    lines, letter = [], ""
    for line in text.splitlines():
        if line.startswith("### "):
            now = line[4].upper() if line[4].isalpha() else "0–9"
            lines += [f"## {now}", ""] * (now != letter)
            letter = now
        lines.append(re.sub(r'<a id="[^"]*"></a>', "", line))
    return "\n".join([*lines, ""])


def _read_run(out: Path) -> dict[str, Any]:
    file = out / "summary.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _ledger(out: Path, shown: Mapping[str, set[str]]) -> list[dict[str, Any]]:
    """The rows of the ledger as the run left them, or those of claims that nothing measured."""
    file = out / "claims.json"
    found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else rows({})
    real = real_records()
    for row in found:
        card = f"#claim-{row['id']}" if row["id"] in shown.get(row["notebook"], ()) else ""
        row["link"] = f"{row['notebook']}.html{card}"
        row["real"] = [
            {"profile": one.profile, "verdict": one.verdict, "name": one.deciding.name}
            | {"effect": one.deciding.effect(one.estimate, len(one.claim.rule))}
            for one in real.get(row["id"], ())
        ]
    return found


def _write_recipes(folder: Path) -> list[str]:
    """A page for each recipe, from its docstring and its code; returns their names behind that of
    the list of them."""
    names = []
    for file in sorted(RECIPES.glob("*.py")):
        code = file.read_text(encoding="utf-8")
        said = ast.get_docstring(ast.parse(code))
        summary, _, usage = said.partition("\n\n")
        lesson = next(iter(NOTEBOOKS.glob(f"{file.stem[:2]}_*.ipynb"))).stem
        values = {"name": file.stem, "summary": summary, "usage": usage, "lesson": lesson}
        code = code.split('"""', 2)[2].strip()
        _write(folder / f"recipes/{file.stem}.md", _fill("recipe.md.jinja", code=code, **values))
        names.append(file.stem)
    text = (RECIPES / "README.md").read_text(encoding="utf-8")
    text = re.sub(r"^\| `(\w+)\.py`", r"| [`\1.py`](\1.md)", text, flags=re.MULTILINE)
    _write(folder / "recipes/index.md", text + _contents(names))
    return ["recipes/index", *(f"recipes/{name}" for name in names)]


def _write_api(folder: Path) -> list[str]:
    """A page for the face of each room, which autodoc fills, and one of the package: its names are
    those of the rooms, with a few of its own. Returns their names behind that of the list."""
    names = [module.name for module in pkgutil.iter_modules(sftlab.__path__) if module.ispkg]
    rooms = {f"sftlab.{name}": import_module(f"sftlab.{name}") for name in set(names) - UNLISTED}
    rooms = dict(sorted(rooms.items()))
    home = {handed: name for name, face in rooms.items() for handed in face.__all__}
    for name, face in rooms.items():
        page = f"{_underlined(name)}\n.. automodule:: {name}\n   :members:\n"
        kinds = (type, FunctionType)  # autodoc says nothing about what is neither
        others = [one for one in face.__all__ if not isinstance(getattr(face, one), kinds)]
        page += f"\nConstants and types: {', '.join(f'``{one}``' for one in others)}\n" * any(
            others
        )
        _write(folder / f"api/{name}.rst", page)
    lines = [_underlined("sftlab"), "The names that most lessons use.", ""]
    lines += [f"* ``{one}``: see :doc:`{home[one]}`" for one in sftlab.__all__ if one in home]
    own = ", ".join(one for one in sftlab.__all__ if one not in home)
    lines += ["", ".. automodule:: sftlab", f"   :members: {own}", ""]
    _write(folder / "api/sftlab.rst", "\n".join(lines))
    table = [f"| [`{name}`]({name}.rst) | {face.__doc__.strip()} |" for name, face in rooms.items()]
    text = _fill("api.md.jinja", table=table)
    _write(folder / "api/index.md", text + _contents(["sftlab", *rooms]))
    return ["api/index", "api/sftlab", *(f"api/{name}" for name in rooms)]


def _underlined(title: str) -> str:
    return f"{title}\n{'=' * len(title)}\n"


def _contents(names: Sequence[str]) -> str:
    return "\n".join(["", "```{toctree}", ":hidden:", "", *names, "```", ""])


def _fill(template: str, **values: Any) -> str:
    functions = {"in_unit": in_unit, "between": between, "raw": _raw}
    return fill(template, **functions, **values)


def _write(path: Path, content: str | bytes) -> None:
    """Write a file unless it holds that already."""
    content = content.encode() if isinstance(content, str) else content
    if not path.is_file() or path.read_bytes() != content:
        write_atomically(path, content)
