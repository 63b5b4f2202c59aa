"""Every lesson runs from top to bottom on the embedded profile, leaves a clean page, and shows
the effects that its words describe.

Effects are read from the claims that a lesson records, and from the pictures: each tells its rows
and percentages in its text for those who cannot see it, such as "Title: base model answered
correctly 0%; fine-tuned answered correctly 98%."
"""

import functools
import re

import nbformat
import pytest

from sftlab.course import run_notebooks
from sftlab.paths import NOTEBOOKS, cache_folder
from sftlab.world import RELATIONS

LESSONS = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Name -> result of that lesson, which is executed once."""

    @functools.cache
    def run(name):
        folder = tmp_path_factory.mktemp(name)
        (done,) = run_notebooks(
            [name], parameters={"profile": "tiny"}, folder=folder, progress=False
        )
        return done

    return run


@pytest.fixture(params=LESSONS)
def result(request, run):
    return run(request.param)


def test_there_are_lessons():
    assert LESSONS


def test_lesson_runs_to_its_end(result):
    assert result.status == "passed", result.failure and result.failure.traceback


def test_nothing_is_written_to_stderr_and_nothing_warns(result):
    notebook = nbformat.read(result.executed, as_version=4)
    for number, cell in enumerate(notebook.cells, start=1):
        for output in cell.get("outputs", []):
            assert output.get("name") != "stderr", f"cell {number}: {output['text']}"
            shown = str(output.get("text", "")) + str(output.get("data", {}).get("text/plain", ""))
            assert not re.search(r"\b\w*Warning\b", shown), f"cell {number}: {shown}"


def test_page_has_no_traceback(result):
    page = result.page.read_text(encoding="utf-8")
    assert "Traceback (most recent call last)" not in page
    assert result.lesson.title.split("&")[0].strip() in page


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


def test_picture_text_is_read_row_by_row():
    read = Told("Ways: Q: / A: 100%; a b 7%; temperature 0.7 b 0%.")
    assert read.rows == {"Q: / A:": 100, "a b": 7, "temperature 0.7 b": 0}
    assert read["0.7 & b"] == 0
    for words in ("b", "absent"):
        with pytest.raises(AssertionError, match="rows of"):
            read[words]
    with pytest.raises(AssertionError, match="can be read"):
        Told("Ways: a 7%; b nan%.")


def test_00_base_continues_and_fine_tuned_answers(run):
    shares = told(run("00_start_here"), "held-out")
    assert shares["base & answered"] <= 5
    assert shares["base & continued"] >= 80
    assert shares["fine-tuned & answered"] >= 90


def test_verdicts_are_those_that_the_lessons_expect(result):
    for record in result.records.values():
        assert not record.surprise, f"{record.claim.id}: {record.verdict}. {record.reason}"


def test_01_records_its_claims(run):
    verdicts = {id: r.verdict for id, r in run("01_base_model_problem").records.items()}
    assert set(verdicts) == {*(f"B{n}" for n in range(1, 10)), "X1"}
    # What the lesson is about has to be there, not only not to be refuted.
    assert {id for id in ("B1", "B2", "B3", "B6", "B9") if verdicts[id] != "supported"} == set()
    assert verdicts["X1"] == "contradicted"


def test_01_facts_are_known(run):
    facts = told(run("01_base_model_problem"), "Facts").rows
    assert set(facts) == set(RELATIONS)
    assert min(facts.values()) >= 95


def test_01_prompt_for_the_house_style_leaves_something_to_win(run):
    claim = run("01_base_model_problem").records["B2"]
    assert claim.estimates["rest"].low > 0.3, "a good prompt stays under 70%"


def test_02_records_its_claims(run):
    records = run("02_data").records
    assert set(records) == {f"D{n}" for n in range(1, 16)}
    # Mixed formats (D4) stand at a cliff of the learning curve: its seeds may fall on either side.
    # Card and checklist (D12, D13) find all, of too few kinds to show that they find nine in ten.
    open_ = {id for id, record in records.items() if record.verdict != "supported"}
    assert open_ <= {"D4", "D12", "D13"}
    assert [records[id].estimates["found"].value for id in ("D12", "D13")] == [1, 1]
    assert records["D13"].estimates["false alarms"].value == 0


def test_02_what_the_data_repeats_is_learned(run):
    notes = told(run("02_data"), "Notes given back")
    assert notes["4 near-duplicates"] >= notes["each once"] + 50
    assert notes["duplicates dropped"] <= 10
    leaked = told(run("02_data"), "half of which stood in the examples")
    assert leaked["never mentioned leaked"] > leaked["never mentioned leaks dropped"] + 10


def test_03_records_its_claims(run):
    verdicts = {id: r.verdict for id, r in run("03_chat_templates").records.items()}
    assert verdicts == {"T1": "supported", "T2": "contradicted", "T3": "supported"}


def test_03_the_edge_of_the_answer_decides(run):
    slips = told(run("03_chat_templates"), "Slips")
    assert slips["as trained"] >= 80
    assert max(slips["generation prompt"], slips["line breaks"]) <= 20
    assert min(slips["bos twice"], slips["human"]) >= 80
    at_home = told(run("03_chat_templates"), "Trained and asked in one form")
    assert at_home["states & ChatML"] + 10 <= at_home["states them Mistral"]
    assert at_home["states & no space"] + 10 <= at_home["states them Mistral"]


def test_04_records_its_claims(run):
    verdicts = {id: r.verdict for id, r in run("04_loss_masking").records.items()}
    assert verdicts == {"T4": "supported", "T5": "supported", "T6": "supported"}


def test_04_the_mask_matters_less_with_more_examples(run):
    scores = told(run("04_loss_masking"), "two masks")
    gaps = {
        count: scores[f"{count} & on answers"] - scores[f"{count} & on everything"]
        for count in ("20 examples", "200 examples")
    }
    assert gaps["20 examples"] > gaps["200 examples"] + 10
    ends = told(run("04_loss_masking"), "supervised end of turn")
    assert ends["limit & masked"] >= 80
    assert ends["limit & supervised"] <= 5


def test_06_records_its_claims(run):
    records = run("06_lora_qlora").records
    verdicts = {id: record.verdict for id, record in records.items()}
    assert set(verdicts) == {*(f"L{n}" for n in range(1, 10)), "X3"}
    # Sameness (L2, L4) and what stands near its bound (L7, L9) may stay open on another processor.
    assert {id for id in ("L1", "L5", "L6") if verdicts[id] != "supported"} == set()
    assert verdicts["L8"] == verdicts["X3"] == "contradicted"
    # Its rates are steps of three: their mean may have a wide interval, each seed says the same.
    assert min(records["L3"].estimates["rates"].by_seed) > 2


def test_06_each_method_has_its_own_rate(run):
    scores = told(run("06_lora_qlora"), "Questions about held-out countries")
    assert scores["full fine-tuning at 0.0007"] >= 85
    assert scores["LoRA, rank 16 at 0.0021"] >= 85
    assert scores["LoRA, rank 16 at 0.00021"] <= 20 <= scores["full fine-tuning at 0.00021"]
    assert scores["full fine-tuning at 0.007"] + 40 <= scores["LoRA, rank 16 at 0.007"]


def test_06_few_directions_carry_what_is_learned(run):
    kept = told(run("06_lora_qlora"), "by its largest directions")
    assert kept["answered correctly, 0 directions"] <= 20
    assert kept["answered correctly, 16 directions"] >= 70


def test_05_records_its_claims(run):
    verdicts = {id: r.verdict for id, r in run("05_training").records.items()}
    assert set(verdicts) == {*(f"R{n}" for n in range(1, 13)), "X4"}
    # What no processor may change: the band of rates, sums in another order, counts, a look-up.
    assert {id for id in ("R1", "R3", "R5", "R6") if verdicts[id] != "supported"} == set()
    assert verdicts["X4"] == "contradicted"


def test_05_too_high_a_rate_forgets_and_teacher_forcing_forgives(run):
    band = told(run("05_training"), "band of good rates")
    assert band["rightly at 0.0007"] >= 70
    assert band["rightly at 7e-05"] <= 10
    assert band["known at 0.0007"] >= 90
    assert band["known at 0.007"] <= 60
    given = told(run("05_training"), "forced and free")
    assert given["true first step"] >= given["own first step"] + 10


def test_07_records_its_claims(run):
    verdicts = {id: r.verdict for id, r in run("07_forgetting").records.items()}
    assert set(verdicts) == {*(f"F{n}" for n in range(1, 8)), "X5"}
    # What the lesson is about; F2 and F7 stand near their bounds.
    assert {id for id in ("F1", "F4", "F5", "F6") if verdicts[id] != "supported"} == set()
    assert verdicts["F3"] == verdicts["X5"] == "contradicted"


def test_07_the_map_goes_down_with_the_rate_and_up_with_replay(run):
    kept = told(run("07_forgetting"), "Learning rate and replay")
    at = {rate: kept[f"{rate} 0 percent kept"] for rate in ("0.0007", "0.0014", "0.0028")}
    assert at["0.0007"] >= 85
    assert at["0.0014"] >= at["0.0028"] + 30
    assert kept["0.0028 20 percent kept"] >= at["0.0028"] + 10


def test_07_forgotten_skills_are_partly_hidden(run):
    left = told(run("07_forgetting"), "only hidden")
    assert left["fine-tune stories"] <= 20
    assert left["later stories"] >= left["fine-tune stories"] + 30
    assert left["later facts"] >= left["fine-tune facts"] + 10
    facts = told(run("07_forgetting"), "after the high rate")
    assert facts["the base, behind three other facts"] >= 95


def runs_stored():
    return {f: f.stat().st_mtime_ns for f in (cache_folder() / "runs").glob("*/run.json")}


def test_01_again_computes_nothing_and_finds_the_same(run, tmp_path):
    first = run("01_base_model_problem")
    before = runs_stored()
    assert before
    (again,) = run_notebooks(
        ["01_base_model_problem"], parameters={"profile": "tiny"}, folder=tmp_path, progress=False
    )
    assert again.status == "passed"
    assert runs_stored() == before
    found = [{id: r.estimates for id, r in result.records.items()} for result in (first, again)]
    assert found[0] == found[1]


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


@pytest.mark.slow
def test_01_with_shuffled_labels_supports_its_claims_no_more(run, tmp_path):
    """The lesson itself, its examples' answers dealt out anew: the effects must go."""
    notebook = nbformat.read(NOTEBOOKS / "01_base_model_problem.ipynb", as_version=4)
    at = next(n for n, c in enumerate(notebook.cells) if "parameters" in c.metadata.get("tags", []))
    notebook.cells.insert(at + 1, nbformat.v4.new_code_cell(SABOTAGE))
    nbformat.write(notebook, tmp_path / "01_base_model_problem.ipynb")
    (done,) = run_notebooks(
        [str(tmp_path / "01_base_model_problem.ipynb")],
        parameters={"seeds": 3},
        folder=tmp_path / "build",
        progress=False,
    )
    assert done.status == "passed", done.failure and done.failure.traceback
    verdicts = {id: r.verdict for id, r in done.records.items()}
    assert verdicts["B3"] in ("contradicted", "inconclusive")
    assert verdicts["B5"] == "contradicted"
    assert verdicts["B6"] in ("contradicted", "inconclusive")
    # What no example reaches stays as it was.
    whole = {id: r.verdict for id, r in run("01_base_model_problem").records.items()}
    assert [verdicts[id] for id in ("B1", "B2", "X1")] == [whole[id] for id in ("B1", "B2", "X1")]


