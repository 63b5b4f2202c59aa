"""What a lesson must be for its reader: short, alone in each section, in the field's words, with
nothing typed that a run decides, the glossary and the recipes in sight. All of it by reading.

What is wrong is named by lesson and cell, counted from 0 as JupyterLab's file does.
"""

import ast
import builtins
import json
import re
import statistics
import symtable
import textwrap
import tomllib
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import pytest

from sftlab.exercises import exercises

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
if not NOTEBOOKS.is_dir():
    pytest.skip("the lessons are in a clone", allow_module_level=True)

WRITTEN = [f"{n:02}" for n in range(15)]
HEADING = re.compile(r"^(#{1,6}) +(.+?) *#*$", flags=re.M)
FENCE = re.compile(r"^```[^\n]*\n.*?^```", flags=re.M | re.S)


@dataclass(frozen=True)
class Cell:
    """A cell of a lesson, with what stands above it."""

    number: int
    code: bool
    source: str
    tags: frozenset
    section: str  # the `## ` heading above it; empty up to the first one after the parameters
    part: str  # the heading of any level above it
    deep: bool  # under a heading tagged `deep`

    @cached_property
    def prose(self):
        """The words of a markdown cell, without code blocks."""
        return "" if self.code else FENCE.sub("", self.source)

    @cached_property
    def python(self):
        """The code that Python sees: magics are IPython's."""
        return re.sub(r"^(\s*)[%!].*$", r"\1pass", self.source, flags=re.M) if self.code else ""

    @cached_property
    def tree(self):
        return ast.parse(self.python)

    @cached_property
    def texts(self):
        """What a code cell may show: its literal texts, of f-strings the typed parts."""
        nodes = ast.walk(self.tree)
        return [n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)]


class Lesson:
    """A notebook, read."""

    def __init__(self, path):
        self.path, self.name, self.cells = path, path.stem, []
        section, part, begun = "", "", False
        deep = 7  # level of the heading that folds what follows; 7: none does
        for number, cell in enumerate(json.loads(path.read_text("utf-8"))["cells"]):
            code, source = cell["cell_type"] == "code", "".join(cell["source"])
            tags = frozenset(cell["metadata"].get("tags", []))
            for marks, words in [] if code else HEADING.findall(FENCE.sub("", source)):
                if len(marks) <= deep:
                    deep = len(marks) if "deep" in tags else 7
                part = words
                section = words if len(marks) == 2 and begun else section
            begun |= "parameters" in tags
            self.cells.append(Cell(number, code, source, tags, section, part, deep < 7))

    @property
    def core(self):
        """What everybody reads; exercises, predictions and the quiz have minutes of their own."""
        return [cell for cell in self.cells if not cell.deep and "exercise" not in cell.tags]

    @property
    def divided(self):
        """How many texts of the core path are in two cells because an exercise stands between."""
        pairs = pairwise([cell for cell in self.cells if "exercise" not in cell.tags])
        return sum(
            not (a.code or b.code or a.deep or b.deep) and b.number > a.number + 1 for a, b in pairs
        )

    @property
    def text(self):
        return "\n".join(cell.source for cell in self.cells)

    @property
    def sections(self):
        return list(dict.fromkeys(cell.section for cell in self.cells if cell.section))

    def at(self, cell, said):
        return f"{self.name}[{cell.number}]: {said}"


LESSONS = [Lesson(path) for path in sorted(NOTEBOOKS.glob("[0-9A]*.ipynb"))]
"""The course and its appendices."""
COURSE = [one for one in LESSONS if one.name[:2] in WRITTEN]
every_lesson = pytest.mark.parametrize("lesson", LESSONS, ids=lambda one: one.name)
course_lesson = pytest.mark.parametrize("lesson", COURSE, ids=lambda one: one.name)


PRACTICE = {"exercise", "plot_calibration", "predict", "quiz"}
"""Names that each lesson imports besides its own, always for the same."""


