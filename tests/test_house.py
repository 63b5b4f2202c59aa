"""Rules of the house that reading can check: rooms, faces, sizes, the map, notebooks, versions."""

import ast
import importlib.util
import json
import re
import subprocess
import sys
import tomllib
import types
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
if not (ROOT / "pyproject.toml").is_file():
    pytest.skip("the house rules are for a clone", allow_module_level=True)

# In the order in which data flows: a room imports only rooms before it.
ORDER = "paths quiet integrity machine world profiles models data chat measure planner train"
RANK = {
    room: rank
    for rank, room in enumerate(f"{ORDER} ship sweeps course show exercises site cli".split())
}
DRAWING = {"matplotlib", "IPython", "ipywidgets"}
LARGEST = 16 * 2**20
PACKAGE = ROOT / "sftlab"
MODULES = sorted(PACKAGE.rglob("*.py"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FACES = [file for file in MODULES if "lazy_loader.attach(" in file.read_text("utf-8")]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]


def committed():
    """Files that git tracks or would add."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def room_of(module):
    return module.relative_to(PACKAGE).parts[0].removesuffix(".py")


def tree(file):
    return ast.parse(file.read_text(encoding="utf-8"))


def imports(parsed):
    """(line, module, names) of every import, including those inside functions."""
    for node in ast.walk(parsed):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: write imports from the package's root"
            yield node.lineno, node.module, [alias.name for alias in node.names]


def cells(notebook, kind="code"):
    content = json.loads(notebook.read_text(encoding="utf-8"))
    return [cell for cell in content["cells"] if cell["cell_type"] == kind]


def lesson_imports(notebook):
    """(module, names) that a lesson imports from the lab."""
    for cell in cells(notebook):
        source = "".join(cell["source"])
        for found in re.finditer(
            r"^\s*from (sftlab[\w.]*) import (\([^)]*\)|.+)$", source, flags=re.M
        ):
            names = re.sub(r"#.*", "", found[2]).strip("()").split(",")
            yield found[1], [name.split(" as ")[0].strip() for name in names if name.strip()]


def package_name(requirement):
    return re.match(r"[\w.-]+", requirement)[0].lower().replace("_", "-")


DECLARED = {
    package_name(requirement)
    for group in (PROJECT["dependencies"], *EXTRAS.values())
    for requirement in group
} - {"sftlab"}


@pytest.mark.parametrize("module", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
class TestModule:
    def test_room_imports_only_rooms_above_it_and_by_their_face(self, module):
        room = room_of(module)
        if room in ("__init__", "__main__"):
            return
        assert room in RANK, f"{room} has no place in the order: give it one in tests/test_house.py"
        for line, name, _ in imports(tree(module)):
            parts = name.split(".")
            if parts[0] != "sftlab" or len(parts) == 1:
                continue
            assert RANK[parts[1]] <= RANK[room], f"line {line}: {room} may not import {parts[1]}"
            deep = len(parts) > 2 and parts[1] != room
            assert not deep, f"line {line}: import from sftlab.{parts[1]}, its face"

    def test_only_show_draws_and_only_rooms_after_it_import_it(self, module):
        used = {name.split(".")[0] for _, name, _ in imports(tree(module))}
        shown = any(name.startswith("sftlab.show") for _, name, _ in imports(tree(module)))
        assert room_of(module) == "show" or not used & DRAWING
        assert room_of(module) in ("show", "exercises", "site", "cli") or not shown

    def test_imports_only_what_is_declared(self, module):
        allowed = {name.replace("-", "_") for name in DECLARED} | IMPORTED_AS
        for line, name, _ in imports(tree(module)):
            top = name.split(".")[0]
            known = top in sys.stdlib_module_names or top == "sftlab" or top in allowed
            assert known, f"line {line}: {top} is not declared in pyproject.toml"

    def test_a_file_is_at_most_500_lines(self, module):
        assert len(module.read_text("utf-8").splitlines()) <= 500


IMPORTED_AS = {"IPython", "bs4", "pydantic_core", "stdnum"}
"""Imports with another name than the distribution that brings them."""


EXERCISES = PACKAGE / "exercises" / "lessons"
"""Course text, as the notebooks are: its size is that of the course."""


def lines_in(folder):
    files = [file for file in folder.rglob("*.py") if file.parent != EXERCISES]
    return sum(len(file.read_text("utf-8").splitlines()) for file in files)


MOST_LINES = {"sftlab": 21_900, "tests": 17_690}
"""Lower them with each cut. Lessons 00 to 09 have 14,500, the exercises 1,350, publishing 1,600."""


@pytest.mark.parametrize("folder", MOST_LINES)
def test_the_package_keeps_its_size(folder):
    assert lines_in(ROOT / folder) <= MOST_LINES[folder]


def test_a_public_definition_has_two_users_or_stands_in_a_face():
    """Users are files: of the package, the notebooks, and the benchmarks; not the tests."""
    faces = {name for face in FACES for name in handed_on(face)}
    words = Counter()
    for file in [*MODULES, *NOTEBOOKS, *(ROOT / "benchmarks").rglob("*.py")]:
        words.update(set(re.findall(r"\w+", file.read_text("utf-8"))))
    lonely = []
    for module in MODULES:
        for node in tree(module).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                if node.decorator_list and module.parent == EXERCISES:
                    continue  # handed to its exercise
                inside = len(re.findall(rf"\b{node.name}\b", module.read_text("utf-8"))) > 1
                commands = room_of(module) == "cli"
                if node.name not in faces and words[node.name] + inside < 2 and not commands:
                    lonely.append(f"{module.relative_to(PACKAGE)}: {node.name}")
    assert not lonely


def handed_on(face):
    return importlib.import_module(".".join(face.parent.relative_to(ROOT).parts)).__all__


@pytest.mark.parametrize("face", FACES, ids=lambda p: p.parent.name)
def test_a_face_hands_on_what_is_there_and_is_used(face):
    name = ".".join(face.parent.relative_to(ROOT).parts)
    package = importlib.import_module(name)
    for handed in package.__all__:
        assert not isinstance(getattr(package, handed), types.ModuleType), f"{handed} is a module"
        # Once imported, a module of that name would stand in the place of the function.
        assert importlib.util.find_spec(f"{name}.{handed}") is None, f"{handed} names a module too"
    used = {
        imported
        for file in [*MODULES, *(ROOT / "benchmarks").rglob("*.py"), *TESTS]
        for _, module, names in imports(tree(file))
        if module == name
        for imported in names
    }
    for notebook in NOTEBOOKS:
        used.update(*(names for module, names in lesson_imports(notebook) if module == name))
    used |= set(re.findall(r"\w+", (PACKAGE / "__init__.py").read_text("utf-8")))
    unused = {handed for handed in set(package.__all__) - used if not handed.endswith("Error")}
    assert not unused, "handed on, and imported by nobody"


TESTS = sorted((ROOT / "tests").rglob("*.py"))


def test_importing_the_lab_imports_no_heavy_library():
    code = "import sys, sftlab; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    heavy = {"torch", "transformers", "trl", "datasets", "pandas", "numpy", "matplotlib", "scipy"}
    assert "sftlab" in done.stdout.split(), done.stderr
    assert not heavy & set(done.stdout.split())


def test_no_machinery_of_processes_and_no_patched_library():
    forbidden = re.compile(
        r"spawnv_passfds|get_preparation_data|_MAX_MEMORY_LEAK|sys\.modules\[|forkserver|prctl"
    )
    found = [file.name for file in MODULES if forbidden.search(file.read_text("utf-8"))]
    assert not found


def section(heading):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", text, flags=re.M | re.S)
    assert found, f"README.md has no '## {heading}'"
    return found[1]


def mapped():
    block = re.search(r"^```[^\n]*\n(.*?)^```", section("Map"), flags=re.M | re.S)
    assert block, "the README's map is a fenced block"
    return [line.split()[0] for line in block[1].splitlines() if line.strip()]


def test_the_map_is_true():
    names = mapped()
    assert not [name for name in names if not (ROOT / name).exists()], "in the map, not here"
    wrong = [name for name in names if (ROOT / name).is_dir() != name.endswith("/")]
    assert not wrong, "folders end in /, files do not"
    top = {file.relative_to(ROOT).parts[0] for file in committed()}
    top = {name for name in top if not name.startswith(".") or name == ".ci"}
    missing = {name for name in top if not any(n.startswith(name) for n in names)}
    modules = {str(file.relative_to(ROOT)) for file in MODULES if file.parent == PACKAGE}
    rooms = {f"sftlab/{room_of(file)}/" for file in MODULES if file.parent != PACKAGE}
    assert not missing | (modules | rooms) - set(names), "here, not in the map"


def test_the_table_of_rooms_names_every_file():
    """`| sftlab/data/ | messages formats ... | what for |`, in the order of ORDER."""
    rows = re.findall(r"^\| `sftlab/(\w+)/` \|([^|]+)\|([^|]+)\|$", section("Map"), flags=re.M)
    assert [room for room, _, _ in rows] == [r for r in RANK if (PACKAGE / r).is_dir()]
    for room, files, purpose in rows:
        there = {file.stem for file in (PACKAGE / room).glob("*.py")} - {"__init__"}
        assert set(re.findall(r"\w+", files)) == there, room
        assert purpose.strip()


def test_the_table_of_lessons_lists_every_notebook():
    listed = re.findall(r"^\| \[.+?\]\(notebooks/(\w+)\.ipynb\)", section("Lessons"), flags=re.M)
    assert listed == sorted(file.stem for file in (ROOT / "notebooks").glob("*.ipynb"))


def test_every_dependency_has_its_reason_in_the_readme():
    rows = re.findall(r"^\|\s*`([^`]+)`\s*\|(.*)\|", section("Dependencies"), flags=re.M)
    named = {name.lower().replace("_", "-") for name, reason in rows if reason.strip(" |")}
    assert DECLARED - named == set(), "without a line"
    assert named - DECLARED == set(), "not a dependency any more"


def test_every_dependency_has_an_exact_version():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line.strip() and not line.startswith("#")]
    odd = [line for line in pins if not re.fullmatch(r"[a-z0-9.-]+==[0-9][\w.]*", line)]
    assert not odd, "write name==version, and nothing of this machine"
    names = [line.split("==")[0] for line in pins]
    assert len(names) == len(set(names))
    assert set(names) >= DECLARED
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

    def test_imports_from_the_lab_and_its_rooms_alone(self, notebook):
        deep = [module for module, _ in lesson_imports(notebook) if module.count(".") > 1]
        assert not deep

    def test_three_code_cells_never_stand_in_a_row(self, notebook):
        content = json.loads(notebook.read_text(encoding="utf-8"))
        kinds = "".join(cell["cell_type"][0] for cell in content["cells"])
        assert "ccc" not in kinds


def test_the_lab_hands_on_what_three_lessons_use():
    users = Counter()
    for notebook in NOTEBOOKS:
        users.update({name for _, names in lesson_imports(notebook) for name in names})
    face = set(importlib.import_module("sftlab").__all__)
    assert not {name for name in face if users[name] < 2} - {"load_run"}, "too few lessons use them"
    assert len(face) <= 40


@pytest.mark.parametrize("command", ["ruff check .", "ruff format --check .", "codespell_lib"])
def test_tool_finds_nothing(command):
    command = [sys.executable, "-m", *command.split()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
