"""Whether the course runs where a notebook server is already running, as on Google Colab.

`colab.txt` has the versions of Colab's image. The tests ask the package index.
"""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest

from sftlab.course import find_lessons

ROOT = Path(__file__).resolve().parents[1]
FREEZE = Path(__file__).with_name("colab.txt")
LESSONS = ("00", "05", "07")  # 05 and 07 on a random model: it is their kernel that is tested
pytestmark = pytest.mark.network


def pins(*names):
    lines = FREEZE.read_text(encoding="utf-8").splitlines()
    found = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    return {name: version for name, version in found.items() if not names or name in names}


def pip(python, *arguments):
    command = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_core_replaces_nothing_that_a_running_colab_kernel_uses(tmp_path):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    # rouge-score 0.1.2 has no wheel, which pip wants for another Python: what it needs stands here.
    wanted = [r for r in project["dependencies"] if not r.startswith("rouge-score")]
    wanted += ["absl-py", "nltk", "six", "ipykernel"]
    report = tmp_path / "report.json"
    options = "--dry-run --ignore-installed --python-version 3.13 --only-binary :all:".split()
    places = ["--report", report, "--target", tmp_path / "nowhere", "-c", FREEZE]
    pip(sys.executable, "install", *options, *places, *wanted)
    found = {
        re.sub("[._]", "-", one["metadata"]["name"].lower()): one["metadata"]["version"]
        for one in json.loads(report.read_text(encoding="utf-8"))["install"]
    }
    assert {name: found.get(name) for name in pins()} == pins()


@pytest.fixture(scope="module")
def colab_kernel(tmp_path_factory):
    """A folder of kernels with Colab's, which finds all else where these tests run."""
    folder = tmp_path_factory.mktemp("colab")
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    python = folder / "venv" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    kernel = pins("ipykernel", "ipython", "ipywidgets", "jupyter-client", "traitlets", "tornado")
    pip(python, "install", *(f"{name}=={version}" for name, version in kernel.items()))
    here = [path for path in sys.path if path.endswith("site-packages")]
    command = [str(python), "-c", "import site; print(site.getsitepackages()[0])"]
    own = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    # A path in a .pth file comes after the environment's own packages.
    Path(own, "rest.pth").write_text("\n".join([*here, str(ROOT)]), encoding="utf-8")
    spec = folder / "kernels" / "colab"
    spec.mkdir(parents=True)
    argv = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernel = {"argv": argv, "display_name": "Colab", "language": "python"}
    (spec / "kernel.json").write_text(json.dumps(kernel), encoding="utf-8")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("number", LESSONS)
def test_a_lesson_runs_on_colabs_kernel(number, colab_kernel, toy_base, tmp_path):
    from nbclient import NotebookClient

    given = {"profile": str(toy_base), "seeds": 1, "examples_count": 40} if number != "00" else {}
    (lesson,) = find_lessons([number])
    notebook = nbformat.read(lesson.path, as_version=4)
    tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    tagged[0].source += "".join(f"\n{name} = {value!r}" for name, value in given.items())
    versions = nbformat.v4.new_code_cell(
        "import IPython, ipykernel, ipywidgets\n"
        "print(IPython.__version__, ipykernel.__version__, ipywidgets.__version__)"
    )
    notebook.cells.append(versions)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(colab_kernel))
        patch.setenv("SFTLAB_RECORDS", str(tmp_path / "records"))
        client = NotebookClient(notebook, kernel_name="colab", timeout=900)
        client.execute(cwd=str(tmp_path))
    known = pins("ipython", "ipykernel", "ipywidgets")
    shown = notebook.cells[-1].outputs[0].text.split()
    assert shown == [known["ipython"], known["ipykernel"], known["ipywidgets"]]
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert any("image/png" in output.get("data", {}) for output in outputs)
