"""Every lesson runs from top to bottom on the embedded profile, leaves a clean page, and shows
the effects that its words describe.

Effects are read from the claims that a lesson records, and from the pictures: each tells its rows
and percentages in its text for those who cannot see it, such as "Title: base model answered
correctly 0%; fine-tuned answered correctly 98%."
"""

import functools
import re
import tomllib
from pathlib import Path

import nbformat
import pytest

from sftlab.course import find_lessons, run_notebooks
from sftlab.course.ledger import read_records
from sftlab.course.pages import write_page
from sftlab.course.runner import Result
from sftlab.paths import NOTEBOOKS

LESSONS = [one.name for one in find_lessons() if one.defaults.get("profile", "tiny") == "tiny"]
"""Lesson 14 has a test of its own: its model is not there before `make real`."""
EXPECTED = {
    path.stem: tomllib.loads(path.read_text(encoding="utf-8"))
    for path in sorted(Path(__file__).with_name("expected").glob("*.toml"))
}
"""Lesson -> `claims` that it records, those of them that are `supported` or `contradicted` by so
much that one seed shows it too, those `near` to the rule's bound, of which a seed of five lies on
its other side, and `effects`, a line for each: words of the figure's title | row | the row to
subtract, if any | least | most percent. `seeds` where this takes more than one."""


def parameters_of(name):
    """`make course` runs the five seeds that the ledger's verdicts need; one shows sooner that a
    lesson runs and its effects. The browser tests use the same: a run is computed once."""
    (lesson,) = find_lessons([name])
    seeds = EXPECTED.get(lesson.name, {}).get("seeds", 1)
    return {"seeds": seeds} if "seeds" in lesson.defaults else {}


def read_saved(name, folder):
    """The result of a lesson that JupyterLab saved in `folder`, with its page."""
    (lesson,) = find_lessons([name])
    executed = folder / f"{name}.ipynb"
    page = write_page(executed, lesson.title, folder=folder, known=LESSONS)
    found = {"executed": executed, "page": page, "records": read_records(folder / "records")}
    return Result(lesson=lesson, parameters=parameters_of(name), status="passed", **found)


@pytest.fixture(scope="module")
def run(tmp_path_factory, from_browser):
    """Name -> result of that lesson, which is executed once.

    What the browser ran before in this process is read: the cells and the parameters are the same.
    Where a lesson was not run there, or with a complaint, papermill runs it.
    """

    @functools.cache
    def run(name):
        if (from_browser / name).is_dir():
            return read_saved(name, from_browser / name)
        folder = tmp_path_factory.mktemp(name)
        (done,) = run_notebooks(
            [name], parameters=parameters_of(name), folder=folder, progress=False
        )
        return done

    return run


@pytest.fixture(params=LESSONS)
def result(request, run):
    return run(request.param)


def test_lesson_runs_to_its_end_and_its_page_is_clean(result):
    assert result.status == "passed", result.failure and result.failure.traceback
    page = result.page.read_text(encoding="utf-8")
    assert "Traceback (most recent call last)" not in page
    assert result.lesson.title.split("&")[0].strip() in page
    notebook = nbformat.read(result.executed, as_version=4)
    for number, cell in enumerate(notebook.cells, start=1):
        for output in cell.get("outputs", []):
            assert output.get("name") != "stderr", f"cell {number}: {output['text']}"
            shown = str(output.get("text", "")) + str(output.get("data", {}).get("text/plain", ""))
            assert not re.search(r"\b\w*Warning\b", shown), f"cell {number}: {shown}"
    for record in result.records.values():
        assert not record.surprise, f"{record.claim.id}: {record.verdict}. {record.reason}"


class Told:
    """The percentages that one picture tells, by row."""

    def __init__(self, text):
        self.rows = {
            label: float(number)
            for label, number in re.findall(
                r"(.+?) (\d+(?:\.\d+)?)%(?:; |\.$)", text.partition(": ")[2]
            )
        }
        assert len(self.rows) == text.count("%") > 0, f"not every row can be read: {text}"

    def __getitem__(self, words):
        """The percentage of the only row with all these words, separated by " & "."""
        found = [label for label in self.rows if all(word in label for word in words.split(" & "))]
        found = [label for label in found if label.endswith(words)] or found
        assert len(found) == 1, f"{words!r} is in {len(found)} rows of {list(self.rows)}"
        return self.rows[found[0]]


