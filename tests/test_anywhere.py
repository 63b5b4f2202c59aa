"""What can be checked on one machine of others: Windows, macOS, Binder, GitHub's CI, a wheel.

None of them is here. What they lack or refuse is looked for in the code, or taken away.
"""

import ast
import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path, PurePosixPath
from urllib.request import urlopen

import pytest
import yaml
from jupyter_server.serverapp import list_running_servers

ROOT = Path(__file__).resolve().parents[1]
if not (ROOT / "pyproject.toml").is_file():
    pytest.skip("for a clone", allow_module_level=True)

CODE = [file for room in ("sftlab", "recipes") for file in sorted((ROOT / room).rglob("*.py"))]
POSIX_MODULES = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "readline", "curses"}
POSIX_NAMES = {
    "os": "fork forkpty getuid geteuid getgid getpgid setsid killpg nice mkfifo chown statvfs uname"
    " sched_getaffinity getloadavg sysconf wait3 wait4 pread register_at_fork openpty",
    "signal": "SIGKILL SIGHUP SIGQUIT SIGUSR1 SIGUSR2 SIGALRM SIGCHLD SIGPIPE alarm setitimer",
}


def committed():
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    return [name for name in listed.split("\0") if name]


def cannot_be_a_name_on_windows(path):
    reserved = r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?"
    parts = PurePosixPath(path).parts
    return len(path) > 150 or any(
        re.search(r'[<>:"\\|?*\x00-\x1f]|[. ]$', part) or re.fullmatch(reserved, part, re.I)
        for part in parts
    )


def test_names_of_files_exist_on_every_platform():
    names = committed()
    assert not [name for name in names if cannot_be_a_name_on_windows(name)]
    assert len({name.casefold() for name in names}) == len(names), "names that differ by case only"
    assert all(map(cannot_be_a_name_on_windows, ("runs/a:b", "aux.txt", "a/b.", "x" * 200)))


def complaints(text):
    """What Windows lacks in a module's text, unless the code around it does without."""
    found, guarded, tree = [], set(), ast.parse(text)
    for node in ast.walk(tree):
        tried = isinstance(node, ast.Try) and [ast.unparse(one.type) for one in node.handlers]
        lenient = isinstance(node, ast.With) and [ast.unparse(one) for one in node.items]
        if re.search("ImportError|AttributeError", " ".join(tried or lenient or [])):
            guarded.update(inside for one in node.body for inside in ast.walk(one))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom) and node not in guarded:
            names = {alias.name for alias in node.names} | {getattr(node, "module", "")}
            found += [f"line {node.lineno}: no {name} on Windows" for name in names & POSIX_MODULES]
        if isinstance(node, ast.Attribute) and node not in guarded:
            module = getattr(node.value, "id", "")
            if node.attr in POSIX_NAMES.get(module, "").split():
                found.append(f"line {node.lineno}: no {module}.{node.attr} on Windows")
        if isinstance(node, ast.Call):
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            given = ast.unparse(node)
            place = {"open": 9, "read_text": 0, "write_text": 1}.get(called, -1)
            binary = re.search(r"os\.open|'[rwa]\+?b\+?'|timeout=", given)  # or an address
            if 0 <= place >= len(node.args) and "encoding=" not in given and not binary:
                found.append(f"line {node.lineno}: {called} without encoding")
            if called in ("Process", "Pool", "ProcessPoolExecutor") and "mp_context=" not in given:
                found.append(f"line {node.lineno}: {called} forks where it can")
    return found


def test_code_uses_nothing_that_windows_lacks():
    found = {str(file.relative_to(ROOT)): complaints(file.read_text("utf-8")) for file in CODE}
    assert not {file: lines for file, lines in found.items() if lines}


def test_each_complaint_is_made():
    wrong = "import fcntl; os.killpg(1, 9); p.read_text(); open('x'); ProcessPoolExecutor(2)"
    assert len(complaints(wrong)) == 5
    assert not complaints("try:\n import fcntl\nexcept ImportError:\n pass")


WITHOUT_FORK = """
import multiprocessing, os, signal, sys
del os.fork, os.forkpty, os.killpg
multiprocessing.set_start_method("spawn")
from sftlab import Experiment
from sftlab.measure import run_code

if __name__ == "__main__":
    code = {"code": "def f(x): return x + 1", "name": "f", "tests": [([1], 2)]}
    assert run_code([code, code | {"code": "def f(x):\\n while True: pass"}]).passed.tolist() == [
        True, False]
    frame = Experiment(sys.argv[1], measure={"m": lambda run, seed: seed}).run(
        {"": {}}, jobs=2, progress=False).frame
    assert sorted(frame["value"]) == [0, 1, 2, 3, 4], frame
"""