def imported(cells):
    """Names that the cells import from the lab, but for those of the exercises."""
    return {
        alias.name
        for cell in cells
        for node in ast.walk(cell.tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "sftlab"
        for alias in node.names
    } - PRACTICE


def calls(tree, counts=None):
    """How many figures a tree draws; `counts` holds those of a call of a lesson's function."""
    found = 0
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            found += name.startswith("plot_") or (counts or {}).get(name, 0)
    return found


def figures(cells):
    """How many figures the cells draw, a call in a function of the lesson counted where it is."""
    counts, total = {}, 0
    for cell in cells:
        for statement in cell.tree.body:
            if isinstance(statement, ast.FunctionDef):
                counts[statement.name] = calls(statement, counts)
            else:
                total += calls(statement, counts)
    return total


class TestSize:
    """One thread a lesson: the core path can be studied in an hour."""

    @course_lesson
    def test_core_path_is_short(self, lesson):
        core = lesson.core
        sizes = {
            "cells": (len(core) - lesson.divided, 60),
            "code cells": (sum(cell.code for cell in core), 45),
            "figures": (figures(core), 8),
            "imported names": (len(imported(core)), 20),
            "imported names, deeper parts too": (len(imported(lesson.cells)), 30),
        }
        over = {what: f"{n}, at most {most}" for what, (n, most) in sizes.items() if n > most}
        assert not over, lesson.name

    @course_lesson
    def test_study_time_is_told_and_at_most_an_hour(self, lesson):
        found = re.search(r"\*\*Study time:\*\* about (\d+) minutes", lesson.cells[0].source)
        assert re.match(r"# \S.*\n+[^#\s]", lesson.cells[0].source), "a title and a promise"
        assert found, f"{lesson.name}[0] needs **Study time:** about NN minutes"
        assert int(found[1]) <= 60

    @course_lesson
    def test_the_minutes_of_the_exercises_are_their_sum(self, lesson):
        found = re.search(r"and about (\d+) more for the exercises", lesson.cells[0].source)
        assert found, f"{lesson.name}[0] needs: and about NN more for the exercises"
        assert int(found[1]) == sum(one.minutes for one in exercises(lesson.name[:2]))

    @course_lesson
    def test_first_cell_has_objectives_that_can_be_checked(self, lesson):
        objectives = re.findall(r"^\d\. ", lesson.cells[0].source, flags=re.M)
        assert 3 <= len(objectives) <= 5, f"{lesson.name}[0]"
        assert "**Needs:**" in lesson.cells[0].source

    def test_the_course_has_few_names(self):
        names = set().union(*(imported(one.cells) for one in COURSE))
        assert len(names) <= 120

    @every_lesson
    def test_cells_are_short(self, lesson):
        lines = [
            sum(bool(line.strip()) for line in cell.source.splitlines())
            for cell in lesson.cells
            if cell.code and "exercise" not in cell.tags
        ]
        assert statistics.median(lines) <= 6, lesson.name
        longest = max(len(cell.source.splitlines()) for cell in lesson.cells if cell.code)
        assert longest <= 30, lesson.name

    @every_lesson
    def test_a_part_has_one_claim_card(self, lesson):
        parts = {}
        for cell in lesson.cells:
            if cell.code and (n := cell.python.count("claim_card(")):
                parts[cell.section, cell.part] = parts.get((cell.section, cell.part), 0) + n
        assert not {part: n for part, n in parts.items() if n > 1}, lesson.name

    @course_lesson
    def test_ends_as_every_lesson(self, lesson):
        ends = ["What carries over, what does not", "Summary", "Recall"]
        if lesson.name >= "04":
            ends.insert(0, "The same with TRL alone")
        assert lesson.sections[-len(ends) :] == ends, lesson.name


class TestCode:
    """Code that a reader can take in at a glance."""

    @every_lesson
    def test_nothing_is_said_to_tools_and_no_lambda_has_a_name(self, lesson):
        wrong = []
        for cell in lesson.cells:
            if cell.code:
                wrong += [lesson.at(cell, mark) for mark in ("noqa", "fmt: skip", "fmt: off")
                          if re.search(rf"#\s*{mark}", cell.source)]  # fmt: skip
                wrong += [
                    lesson.at(cell, f"a lambda called {ast.unparse(node.targets[0])}: write a def")
                    for node in ast.walk(cell.tree)
                    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda)
                ]
        assert not wrong

    @every_lesson
    def test_no_dict_or_list_is_shown(self, lesson):
        """`print` is for texts, and the last line of a cell for a table, a sentence, a figure."""
        lists, wrong = set(), []
        for cell in lesson.cells:
            if not cell.code or not cell.tree.body:
                continue
            for node in ast.walk(cell.tree):
                if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                    change = lists.add if is_raw(node.value, lists) else lists.discard
                    change(node.targets[0].id)
            last = cell.tree.body[-1]
            shown = [last.value] if isinstance(last, ast.Expr) else []
            for node in ast.walk(cell.tree):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print":
                    lines = any(
                        k.arg == "sep" and "\\n" in ast.unparse(k.value) for k in node.keywords
                    )
                    shown += [v for v in node.args if not (isinstance(v, ast.Starred) and lines)]
            wrong += [
                lesson.at(cell, f"shows {ast.unparse(value)[:60]}")
                for value in shown
                if is_raw(value, lists)
            ]
        assert not wrong, "show a table, a sentence or a figure"