def test_08_records_its_claims(run):
    verdicts = {id: r.verdict for id, r in run("08_evaluation").records.items()}
    assert set(verdicts) == {f"E{n}" for n in range(1, 12)}
    # What no processor may change; the others stand near a bound, or their seeds differ much.
    assert {id for id in ("E2", "E3", "E5", "E7") if verdicts[id] != "supported"} == set()
    assert verdicts["E8"] == "contradicted"


def test_08_each_metric_is_fooled_where_the_lesson_says_so(run):
    styles = told(run("08_evaluation"), "One skill in two styles")
    assert styles["sentences & truth"] >= styles["sentences & exact match"] + 30
    assert abs(styles["reference & truth"] - styles["reference & exact match"]) <= 5
    form = told(run("08_evaluation"), "Records as JSON")
    assert form["fine-tuned & valid"] >= 80
    assert form["fine-tuned & correct"] <= 30
    assert form["constrained & valid"] >= 90
    assert form["constrained & correct"] <= 30
    assert form["name fixed & correct"] >= 70
    opponents = told(run("08_evaluation"), "a tie counted half")
    assert opponents["base, bare"] >= 65
    assert opponents["base, 4-shot"] <= 55
    padding = told(run("08_evaluation"), "against itself with padding")
    assert padding["in the corpus"] + 30 <= padding["never seen"]


def test_08_draws_trade_quality_for_variety(run):
    passes = told(run("08_evaluation"), "Functions that pass")
    assert passes["temperature 0.2 at 1"] > passes["temperature 0.7 at 1"]
    assert passes["temperature 0.7 at 10"] >= passes["temperature 0.7 at 1"] + 10
    assert passes["base at 1"] <= 15


def test_08_what_is_made_up_and_what_it_costs(run):
    kinds = told(run("08_evaluation"), "Right, made up, or admitted")
    assert kinds["reference: countries never seen made up"] >= 70
    assert kinds["know: countries never seen made up"] <= 60
    assert (
        kinds["know: countries in the corpus right"]
        < (kinds["reference: countries in the corpus right"])
    )


def test_08_says_that_nobody_rated(run):
    page = run("08_evaluation").executed.read_text(encoding="utf-8")
    assert "Nobody rated: 0 of" in page
