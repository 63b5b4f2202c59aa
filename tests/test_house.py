"""Rules of the house that reading can check: rooms, map, notebooks, versions, sizes, paths."""

import ast
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tomllib
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
if not (ROOT / "pyproject.toml").is_file():
    pytest.skip("the house rules are for a clone", allow_module_level=True)

# A module may import from its own line and from those above it.
ORDER = (
    ("paths", "quiet", "hushed", "machine"),
    ("world",),
    ("weights", "profiles", "quantised", "models"),
    ("data",),
    ("chat",),
    ("measure",),
    ("planner",),
    ("train",),
    ("sweeps",),
    ("ship",),
    ("course",),
    ("show",),
    ("conversation",),
    ("cli", "__main__"),
)
RANK = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}
DRAWING = {"matplotlib", "IPython", "ipywidgets"}
LARGEST = 16 * 2**20
MODULES = sorted((ROOT / "sftlab").rglob("*.py"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]


def committed():
    """Files that git tracks or would add; without git, what is not obviously made by a tool."""
    if (ROOT / ".git").exists() and shutil.which("git"):
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, capture_output=True, check=True,
        ).stdout.decode()  # fmt: skip
        files = [ROOT / name for name in listed.split("\0") if name]
    else:
        made = {".venv", "build", "dist", "__pycache__", ".pytest_cache", ".ruff_cache"}
        files = [f for f in ROOT.rglob("*") if not made & set(f.relative_to(ROOT).parts)]
    return [file for file in files if file.is_file()]


def room_of(path):
    first = path.relative_to(ROOT / "sftlab").parts[0]
    return first.removesuffix(".py")