MAKES_RAW = "dict list set tuple sorted len sum vars splitlines split tolist to_dict value_counts"
RAW = (ast.Dict, ast.List, ast.Set, ast.Tuple, ast.DictComp, ast.ListComp, ast.SetComp, ast.Starred)


def is_raw(value, lists):
    """Whether Python shows the value as a dict, a list or a bare number; `lists` are such names."""
    if isinstance(value, ast.Call):
        return getattr(value.func, "attr", getattr(value.func, "id", "")) in MAKES_RAW.split()
    if isinstance(value, ast.Subscript):
        return isinstance(value.slice, ast.Slice) and is_raw(value.value, lists)
    return isinstance(value, RAW) or (isinstance(value, ast.Name) and value.id in lists)


FIELD = """
accuracy, confidence interval, zero-shot, few-shot, overfitting, hyperparameter, forward pass,
backward pass, gradient accumulation, gradient norm, optimizer state, GPU, memorize, embedding,
delimiter, ground truth, inference, attention, causal mask, equivalence test, paired difference,
multiple comparisons, power, baseline, held-out, catastrophic forgetting"""
"""Words that a learner can search for; each stands in the prose of some lesson."""
HOUSE = {
    r"rightly": "correctly; correct answer; accuracy",
    r"ways? (?:back|forward)": "backward pass, forward pass",
    r"for want of": "because there are too few",
    r"so that no (?:processor|core) waits": "nothing: each section runs alone",
    r"by heart": "memorize",
    r"bare": "zero-shot",
    r"no[ -]shot": "zero-shot",
    r"told": "say what is meant: given, shown, reported",
    r"behind (?:a|an|the|its|such a)(?: [\w-]+)? (?:prompt|passage|question)s?": "after, with",
    r"as happens": "as in practice",
    r"(?:comes?|came) alike": "is equally frequent",
    r"(?:the|a|its|this) lean": "the bias",
    r"shall": "will, should",
    r"held against": "compared with",
    r"noise, for all we know": "not resolved by this test",
    r"(?:optimi|memori|tokeni|quanti|normali|regulari|generali|initiali)s(?:e|es|ed|er|ers|ing"
    r"|ation)": "the field's spelling, with z",
}
"""What only this house said, and the field's word in its place."""
MEMORY_OF_A_CARD = re.compile(
    r"\bcards?\b[^.]*\b(?:Gi?B|VRAM|consumer|H100|A100|RTX)\b"
    r"|\b(?:Gi?B|VRAM|consumer|H100|A100|RTX|graphics)\b[^.]*\bcards?\b"
)
OTHER_CARDS = re.compile(r"\b(?:data|claim|model|credit)[ -]cards?\b")