@pytest.mark.slow
def test_sweeps_and_candidates_run_without_fork(toy_base, tmp_path):
    """`fork` and process groups are taken away, as on Windows; torchrun has a test of its own."""
    (tmp_path / "script.py").write_text(WITHOUT_FORK, encoding="utf-8")
    command = [sys.executable, str(tmp_path / "script.py"), str(toy_base)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "SFTLAB_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_commands_print_to_a_console_that_lacks_characters(encoding, tmp_path):
    """The locale is ASCII too, so a text file that is read without an encoding is an error."""
    (tmp_path / "my.jsonl").write_text(
        '{"prompt": "Où est Łódź? 東京", "completion": "là → là"}\n' * 12, encoding="utf-8"
    )
    locale = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    environment = os.environ | locale | {"PYTHONIOENCODING": encoding, "PYTHONPATH": str(ROOT)}
    for line in ("claims", "mask --template chatml --messages my.jsonl", "validate my.jsonl",
                 "plan --model llama-3.1-8b", "corpus --count 2", "run --help"):  # fmt: skip
        command = [sys.executable, "-m", "sftlab", *line.split()]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True)
        assert done.returncode in (0, 1), (line, done.stderr)
        assert done.stdout.decode(encoding), line
        assert b"Error" not in done.stderr, (line, done.stderr)


@pytest.mark.network
def test_binder_reads_the_folder_binder(tmp_path):
    """By repo2docker itself, which needs no Docker to write the Dockerfile."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(tmp_path)]
    subprocess.run([*pip, "jupyter-repo2docker==2026.4.0"], check=True)
    command = [sys.executable, "-m", "repo2docker", "--no-build", "--debug", str(ROOT)]
    start = {"cwd": tmp_path, "env": os.environ | {"PYTHONPATH": str(tmp_path)}}
    done = subprocess.run(command, capture_output=True, encoding="utf-8", **start)
    assert done.returncode == 0, done.stderr
    steps = [line for line in done.stdout.splitlines() if line.startswith(("RUN", "ENV", "COPY"))]
    assert '--file "binder/environment.yml"' in done.stdout
    assert "environment-2epy-2d3-2e11" in done.stdout  # the Python of environment.yml
    (built,) = [place for place, step in enumerate(steps) if step == "RUN ./binder/postBuild"]
    assert any("src/ ${REPO_DIR}/" in step for step in steps[:built]), "it installs the clone"
    assert 'ENV R2D_ENTRYPOINT="${REPO_DIR}/binder/start"' in steps


def test_the_workflow_runs_what_is_here():
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    assert workflow["permissions"] == {"contents": "read"}
    lines = []
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 150
        for step in job["steps"]:
            assert re.fullmatch(r"actions/[\w-]+@v\d+", step.get("uses", "actions/x@v1"))
            lines += [shlex.split(step["run"])] if "run" in step else []
    assert [".ci/run"] in lines
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    for words in lines:
        places = [word for word in words if re.match(r"(tests/|\.ci/|constraints)", word)]
        assert all((ROOT / place).exists() for place in places), words
        if words[:3] == ["python", "-m", "sftlab"]:
            assert [*(ROOT / "notebooks").glob(f"{words[-1]}_*.ipynb")]


@pytest.mark.network
@pytest.mark.slow
def test_a_wheel_is_the_whole_course(tmp_path):
    """From an empty folder: a lesson runs, and JupyterLab opens a copy of the lessons."""
    pip = [sys.executable, "-m", "pip", "--quiet"]
    subprocess.run([*pip, "wheel", str(ROOT), "--no-deps", "-w", str(tmp_path)], check=True)
    (wheel,) = tmp_path.glob("sftlab-*.whl")
    installed, work = tmp_path / "installed", tmp_path / "work"
    install = [*pip, "install", "--no-deps", "--target", str(installed), str(wheel)]
    subprocess.run(install, check=True)
    work.mkdir()
    settings = {"open_browser": False, "allow_root": True, "port": 0}
    (tmp_path / "jupyter_lab_config.json").write_text(json.dumps({"ServerApp": settings}))
    environment = os.environ | {"PYTHONPATH": str(installed), "SFTLAB_CACHE": str(work / "cache")}
    environment |= {f"JUPYTER_{kind}_DIR": str(tmp_path) for kind in ("CONFIG", "RUNTIME", "DATA")}
    start = {"cwd": work, "env": environment}
    subprocess.run([sys.executable, "-m", "sftlab", "run", "00"], check=True, **start)
    made = [str(file.relative_to(tmp_path)) for file in work.rglob("*")]
    assert not [name for name in made if cannot_be_a_name_on_windows(name)]
    lab = subprocess.Popen([sys.executable, "-m", "sftlab", "lab"], **start)
    try:
        while not (servers := [*list_running_servers(str(tmp_path))]):
            assert lab.poll() is None
            time.sleep(0.2)
        address = f"{servers[0]['url']}api/contents/notebooks?token={servers[0]['token']}"
        names = {one["name"] for one in json.load(urlopen(address, timeout=60))["content"]}
    finally:
        lab.terminate()
        lab.wait(60)
    assert names >= {file.name for file in (ROOT / "notebooks").glob("*.ipynb")}
    assert (work / "sftlab-course/recipes/05_loss_masks.py").is_file()