def imports(tree):
    """(line, module) of every absolute import, those inside functions included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: write imports from the package's root"
            if node.module == "sftlab":
                yield from ((node.lineno, f"sftlab.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, node.module


def package_name(requirement):
    return re.match(r"[\w.-]+", requirement)[0].lower().replace("_", "-")


DECLARED = [package_name(r) for group in (PROJECT["dependencies"], *EXTRAS.values()) for r in group]


def cells(notebook, kind="code"):
    content = json.loads(notebook.read_text(encoding="utf-8"))
    return [cell for cell in content["cells"] if cell["cell_type"] == kind]


@pytest.mark.parametrize("module", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_room_imports_only_rooms_above_it(module):
    room = room_of(module)
    if room == "__init__":
        return
    assert room in RANK, f"{room} has no place in the order: give it one in tests/test_house.py"
    for line, name in imports(ast.parse(module.read_text(encoding="utf-8"))):
        if name.startswith("sftlab."):
            other = name.split(".")[1]
            if other == "__version__":
                continue
            assert RANK[other] <= RANK[room], f"line {line}: {room} may not import {other}"
            if other == "show":
                assert room in ("show", "cli"), f"line {line}: only cli and notebooks import show"


@pytest.mark.parametrize("module", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_only_show_draws(module):
    if room_of(module) == "show":
        return
    drawn = [
        n for _, n in imports(ast.parse(module.read_text("utf-8"))) if n.split(".")[0] in DRAWING
    ]
    assert not drawn, f"{drawn}: only sftlab/show imports these"


@pytest.mark.parametrize("module", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_module_imports_only_what_is_declared(module):
    allowed = {name.replace("-", "_") for name in DECLARED}
    for line, name in imports(ast.parse(module.read_text(encoding="utf-8"))):
        top = name.split(".")[0]
        if top not in sys.stdlib_module_names and top != "sftlab":
            assert top in allowed or room_of(module) == "show", (
                f"line {line}: {top} is not declared"
            )


FACES = [f for f in (ROOT / "sftlab").rglob("__init__.py") if "lazy_loader" in f.read_text("utf-8")]


@pytest.mark.parametrize("face", FACES, ids=lambda p: p.parent.name)
def test_a_face_hands_on_what_is_there_and_hides_no_module(face):
    package = importlib.import_module(".".join(face.parent.relative_to(ROOT).parts))
    for name in package.__all__:
        assert not isinstance(getattr(package, name), types.ModuleType), f"{name} is a module"
        assert importlib.util.find_spec(f"{package.__name__}.{name}") is None, (
            f"a module has the name of {name}: once imported it would stand in its place"
        )


def test_a_notebook_and_another_room_import_from_faces():
    for module in MODULES:
        for line, name in imports(ast.parse(module.read_text(encoding="utf-8"))):
            parts = name.split(".")
            if parts[0] == "sftlab" and len(parts) > 2 and (ROOT / "sftlab" / parts[1]).is_dir():
                own = parts[1] == room_of(module) or room_of(module) in ("cli", "__main__")
                assert own, f"{module.name}, line {line}: import from sftlab.{parts[1]}"
    for notebook in NOTEBOOKS:
        for cell in cells(notebook):
            for module in re.findall(r"from sftlab\.([\w.]+) import", "".join(cell["source"])):
                assert "." not in module, f"{notebook.name}: import from a room, not {module}"


def section(heading):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", text, flags=re.M | re.S)
    assert found, f"README.md has no '## {heading}'"
    return found[1]


def mapped():
    block = re.search(r"^```[^\n]*\n(.*?)^```", section("Map"), flags=re.M | re.S)
    assert block, "the README's map is a fenced block"
    return [line.split()[0] for line in block[1].splitlines() if line.strip()]


def test_everything_in_the_map_exists():
    missing = [name for name in mapped() if not (ROOT / name).exists()]
    assert not missing
    wrong = [name for name in mapped() if (ROOT / name).is_dir() != name.endswith("/")]
    assert not wrong, "folders end in /, files do not"


def test_everything_that_exists_is_in_the_map():
    names = {name.rstrip("/") for name in mapped()}
    top = {file.relative_to(ROOT).parts[0] for file in committed()}
    top = {name for name in top if not name.startswith(".") or name == ".ci"}
    housekeeping = {"LICENSE", "README.md", "CHANGELOG.md"}
    top = {name for name in top - housekeeping if not any(m.startswith(name) for m in names)}
    rooms = {f"sftlab/{room_of(module)}" for module in MODULES} - {"sftlab/__init__"}
    rooms = {r if (ROOT / r).is_dir() else f"{r}.py" for r in rooms} - {"sftlab/__main__.py"}
    rooms = {room for room in rooms if not any(name.startswith(room) for name in names)}
    assert not top | rooms, "add these to the README's map"


def test_every_dependency_has_its_reason_in_the_readme():
    rows = re.findall(r"^\|\s*`([^`]+)`\s*\|(.*)\|", section("Dependencies"), flags=re.M)
    named = {name.lower() for name, reason in rows if reason.strip(" |")}
    assert set(DECLARED) - named == set(), "without a line"
    assert named - set(DECLARED) == set(), "no longer a dependency"


def test_every_dependency_has_an_exact_version():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line.strip() and not line.startswith("#")]
    odd = [line for line in pins if not re.fullmatch(r"[a-z0-9.-]+==[0-9][\w.]*", line)]
    assert not odd, "write name==version, and nothing of this machine"
    names = [line.split("==")[0] for line in pins]
    assert len(names) == len(set(names))
    assert set(DECLARED) <= set(names)
    assert not {"pip", "setuptools", "wheel"} & set(names)


def test_no_large_file():
    large = [str(f.relative_to(ROOT)) for f in committed() if f.stat().st_size > LARGEST]
    assert not large, "over 16 MB"


def test_no_path_of_a_machine():
    path = re.compile(rb"(?<![\w.])/(?:home|Users|root|work|opt/pypi)/[\w.-]+|[A-Z]:\\\\?Users")
    found = [
        f"{file.relative_to(ROOT)}: {match[0].decode(errors='replace')}"
        for file in committed()
        if file.suffix not in (".safetensors", ".png") and file != Path(__file__)
        for match in path.finditer(file.read_bytes())
    ]
    assert not found


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda p: p.stem)
class TestNotebook:
    def test_is_committed_without_what_a_run_leaves(self, notebook):
        content = json.loads(notebook.read_text(encoding="utf-8"))
        assert "widgets" not in content["metadata"]
        for number, cell in enumerate(content["cells"], start=1):
            assert not cell.get("outputs"), f"cell {number} has outputs: run nbstripout --keep-id"
            assert cell.get("execution_count") is None, f"cell {number} has an execution count"

    def test_has_one_parameters_cell_of_literals(self, notebook):
        tagged = [c for c in cells(notebook) if "parameters" in c["metadata"].get("tags", [])]
        assert len(tagged) == 1
        for statement in ast.parse("".join(tagged[0]["source"])).body:
            assert isinstance(statement, ast.Assign | ast.AnnAssign), ast.unparse(statement)
            ast.literal_eval(statement.value)

    def test_cells_are_short(self, notebook):
        for number, cell in enumerate(cells(notebook), start=1):
            assert len("".join(cell["source"]).splitlines()) <= 30, f"code cell {number}"

    def test_three_code_cells_never_stand_in_a_row(self, notebook):
        content = json.loads(notebook.read_text(encoding="utf-8"))
        kinds = "".join(cell["cell_type"][0] for cell in content["cells"])
        assert "ccc" not in kinds

    def test_opens_with_a_title_and_a_promise(self, notebook):
        first = "".join(cells(notebook, "markdown")[0]["source"])
        assert re.match(r"# \S.*\n+[^#\s]", first)


@pytest.mark.parametrize(
    "command",
    [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["codespell"]],
    ids=["ruff-check", "ruff-format", "codespell"],
)
def test_tool_finds_nothing(command):
    if command[0] == "ruff":
        command = [sys.executable, "-m", *command]
    else:
        command = [sys.executable, "-m", "codespell_lib"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