class TestWords:
    """The field's words, so that a learner can search for what was learned here."""

    def test_words_of_the_field_occur(self):
        prose = " ".join(cell.prose for one in COURSE for cell in one.cells)
        words = [word.strip() for word in FIELD.split(",")]
        missing = [word for word in words if not mentions(prose, " ".join(word.split()))]
        assert not missing

    @every_lesson
    def test_words_of_the_house_do_not(self, lesson):
        wrong = []
        for cell in lesson.cells:
            for text in [cell.prose] if not cell.code else cell.texts:
                shown = re.sub(r"`[^`]*`|\]\([^)]*\)", "", text)
                for pattern, better in HOUSE.items():
                    for found in re.finditer(rf"\b(?:{pattern})\b", shown, flags=re.I):
                        wrong.append(lesson.at(cell, f"{found[0]!r}; better: {better}"))
                if found := MEMORY_OF_A_CARD.search(OTHER_CARDS.sub("", shown)):
                    wrong.append(lesson.at(cell, f"{found[0][:60]!r}; better: GPU"))
        assert not wrong


RESULT = re.compile(
    r"\d+(?:\.\d+)?\s?(?:%|per ?cent\b|(?:percentage )?points?\b|nats?\b)"
    r"|\b(?:one|two|three|four|five|\d+) of (?:the )?(?:three|four|five|ten|\d+)"
    r" (?:seeds|runs|models)\b",
    flags=re.I,
)
"""A share, a difference of shares, a loss, a count of seeds: what a run decides."""
CHOSEN = re.compile(
    r"\b100\s?%|\d+\s?% (?:of )?replay\b"
    r"|\b(?:within|margin of|at least|at most) ±?\s?\d+ points?\b"
)
"""All of something, an arm's name and a margin are no results; nor is the level of an interval."""
LEVEL = re.compile(r"\b(?:80|90|95|99)\s?%")


def readings(text):
    """Typed results in a markdown text: not in quotes of papers, in tables, code or links."""
    text = FENCE.sub("", text)
    text = re.sub(r"^ {0,3}(?:>|\|).*$", "", text, flags=re.M)
    text = CHOSEN.sub("", re.sub(r"`[^`]*`|\]\([^)]*\)", "", text))
    found = []
    for sentence in re.split(r"(?<=[.!?])\s", text):
        levels = re.search(r"\b(?:intervals?|confidence)\b", sentence)
        found += RESULT.finditer(LEVEL.sub("", sentence) if levels else sentence)
    return [one[0] for one in found]


class TestReadings:
    """A sentence about a result is rendered from the run; a setting or a quoted figure that must
    be typed stands in a table, in a quote, or in a cell tagged `fixed`."""

    @every_lesson
    def test_no_result_is_typed(self, lesson):
        wrong = []
        for cell in lesson.cells:
            if "fixed" in cell.tags:
                continue
            if cell.code:
                found = [one for text in shown_sentences(cell) for one in readings(text)]
            else:
                found = readings(cell.source)
                found += re.findall(r"With `(?:tiny|small)[\w-]*`", cell.source)
            wrong += [lesson.at(cell, one) for one in found]
        assert not wrong, "render them from the frame; what no run decides: tag the cell `fixed`"


