"""The runner, on notebooks of three cells made here."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from html import unescape
from pathlib import Path

import nbformat
import psutil
import pytest

from sftlab.course import claims, runner
from sftlab.course.lessons import LessonError, choose_parameters, find_lessons, parse_parameter
from sftlab.course.pages import write_page
from sftlab.course.runner import run_notebooks
from sftlab.profiles import PROFILES, Profile

HEADING = """# Counting & <comparing>

*You will count.*

Start with [the first](00_good.ipynb), go on to [the *second*](01_bad.ipynb#More), come back
[up](#More), and [never](99_not_run.ipynb) here.

## More
"""
BAR = """import sys
for state in ("\\r 10%", "\\r 50%\\r 75%", "\\r100%\\n"):
    sys.stdout.write(state)
    sys.stdout.flush()"""


def make_notebook(folder, name, *code, parameters='seeds = 3\nprofile = "tiny"'):
    cells = [nbformat.v4.new_markdown_cell(HEADING)]
    if parameters:
        cell = nbformat.v4.new_code_cell(parameters)
        cell.metadata["tags"] = ["parameters"]
        cells.append(cell)
    cells += [nbformat.v4.new_code_cell(source) for source in code]
    metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "language_info": {"name": "python"},
    }
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=metadata)
    nbformat.write(notebook, folder / f"{name}.ipynb")


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """Three notebooks, the second of which fails, executed once with seeds=5."""
    notebooks, build = tmp_path_factory.mktemp("notebooks"), tmp_path_factory.mktemp("build")
    good = "import sys, os\nfrom pathlib import Path\nPath('python').write_text(sys.executable)\n"
    good += "print(seeds * 2, os.environ['HF_HUB_OFFLINE'])"
    make_notebook(notebooks, "00_good", good)
    make_notebook(notebooks, "01_bad", "ready = seeds", "answer = {}\nanswer['missing']", "1")
    leave = "import tempfile\nopen('left', 'w').write(tempfile.mkdtemp())"
    make_notebook(notebooks, "02_plain", "print('still runs')", BAR, leave, parameters=None)
    chosen = {"parameters": {"seeds": 5}, "progress": False}
    return notebooks, build, run_notebooks([], folder=build, notebooks=notebooks, **chosen)


def test_every_lesson_runs_with_its_parameters_by_this_python_and_offline(course):
    _, build, results = course
    assert [r.status for r in results] == ["passed", "failed", "passed"]
    assert all(0 < r.minutes < 2 for r in results)
    executed = nbformat.read(results[0].executed, as_version=4)
    printed = [o.text for c in executed.cells for o in c.get("outputs", []) if "text" in o]
    assert printed == ["10 1\n"]
    python = (build / "work" / "00_good" / "python").read_text()
    assert python == os.path.normpath(sys.executable)
    failure = results[1].failure
    assert failure.cell == 4  # heading, parameters, ready, answer: the injected cell is not counted
    assert "KeyError: 'missing'" in failure.traceback
    assert "\x1b" not in failure.traceback


def test_pages_need_no_network_and_every_link_leads_somewhere(course):
    _, build, results = course
    links = set()
    for page in [build / "index.html", *(r.page for r in results)]:
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"<(script|link|img|iframe)[^>]*\b(src|href)=[\"']?(https?:)?//", text)
        assert not re.search(r"@import|url\(\s*[\"']?(https?:)?//|import\([\"']http", text)
        found = set(re.findall(r'<a\b[^>]*\bhref="([^"]*)"', text))
        for link in found:
            file, _, place = link.partition("#")
            target = build / file if file else page
            assert target.is_file(), f"{page.name}: {link}"
            assert not place or f'id="{place}"' in target.read_text(encoding="utf-8"), link
        links |= found
    assert {"index.html", "00_good.html", "01_bad.html", "01_bad.html#More", "#More"} <= links
    assert "glossary.html" in links


DEEP = [
    "# Folds",
    "## One",
    "### Deep",
    "In it.",
    "#### Deeper",
    "Over.\n### Shallow",
    "## Two",
    "End.\n```\n# A comment\n```",
]


def test_a_page_folds_what_is_deep_hides_the_set_up_and_says_what_a_picture_shows(tmp_path):
    cells = [nbformat.v4.new_markdown_cell(text) for text in DEEP]
    for text in ("### Deep", "#### Deeper", "## Two"):
        cells[DEEP.index(text)].metadata["tags"] = ["deep"]
    hidden, shown = (nbformat.v4.new_code_cell(code) for code in ("secret = 1", "draw()"))
    hidden.metadata["tags"] = ["setup"]
    data = {"image/png": "AAAA", "text/plain": 'Bars: "a" <1%.'}
    claim = {"text/html": '<strong class="ledger">B3</strong>'}
    shown.outputs = [nbformat.v4.new_output("display_data", d) for d in (data, claim)]
    book = nbformat.v4.new_notebook(cells=[*cells[:4], hidden, shown, *cells[4:]])
    nbformat.write(book, tmp_path / "05_x.ipynb")
    known = ["04_w", "05_x", "06_y", "index"]
    text = write_page(tmp_path / "05_x.ipynb", "X", folder=tmp_path, known=known).read_text("utf-8")
    tags = r'<(?:/?details|summary|h\d id="\w+|p>|img)'
    found = " ".join(re.findall(tags, text.partition("<!--")[0].partition("</nav>\n<nav>")[2]))
    fold = '<details <summary <h{} id="{}'.format
    assert found.replace("</details", "/").replace("<p>", "p") == (
        f'<details <summary / <h1 id="Folds <h2 id="One {fold(3, "Deep")} p <img '
        f'{fold(4, "Deeper")} / / p <h3 id="Shallow {fold(2, "Two")} p /'
    )
    assert re.search(r"""<img alt=(.)Bars: "a" <1%.\1""", unescape(text))
    assert "secret" not in text
    assert "In&nbsp;[" not in text
    assert '<a href="index.html#B3"><b>B3</b></a>' in text
    assert re.findall(r'<li><a href="#(\w+)">', text) == ["One", "Two"]
    for link in ('<a href="04_w.html">← 04 w</a>', '<a href="06_y.html">06 y →</a>'):
        assert text.count(link) == 2
    assert 'media="(prefers-color-scheme: dark)"' in text


def test_glossary_has_an_anchor_for_each_term_in_lower_case(course):
    _, build, _ = course
    ids = re.findall(r'<h3 id="([^"]*)"', (build / "glossary.html").read_text(encoding="utf-8"))
    assert {"-100", "adamw", "loss-mask", "pass@k"} <= set(ids)
    assert [one.lower() for one in ids] == ids


def test_a_bar_leaves_only_its_last_state_and_a_lesson_no_temporary_file(course):
    _, build, results = course
    executed = nbformat.read(results[2].executed, as_version=4)
    assert [o.text for o in executed.cells[2].outputs] == ["100%\n"]
    assert re.search(r"<pre>100%\s*</pre>", results[2].page.read_text(encoding="utf-8"))
    left = Path((build / "work" / "02_plain" / "left").read_text())
    assert left.is_absolute()
    assert not left.parent.exists()
    assert left.parent.parent == Path(tempfile.gettempdir())


PLACES = """import os, pathlib, sys, tempfile, warnings
import sftlab
places = [os.getcwd(), pathlib.Path.home(), tempfile.mkdtemp(), sftlab.__file__, sys.prefix]
print(*places, places, f"\\x1b[32m{places[0]}\\x1b[0m", f"file://{places[0]}/x")
print([f"\\n{places[0]}"])
warnings.warn(f"in {tempfile.gettempdir()}")
sftlab.load("nosuch")"""


def test_executed_notebooks_and_pages_name_no_folder_of_this_machine(tmp_path):
    make_notebook(tmp_path, "00_places", PLACES)
    build = tmp_path / "build"
    (result,) = run_notebooks(["00"], folder=build, notebooks=tmp_path, progress=False)
    assert "UnknownProfileError" in result.failure.traceback
    clone = Path(runner.__file__).parents[2]
    places = {tmp_path, Path.home(), Path(tempfile.gettempdir()), clone, Path(sys.prefix)}
    for file in (result.executed, result.page, *build.glob("*.html"), *build.glob("*.json")):
        text = file.read_text(encoding="utf-8")
        for place in map(str, places):
            assert not re.search(rf"{re.escape(place)}(?![\w-])", text), f"{file.name}: {place}"
    assert "build/work/00_places" in result.executed.read_text(encoding="utf-8")


def test_index_and_summary_tell_what_happened(course):
    _, build, _ = course
    index = (build / "index.html").read_text(encoding="utf-8")
    assert "Counting &amp; &lt;comparing&gt;" in index
    assert "You will count." in index
    assert 'href="00_good.html"' in index
    assert "failed</span> in cell 4" in index
    summary = json.loads((build / "summary.json").read_text(encoding="utf-8"))
    assert [n["status"] for n in summary["notebooks"]] == ["passed", "failed", "passed"]
    assert summary["notebooks"][0]["parameters"] == {"seeds": 5, "profile": "tiny"}
    assert summary["notebooks"][1]["failure"]["error"] == "KeyError: 'missing'"
    assert summary["machine"]["cores"] == os.cpu_count()


def test_a_lesson_whose_model_was_not_fetched_is_skipped_unless_named(tmp_path, monkeypatch):
    absent = Profile(name="absent", source=str(tmp_path / "no"), fetched=True)
    monkeypatch.setitem(PROFILES, "absent", absent)
    make_notebook(tmp_path, "14_far", "1", parameters='profile = "absent"')
    how = {"folder": tmp_path / "build", "notebooks": tmp_path, "progress": False}
    (result,) = run_notebooks(**how)
    assert result.status == "skipped"
    assert "make real" in (tmp_path / "build" / "index.html").read_text("utf-8")
    assert run_notebooks(["14"], **how)[0].status == "passed"  # whose cells say what is missing


def test_lesson_by_number_and_by_name_and_a_mistake_is_named(course):
    notebooks, _, _ = course
    found = find_lessons(["00", "02_plain", "01"], folder=notebooks)
    assert [lesson.name for lesson in found] == ["00_good", "02_plain", "01_bad"]
    with pytest.raises(LessonError, match="'09'; choose one of 00_good, 01_bad, 02_plain"):
        find_lessons(["09"], folder=notebooks)
    with pytest.raises(LessonError, match="sedes; there are: seeds, profile"):
        choose_parameters(found, {"sedes": 1})


def test_a_notebook_without_a_heading_is_one_and_what_is_none_is_named(tmp_path):
    (tmp_path / "Untitled.ipynb").write_text('{"cells": []}')
    assert [lesson.title for lesson in find_lessons(folder=tmp_path)] == ["Untitled"]
    (tmp_path / "empty.ipynb").touch()
    with pytest.raises(LessonError, match=r"cannot read .*empty.ipynb as a lesson"):
        find_lessons(folder=tmp_path)


def test_parameter_on_the_command_line():
    read = dict(map(parse_parameter, ["a=3", "b=0.5", "c=true", "d=tiny", "e='3'", "f="]))
    assert read == {"a": 3, "b": 0.5, "c": True, "d": "tiny", "e": "3", "f": ""}
    with pytest.raises(LessonError, match="write name=value"):
        parse_parameter("seeds")


def test_dead_kernel_is_reported(tmp_path):
    make_notebook(tmp_path, "00_dies", "import os\nos._exit(9)")
    (result,) = run_notebooks(["00"], folder=tmp_path / "build", notebooks=tmp_path, progress=False)
    assert result.status == "failed"
    assert "Kernel died" in result.failure.traceback


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_interrupt_keeps_what_is_finished_and_leaves_no_process(tmp_path):
    pid_file = tmp_path / "pid"
    make_notebook(tmp_path, "00_quick", "1")
    write = f"import os, time\nopen({str(pid_file)!r}, 'w').write(str(os.getpid()))"
    make_notebook(tmp_path, "01_long", f"{write}\ntime.sleep(600)")
    script = (
        # A shell starts its background jobs with SIGINT ignored; this one is to be interrupted.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from pathlib import Path; from sftlab.course.runner import run_notebooks\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "r = run_notebooks([], folder=folder / 'build', notebooks=folder, progress=False)\n"
        "print([x.status for x in r])"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while not (pid_file.is_file() and pid_file.read_text()):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    kernel = psutil.Process(int(pid_file.read_text()))
    process.send_signal(signal.SIGINT)
    assert "['passed', 'interrupted']" in process.communicate(timeout=30)[0]
    assert (tmp_path / "build" / "00_quick.html").is_file()
    kernel.wait(timeout=5)


RECORD = """from sftlab.course import record
from sftlab.measure import Estimate

for claim_id, value in claims.items():
    low, high = value - 0.02, value + 0.02
    found = Estimate(value=value, low=low, high=high, inner=(low, high), seeds=1, items=9,
                     entities=9, by_seed=(value,), wider=((low, high),) * 4,
                     method="typed in a test")
    record(claim_id, found, profile=profile)"""


def test_claims_of_a_run_are_gathered_told_and_shown(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("SFTLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SFTLAB_RECORDS", raising=False)
    parameters = 'claims = {"B3": -0.1, "B6": 0.2}\nprofile = "tiny"'
    make_notebook(tmp_path, "01_base_model_problem", RECORD, parameters=parameters)
    build = tmp_path / "build"
    (result,) = run_notebooks(["01"], folder=build, notebooks=tmp_path, progress=False)

    assert result.status == "passed"
    verdicts = {name: record.verdict for name, record in result.records.items()}
    assert verdicts == {"B3": "contradicted", "B6": "supported"}
    assert [record.claim.id for record in result.failing_surprises] == ["B3"]
    said = capfd.readouterr().err
    assert "B3 was supported and is contradicted. gain: −10 points" in said
    assert "B6" not in said

    index = (build / "index.html").read_text("utf-8")
    assert f"2 of {len(claims())} measured: 1 supported, 1 contradicted" in index
    assert "first expected: supported" in index
    assert re.search(r'id="B6".*\+20 points<br>.*\+18 to \+22.*supported', index, re.DOTALL)
    assert '<a href="01_base_model_problem.html">01</a>' in index


def test_the_contents_of_a_page_are_the_lesson_s_headings(tmp_path):
    cells = [nbformat.v4.new_markdown_cell("## 1. One `x` & two"), nbformat.v4.new_code_cell()]
    shown = nbformat.v4.new_output("display_data", {"text/markdown": "## A report's"})
    cells[1].outputs = [shown]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "00_a.ipynb")
    page = write_page(tmp_path / "00_a.ipynb", "A", folder=tmp_path, known=()).read_text("utf-8")
    assert ">A report's<" in page
    contents = page.partition('<ol><li><a href="#')[2].partition("</ol>")[0]
    assert "One x &amp; two" in contents
    assert "report" not in contents