def told(result, word):
    """What the only picture with `word` in its title tells."""
    notebook = nbformat.read(result.executed, as_version=4)
    texts = [
        output.data["text/plain"]
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    found = [text for text in texts if word in text.partition(": ")[0]]
    assert len(found) == 1, f"{len(found)} pictures of {result.name} have {word!r} in the title"
    return Told(found[0])


@pytest.mark.parametrize("name", EXPECTED)
def test_lesson_records_its_claims(name, run):
    """And their numbers lie on the side of the bound where the ledger's verdict has them."""
    records, expected = run(name).records, EXPECTED[name]
    assert set(records) == set(expected["claims"].split())
    for verdict in ("supported", "contradicted"):
        for id in expected.get(verdict, "").split():
            assert records[id].verdict == verdict, f"{id}: {records[id].reason}"
    for id in records.keys() - set(expected.get("near", "").split()):
        claim, of = records[id].claim, records[id].estimates
        met = all(p.allowed[0] <= of[p.name].value <= p.allowed[1] for p in claim.rule)
        assert claim.baseline in ("inconclusive", "supported" if met else "contradicted"), id


EFFECTS = [
    [name, *(part.strip() for part in line.split("|"))]
    for name, expected in EXPECTED.items()
    for line in expected["effects"].strip().splitlines()
]


@pytest.mark.parametrize("effect", EFFECTS, ids=lambda e: f"{e[0]}: {e[2]}")
def test_figure_shows_its_effect(effect, run):
    name, title, row, minus, least, most = effect
    shares = told(run(name), title)
    assert float(least) <= shares[row] - (shares[minus] if minus else 0) <= float(most)


def test_00_the_end_of_turn_costs_more_than_guessing_and_the_answers_are_known(run):
    page = run("00_start_here").executed.read_text(encoding="utf-8")
    nats = (
        r"Guessing costs (\S+) nats\. The costliest part is the \*\*end of turn\*\* with (\S+) nats"
    )
    guess, end = map(float, re.search(nats, page).groups())
    assert end > guess + 5
    assert "it does not know this form" in page


def test_00_the_loop_alone_teaches_form_facts_and_the_end_of_turn(run):
    page = run("00_start_here").executed.read_text(encoding="utf-8")
    alone = re.search(r"and (\d+)% with the answer and nothing else", page)
    assert int(alone[1]) >= 90
    assert "the *form* is there before the *facts*" in page


def test_07_each_seed_finds_a_higher_rate_for_lora(run):
    assert min(run("07_lora_qlora").records["L3"].estimates["rates"].by_seed) > 2


def test_09_the_report_decides_against_every_baseline(run):
    page = run("09_evaluation").executed.read_text(encoding="utf-8")
    for said in ("What would change the verdict", "no person has rated the answers",
                 "ReportError", "Old skills on the forgetting meter"):  # fmt: skip
        assert said in page
    count, same = re.search(r"Of (\d+) answers (\d+) are the lab's", page).groups()
    assert count == same, "lm-eval generates what the lab does"


SABOTAGE = """
from random import Random
import sftlab.world.examples as sabotaged

true_examples = sabotaged.country_examples

def shuffled(count, *, seed=0, **options):
    rows = true_examples(count, seed=seed, **options)
    answers = [row["messages"][1]["content"] for row in rows]
    Random(seed).shuffle(answers)
    return [
        sabotaged.example(row["messages"][0]["content"], answer)
        for row, answer in zip(rows, answers, strict=True)
    ]

sabotaged.country_examples = shuffled
"""


def without(cells, headings):
    """The cells but for the parts under these headings: their claims are not asked for here."""
    kept, keep = [], True
    for cell in cells:
        if cell.cell_type == "markdown" and (heading := re.search("^##.*", cell.source, re.M)):
            keep = not heading[0].startswith(headings)
        if keep:
            kept.append(cell)
    return kept


@pytest.mark.slow
def test_01_with_shuffled_labels_loses_its_effects(run, tmp_path):
    """The lesson itself, its examples' answers dealt out anew: the effects must go."""
    notebook = nbformat.read(NOTEBOOKS / "01_base_model_problem.ipynb", as_version=4)
    at = next(n for n, c in enumerate(notebook.cells) if "parameters" in c.metadata.get("tags", []))
    notebook.cells.insert(at + 1, nbformat.v4.new_code_cell(SABOTAGE))
    others = ("### Can it add", "## 6.", "## 7.", "## 8.", "## 9.", "## 10.")
    notebook.cells = without(notebook.cells, others)
    nbformat.write(notebook, tmp_path / "01_base_model_problem.ipynb")
    (done,) = run_notebooks(
        parameters=parameters_of("01"),
        folder=tmp_path / "build",
        notebooks=tmp_path,
        progress=False,
    )
    assert done.status == "passed", done.failure and done.failure.traceback
    whole = run("01_base_model_problem").records
    for claim, part in (("B3", "gain"), ("B5", "held out")):
        assert whole[claim].estimates[part].value > 0.3
        assert done.records[claim].estimates[part].value < 0.1
    for claim in ("B1", "B2"):  # what no example reaches stays as it was
        assert done.records[claim].verdict == whole[claim].verdict