def shown_sentences(cell):
    """Typed parts of the texts that a code cell renders with `sentence` or `Markdown`."""
    for node in ast.walk(cell.tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("sentence", "Markdown"):
            yield from typed(node)


def typed(node):
    """Literal texts in a tree, without the formats of values, such as `.0%`."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    for name, field in ast.iter_fields(node):
        for child in field if isinstance(field, list) else [field]:
            if isinstance(child, ast.AST) and name != "format_spec":
                yield from typed(child)


def globals_used(table):
    """Names that the code of a symbol table, or of a function in it, reads from the notebook."""
    top = table.get_type() == "module"
    for symbol in table.get_symbols():
        if symbol.is_referenced() and (top or symbol.is_global()):
            yield symbol.get_name()
    for child in table.get_children():
        yield from globals_used(child)


def names(statement):
    """(defined, read) names of a statement at the top level of a cell."""
    table = symtable.symtable(ast.unparse(statement), "cell", "exec")
    symbols = table.get_symbols()
    defined = {s.get_name() for s in symbols if s.is_assigned() or s.is_imported()}
    defined |= {child.get_name() for child in table.get_children() if child.get_type() == "class"}
    defined |= {s.get_name() for s in symbols if s.is_namespace()}
    return defined, set(globals_used(table))


ALWAYS = set(dir(builtins)) | {"display", "get_ipython", "__file__"}


class TestSections:
    """Each section can be run, skipped or presented alone after the set-up cells, which stand
    before the first `## ` heading that follows the parameters."""

    @every_lesson
    def test_each_section_runs_alone(self, lesson):
        setup = {
            name
            for cell in lesson.cells
            if cell.code and not cell.section
            for statement in cell.tree.body
            for name in names(statement)[0]
        }
        wrong = []
        for section in lesson.sections:
            cells = [cell for cell in lesson.cells if cell.section == section and cell.code]
            whole = setup | {n for c in cells for one in c.tree.body for n in names(one)[0]}
            known = setup | ALWAYS
            for cell in cells:
                for statement in cell.tree.body:
                    defined, read = names(statement)
                    # What a function reads is there when it is called.
                    later = isinstance(statement, ast.FunctionDef | ast.ClassDef)
                    there = known | (whole if later else set())
                    # What a loop, a `with` or an `except` names is read inside it.
                    assigned = isinstance(statement, ast.Assign | ast.AugAssign | ast.AnnAssign)
                    there |= set() if assigned else defined
                    if missing := read - there - ALWAYS:
                        wrong.append(lesson.at(cell, f"{section}: {', '.join(sorted(missing))}"))
                    known |= defined
        assert not wrong, "define it in the section, or in the set-up"


RECIPES = sorted((ROOT / "recipes").glob("[0-9]*.py"))


class TestRecipes:
    """What a learner takes home stands in the lesson, line for line, and runs without the lab."""

    @pytest.mark.parametrize("lesson", [o for o in COURSE if o.name >= "04"], ids=lambda o: o.name)
    def test_the_lesson_shows_its_recipe(self, lesson):
        recipes = [file for file in RECIPES if file.name[:2] == lesson.name[:2]]
        assert recipes, f"no recipes/{lesson.name[:2]}_*.py"
        cells = [cell for cell in lesson.cells if cell.section == "The same with TRL alone"]
        assert cells, f"{lesson.name} has no section 'The same with TRL alone'"
        named = "\n".join(cell.source for cell in cells)
        assert any(file.name in named for file in recipes), "name the file in that section"
        blocks = [
            block
            for cell in cells
            for block in re.findall(r"^```python\n(.*?)^```", cell.source, flags=re.M | re.S)
        ]
        assert blocks or any(cell.code for cell in cells)
        texts = [file.read_text("utf-8") for file in recipes]
        foreign = [
            block.splitlines()[0] for block in blocks if not any(part(block, t) for t in texts)
        ]
        assert not foreign, f"{lesson.name}: these blocks are no part of {recipes[0].name}"

    @pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.name)
    def test_a_recipe_is_plain_and_tested(self, file):
        text = file.read_text("utf-8")
        lines = [
            one for one in text.splitlines() if one.strip() and not one.strip().startswith("#")
        ]
        assert 15 <= len(lines) <= 60
        assert not re.search(r"\bsftlab\b|trust_remote_code", text)
        wanted = ("--model", "--data", "--out", "--max_steps")
        assert not [option for option in wanted if f'"{option}"' not in text]
        assert list((ROOT / "tests" / "recipes").glob(f"test_{file.name[:2]}*.py"))


def part(block, text):
    """Whether the block's lines stand in the text in one piece, at any indentation."""
    block = [line.rstrip() for line in textwrap.dedent(block).strip("\n").splitlines()]
    lines = text.splitlines()
    return any(
        textwrap.dedent("\n".join(lines[n : n + len(block)])).splitlines() == block
        for n in range(len(lines) - len(block) + 1)
    )


GLOSSARY = NOTEBOOKS / "glossary.md"
TERMS = re.findall(
    r"^### (.+)\n\n(?:<a id=\"(.+?)\"></a>)?(.+) \[(\w\d)\]\((\w+)\.ipynb\)$",
    GLOSSARY.read_text("utf-8"),
    flags=re.M,
)
"""(term, explicit anchor or "", sentence, number, lesson)."""


def anchor(term):
    return term.lower().replace(" ", "-")


def mentions(text, term):
    """Whether the text has the term, whatever its capitals, plural, breaks and hyphens."""
    words = r"[\s_-]+".join(re.escape(word) for word in re.split(r"(?<=\w)[ -]", term))
    return re.search(rf"(?<!\w){words}(?:e?s|d)?(?!\w)", text, flags=re.I)


class TestGlossary:
    """`### term`, a sentence, and the lesson that teaches it; its anchor is the lower-case term
    with hyphens, written out where JupyterLab would make another one of the heading."""

    def test_terms_are_unique_sorted_and_well_formed(self):
        headings = re.findall(r"^### (.+)$", GLOSSARY.read_text("utf-8"), flags=re.M)
        assert headings == [term for term, *_ in TERMS], "heading, blank line, sentence with link"
        assert headings == sorted(headings, key=str.casefold)
        assert len({anchor(term) for term in headings}) == len(headings) >= 90
        for term, explicit, said, *_ in TERMS:
            plain = re.fullmatch(r"[a-z0-9 -]+", term)
            assert explicit == ("" if plain else anchor(term)), term
            assert said[0].isupper(), term
            assert said.endswith("."), term
            assert ". " not in said.replace("e.g. ", ""), f"{term}: one sentence"

    @pytest.mark.parametrize("entry", TERMS, ids=lambda entry: entry[0])
    def test_the_lesson_uses_the_term(self, entry):
        term, _, _, number, name = entry
        (lesson,) = [one for one in LESSONS if one.name == name]
        assert number == name[:2]
        assert mentions(lesson.text, term), f"{name} never says {term!r}"

    @every_lesson
    def test_links_lead_to_terms_and_lessons(self, lesson):
        wrong, anchors = [], {anchor(term) for term, *_ in TERMS}
        for cell in lesson.cells:
            for target in re.findall(r"\]\(([^)\s]+)\)", "" if cell.code else cell.source):
                file, _, place = target.partition("#")
                if re.match(r"https?:", target) or not file:
                    continue
                if not (NOTEBOOKS / file).exists():
                    wrong.append(lesson.at(cell, f"{file} is not there"))
                elif file == GLOSSARY.name and place and place not in anchors:
                    wrong.append(lesson.at(cell, f"the glossary has no {place!r}"))
        assert not wrong


ARTICLES = {
    "P": "Supervised Fine-Tuning for Large Language Models: A Practical Guide",
    "U": "What is Supervised Fine-Tuning",
    "G": "Supervised Fine-Tuning (SFT) for LLMs",
    "L": "Supervised Fine Tuning: Enhancing Your LLM Accuracy",
    "V": "Supervised Fine-Tuning (SFT)",
}


@course_lesson
def test_the_articles_of_its_claims_are_named(lesson):
    """Each lesson whose claims come from an article gives that article's title, linked or not."""
    claims = tomllib.loads((ROOT / "data" / "claims.toml").read_text("utf-8"))
    recorded = set(re.findall(r"record\(\s*\"(\w+)\"", lesson.text))
    sources = {s for id in recorded for s in re.findall(r"\b[PUGLV]\b", claims[id]["source"])}
    missing = {s for s in sources if ARTICLES[s].casefold() not in lesson.text.casefold()}
    assert not missing, f"{lesson.name} names no article {missing}: {ARTICLES}"
