"""What tells one measure from another, and what does not."""

import functools
import importlib
import json
import linecache
import re
import sys
from collections import Counter, defaultdict, deque
from dataclasses import InitVar, dataclass, field
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy
import pandas as pd
import pytest
import torch

from sftlab.sweeps import Fingerprint, FingerprintError, SweepError, base_hash, code_hash, files_of
from sftlab.world import countries


def mark(value):
    return Fingerprint("the measure 'm'").text(value, name="m")


def define(source, *, name="measure", **names):
    """A function as a notebook's cell defines it."""
    cell = f"<cell {len(linecache.cache)}>"
    linecache.cache[cell] = (len(source), None, source.splitlines(True), cell)
    space = {"__name__": "__main__", **names}
    exec(compile(source, cell, "exec"), space)
    return space[name]


BODY = """
def measure(run, form=0):
    total = 0
    for item in WORDS:
        try:
            total += len(item) * 2 if form else helper(item)
        except ValueError:
            continue
    return {"total": total, "mean": [x / 2 for x in (total, total)]}
"""
OTHER_LINES = '''
# A remark.
def measure(
    run,
    form=0,
):
    """What it does."""

    total = 0  # of all

    for item in WORDS:

        try:
            # twice
            total += (
                len(item)
                * 2
                if form
                else helper(item)
            )
        except ValueError:
            continue
    return {
        "total": total,
        "mean": [
            x / 2
            for x in (total, total)
        ],
    }
'''
NAMES = {"WORDS": ["a", "b"], "helper": lambda word: word.upper()}


class Case(NamedTuple):
    name: str
    number: int


@dataclass
class Bag:
    words: list = field(default_factory=list)


@dataclass
class Table:
    limit: InitVar[int]

    def __post_init__(self, limit):
        self.numbers = list(range(limit))


class WithSlot:
    __slots__ = ("number",)


class Slotted(WithSlot):
    def __init__(self, number):
        self.number = number


class Rules(dict):
    def __init__(self, *given, limit):
        super().__init__(*given)
        self.limit = limit


def test_comments_docstrings_and_line_breaks_do_not_count():
    assert mark(define(BODY, **NAMES)) == mark(define(OTHER_LINES, **NAMES))


@pytest.mark.parametrize(
    ("old", "new"),
    [("* 2", "* 3"), ("form=0", "form=1"), ("len(item)", "hash(item)"), ("/ 2", "// 2"),
     ('"mean"', '"average"'), ("continue", "break"), ("ValueError", "TypeError"),
     ("if form", "if not form"), ("x / 2", "x / 2.0"), ("total = 0", "total = False"),
     ("for item", "for unused in (1,):\n        pass\n    for item")],
)  # fmt: skip
def test_a_change_of_the_body_counts(old, new):
    assert old in BODY
    assert mark(define(BODY, **NAMES)) != mark(define(BODY.replace(old, new), **NAMES))


def test_the_name_of_an_argument_in_a_call_counts():
    source = "def measure(run):\n    return run.answer([], {}=1)\n"
    first, second = (define(source.format(name)) for name in ("max_new_tokens", "batch_size"))
    assert mark(first) != mark(second)


def test_what_a_try_covers_counts():
    one = "def measure(run):\n    try:\n        a()\n        b()\n    except E:\n        pass\n"
    two = "def measure(run):\n    a()\n    try:\n        b()\n    except E:\n        pass\n"
    names = {"a": len, "b": len, "E": ValueError}
    assert mark(define(one, **names)) != mark(define(two, **names))


def test_a_global_that_is_used_counts_and_no_other():
    source = "def measure(run):\n    return LIMIT\n"
    assert mark(define(source, LIMIT=1)) != mark(define(source, LIMIT=2))
    assert mark(define(source, LIMIT=1)) != mark(define(source, LIMIT=1.0))
    assert mark(define(source, LIMIT=1, other=1)) == mark(define(source, LIMIT=1, other=2))


def test_an_attribute_is_no_global():
    source = "def measure(run):\n    return run.model\n"
    assert mark(define(source, model=torch.nn.Linear(1, 1))) == mark(define(source))


def test_functions_are_followed_at_any_depth():
    source = "def inner():\n    return {}\ndef outer():\n    return inner()\n"
    source += "def measure(run):\n    return [outer() for _ in range(2)]\n"
    assert mark(define(source.format(1))) != mark(define(source.format(2)))
    assert mark(define(source.format(1))) == mark(define(source.format(1)))


def test_functions_that_call_each_other_end():
    source = "def other(n):\n    return measure(n)\ndef measure(n):\n    return other(n) + {}\n"
    assert mark(define(source.format(1))) != mark(define(source.format(2)))


def test_lambdas_on_one_line_differ():
    pair = define("pair = (lambda run: 1, lambda run: 2)\n", name="pair")
    assert mark(pair[0]) != mark(pair[1])


def test_closures_defaults_and_partials_count():
    def made(n):
        return lambda run: n

    def plain(run, n=1, *, k=1):
        return n

    assert mark(made(1)) != mark(made(2))
    assert mark(made(2)) == mark(made(2))
    assert mark(functools.partial(plain, n=1)) != mark(functools.partial(plain, n=2))
    assert mark(functools.partial(plain, n=1)) == mark(functools.partial(plain, n=1))


def test_the_order_counts_but_in_sets():
    words = [f"w{n}" for n in range(50)]
    assert mark(set(words)) == mark({*sorted(words)})
    assert mark({"a": 1, "b": 2}) != mark({"b": 2, "a": 1})  # the first rule that fits may win
    assert mark([1, 2]) != mark([2, 1])


def test_the_order_of_a_set_of_own_classes_does_not_count():
    source = "class A:\n    n = B = 1\nclass B(A):\n    pass\nkinds = [A, B]\n"
    first, second = define(source, name="kinds")

    class Ordered(set):
        def __iter__(self):
            return iter(self.items)

    one, other = Ordered(), Ordered()
    one.items, other.items = [first, second], [second, first]
    told = [Fingerprint("it")._in_any_order(values, "kinds") for values in (one, other)]
    assert told[0] == told[1]


@pytest.mark.parametrize(
    ("one", "other"),
    [(1, True), (1, 1.0), ("1", 1), ([1], (1,)), (None, "None"), ({"a": [1]}, {"a": [2]}),
     (numpy.array([1]), numpy.array([2])), (numpy.array([1]), numpy.array([1.0])),
     (pd.DataFrame({"a": [1]}), pd.DataFrame({"a": [2]})),
     (pd.DataFrame({"a": [1]}), pd.DataFrame({"b": [1]})),
     (pd.Series([1]), pd.Series([2])), (torch.ones(2), torch.zeros(2)),
     (re.compile("a"), re.compile("a", re.I)), (Path("a"), Path("b")), (range(2), range(3)),
     (countries()[0], countries()[1]), (str.lower, str.upper), (len, max), (["a, b"], ["a", "b"]),
     (pd.Series([1, 2], index=["a", "b"]), pd.Series([1, 2], index=["b", "a"])),
     (pd.DataFrame({"x": [1]}, index=["a"]), pd.DataFrame({"x": [1]}, index=["b"])),
     (pd.DataFrame([[1, 2]], columns=["a", "a"]), pd.DataFrame([[1, 3]], columns=["a", "a"])),
     (pd.Index([1], name="a"), pd.Index([1], name="b")),
     (pd.Categorical(["a"]), pd.Categorical(["b"])),
     (pd.Timestamp("2026-01-01"), pd.Timestamp("2026-01-02")),
     (defaultdict(lambda: 0, a=1), defaultdict(lambda: 7, a=1)), ({"a": 1}, Counter(a=1)),
     (Case("a", 1), Case("a", 2)), (Bag(["a"]), Bag(["b"])), (Slotted(1), Slotted(2)),
     (Table(2), Table(3)), (Rules({"a": 1}, limit=1), Rules({"a": 1}, limit=2)),
     (deque([1]), deque([2])), (SimpleNamespace(a=1), SimpleNamespace(a=2)),
     (datetime(2026, 1, 1), datetime(2026, 1, 2)), (bytearray(b"1"), bytearray(b"2"))],
)  # fmt: skip
def test_values_that_differ_are_told_apart(one, other):
    assert mark(one) != mark(other)
    assert mark(one) == mark(one)


@pytest.mark.parametrize("name", ["__contains__", "__bool__", "__mul__", "__new__", "match"])
def test_every_method_of_an_own_class_counts(name):
    source = f"class Rules(dict):\n    def {name}(self, *a):\n        return {{}}\nrules = Rules\n"
    first, second, again = (
        mark(define(source.format(n), name="rules")) for n in (1, 2, 1)
    )  # fmt: skip
    assert first == again != second


def test_stars_and_attributes_of_a_function_count():
    source = "def helper({}words):\n    return words\ndef measure(run):\n    return helper()\n"
    assert mark(define(source.format("*"))) != mark(define(source.format("**")))
    one, other = define(source.format("*")), define(source.format("*"))
    one.limit, other.limit = 1, 2
    assert mark(one) != mark(other)


def test_a_file_counts_by_its_content_where_a_path_leads_to_it(tmp_path):
    source = "def measure(run):\n    return FILE.read_text()\n"
    file = tmp_path / "gold.txt"
    marks = [mark(define(source, FILE=file))]
    for text in ("1", "22", "1"):
        file.write_text(text)
        marks.append(mark(define(source, FILE=file)))
    assert len(set(marks)) == 3
    assert marks[1] == marks[3]


def test_the_version_of_a_library_counts_for_its_functions(tmp_path, monkeypatch):
    from sftlab.sweeps import fingerprint

    package = tmp_path / "site-packages" / "scores_of_others"
    package.mkdir(parents=True)
    monkeypatch.syspath_prepend(package.parent)
    marks = []
    for number in (1, 2):
        (package / "__init__.py").write_text(
            f"__version__ = 'v{number}'\ndef score(text):\n    return 1\n"
        )
        sys.modules.pop("scores_of_others", None)
        importlib.invalidate_caches()
        fingerprint._version.cache_clear()
        found = importlib.import_module("scores_of_others")
        outside = define("def measure(run):\n    return score(run)\n", score=found.score)
        within = (
            "def measure(run):\n    from scores_of_others import score\n    return score(run)\n"
        )
        marks.append((mark(outside), mark(define(within))))
    sys.modules.pop("scores_of_others")
    assert marks[0][0] != marks[1][0]
    assert marks[0][1] != marks[1][1]


def test_modules_within_an_own_package_are_noted(tmp_path, monkeypatch):
    package = tmp_path / "own_package"
    package.mkdir()
    for name in ("__init__", "words", "scoring", "unused"):
        (package / f"{name}.py").write_text("N = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    import own_package.scoring

    found = Fingerprint("it")
    source = "def measure(run):\n    from own_package import words\n"
    source += "    return words.N + own_package.scoring.N\n"
    found.text(define(source, own_package=own_package))
    files = set(files_of(found.modules))
    for name in [name for name in sys.modules if name.startswith("own_package")]:
        del sys.modules[name]
    assert files == {"own_package", "own_package.words", "own_package.scoring"}


def test_a_list_that_holds_itself_ends():
    endless = [1]
    endless.append(endless)
    assert "itself" in mark(endless)


@dataclass
class Scale:
    factor: int

    def apply(self, value):
        return value * self.factor


def test_own_objects_count_by_fields_and_by_the_code_of_their_class():
    def measure(run):
        return scale.apply(2)

    scale = Scale(1)
    first = mark(measure)
    scale = Scale(2)
    second = mark(measure)
    before, Scale.apply = Scale.apply, lambda self, value: value
    try:
        assert len({first, second, mark(measure)}) == 3
    finally:
        Scale.apply = before


def test_a_model_from_outside_is_an_error_that_names_it():
    source = "def measure(run):\n    return base_model(run)\n"
    with pytest.raises(FingerprintError, match="'m' uses base_model, a Linear, from outside"):
        mark(define(source, base_model=torch.nn.Linear(1, 1)))


def test_a_model_inside_a_function_of_the_lab_is_found():
    from sftlab.measure import behind_prompt

    ask = behind_prompt(torch.nn.Linear(1, 1), None, [])
    with pytest.raises(FingerprintError, match="uses model, a Linear"):
        mark(define("def measure(run):\n    return ask([])\n", ask=ask))


def test_modules_of_the_lab_are_noted_wherever_they_are_named():
    from sftlab.measure import probe_facts

    found = Fingerprint("it")
    source = "def measure(run):\n    from sftlab.world import grammar\n"
    source += "    return probe_facts(run)\n"
    found.text(define(source, probe_facts=probe_facts))
    assert {"sftlab.measure.probes", "sftlab.world.grammar"} <= found.modules


def test_the_code_of_a_run_is_what_it_imports():
    files = files_of(["sftlab.sweeps.experiment"])
    assert {"sftlab.train.finetuning", "sftlab.models", "sftlab.train.settings"} <= set(files)
    assert not {"sftlab.cli", "sftlab.measure.stats", "sftlab.sweeps.sweeping"} & set(files)
    assert "sftlab.world.facts" in files_of(["sftlab.measure.probes"])


def test_a_file_of_the_lab_counts_by_its_code_and_for_processes_by_its_time(tmp_path, monkeypatch):
    import shutil

    from sftlab.sweeps import sources

    package = Path(sources.__file__).parents[2]
    copy = tmp_path / "sftlab"
    shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(sources, "__file__", str(copy / "train" / "sweeps" / "sources.py"))
    engine = ["sftlab.sweeps.experiment"]
    code, loaded = [code_hash(engine)], [sources.stamp(engine)]
    for file, text in [("train/step.py", "# a remark"), ("cli/main.py", "X = 1"),
                       ("train/step.py", "X = 1")]:  # fmt: skip
        with (copy / file).open("a") as end:
            end.write(f"\n{text}\n")
        code.append(code_hash(engine))
        loaded.append(sources.stamp(engine))
    assert code[0] == code[1] == code[2] != code[3]
    assert len(set(loaded)) == 4


def test_what_one_process_has_parsed_the_next_need_not(tmp_path, monkeypatch):
    from sftlab.sweeps import sources

    parsed = []
    real = sources._parse
    monkeypatch.setattr(sources, "_parse", lambda *of: parsed.append(of[0]) or real(*of))
    notes = tmp_path / "notes" / "code.json"

    def hash_of_a_new_process(folder=tmp_path):
        monkeypatch.setenv("SFTLAB_CACHE", str(folder))
        sources._parsed.cache_clear()
        sources._noted_code.cache_clear()
        parsed.clear()
        return code_hash(["own_words", "sftlab.train.settings"])

    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "own_words.py"
    file.write_text("WORDS = 1\n")
    first = hash_of_a_new_process()
    assert len(parsed) > 1
    assert hash_of_a_new_process() == first
    assert parsed == []
    file.write_text("WORDS = 2\n")
    second = hash_of_a_new_process()
    assert second != first
    assert parsed == [b"WORDS = 2\n"]
    for damaged in ("{", "[]", notes.read_text().replace('"', "'"),
                    json.dumps(dict.fromkeys(json.loads(notes.read_text()), 1))):  # fmt: skip
        notes.write_text(damaged)
        assert hash_of_a_new_process() == second
        assert len(parsed) > 1
    assert hash_of_a_new_process(tmp_path / "another") == second
    assert len(parsed) > 1


def test_a_note_that_cannot_be_kept_leaves_the_earlier_ones_and_no_file(tmp_path, monkeypatch):
    from sftlab.sweeps import note, noted

    monkeypatch.setenv("SFTLAB_CACHE", str(tmp_path))
    note("files", {"one": 1})
    note("files", {"two": 2})
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(PermissionError("in use")))
        note("files", {"three": 3})
    assert noted("files") == {"one": 1, "two": 2}
    assert [file.name for file in (tmp_path / "notes").iterdir()] == ["files.json"]


@pytest.fixture
def helpers(tmp_path, monkeypatch):
    """A module beside the notebook, which imports another."""
    (tmp_path / "own_helpers.py").write_text("import own_words\n\ndef score():\n    return 1\n")
    (tmp_path / "own_words.py").write_text("WORDS = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("own_helpers"), tmp_path
    for name in ("own_helpers", "own_words"):
        sys.modules.pop(name, None)


def test_a_module_beside_the_notebook_counts_by_its_code(helpers):
    module, folder = helpers
    found = Fingerprint("it")
    source = "def measure(run):\n    return helpers.score()\n"
    found.text(define(source, helpers=module))
    assert found.modules == {"own_helpers"}
    before = code_hash(found.modules)
    (folder / "own_words.py").write_text("WORDS = 1  # a remark\n")
    assert code_hash(found.modules) == before
    (folder / "own_words.py").write_text("WORDS = 22\n")
    assert code_hash(found.modules) != before


def test_a_module_that_is_no_python_or_gone_is_an_error_with_its_file(helpers):
    _, folder = helpers
    words = folder / "own_words.py"
    words.write_text("WORDS = 1\nWORDS = = 2\n")
    with pytest.raises(SweepError, match=rf"{re.escape(str(words))}, line 2: invalid .* mend it"):
        code_hash(["own_helpers"])
    words.unlink()
    with pytest.raises(SweepError, match=r"own_words.py, .* module 'own_words', can't be read"):
        code_hash(["own_helpers"])


def test_a_package_that_can_not_be_imported_is_no_raw_error(tmp_path, monkeypatch):
    for name, text in [("own_broken", "WORDS = = 1\n"), ("own_failing", "WORDS = NONE\n")]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SweepError, match=r"__init__.py, line 1: invalid syntax"):
        code_hash(["own_broken", "own_broken.words"])
    code_hash(["own_failing", "own_failing.words"])  # the run itself will say so


def test_hidden_files_and_folders_beside_the_facts_do_not_count(tmp_path, monkeypatch):
    import shutil

    from sftlab.sweeps import sources

    def of_the_facts():
        return code_hash(["sftlab.world.facts"])

    before = of_the_facts()
    shutil.copytree(sources.DATA / "world", tmp_path / "world")
    monkeypatch.setattr(sources, "DATA", tmp_path)
    assert of_the_facts() == before
    (tmp_path / "world" / ".DS_Store").write_text("?")
    (tmp_path / "world" / ".ipynb_checkpoints").mkdir()
    (tmp_path / "world" / "notes").mkdir()
    assert of_the_facts() == before
    with (tmp_path / "world" / "countries.csv").open("a") as end:
        end.write("\n")
    assert of_the_facts() != before


def test_weights_configuration_and_tokenizer_make_the_base(toy_base, tmp_path):
    import shutil

    from sftlab.models import find_profile

    copy = tmp_path / "copy"
    shutil.copytree(toy_base, copy)
    first = base_hash(find_profile(toy_base))
    assert base_hash(find_profile(copy)) == first
    (copy / "README.md").write_text("A remark.")
    assert base_hash(find_profile(copy)) == first
    text = (copy / "tokenizer.json").read_text().replace('"Ġthe"', '"Ġteh"')
    (copy / "tokenizer.json").write_text(text)
    second = base_hash(find_profile(copy))
    raw = bytearray((copy / "model.safetensors").read_bytes())
    raw[-1] ^= 1
    (copy / "model.safetensors").write_bytes(raw)
    assert len({first, second, base_hash(find_profile(copy))}) == 3


def test_the_hash_of_large_weights_is_remembered_until_they_change(toy_base, tmp_path, monkeypatch):
    import shutil

    from sftlab.models import find_profile
    from sftlab.sweeps import bases

    copy = tmp_path / "copy"
    shutil.copytree(toy_base, copy)
    read = []
    real = bases.weights_hash
    monkeypatch.setattr(bases, "LARGE", 0)
    monkeypatch.setattr(bases, "weights_hash", lambda f: read.append(f) or real(f))
    monkeypatch.setenv("SFTLAB_CACHE", str(tmp_path / "cache"))
    first = base_hash(find_profile(copy))
    assert base_hash(find_profile(copy)) == first
    assert len(read) == 1
    raw = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    assert base_hash(find_profile(copy)) != first
    assert len(read) == 2
    (tmp_path / "cache" / "notes" / "weights.json").write_text("{")
    base_hash(find_profile(copy))
    assert len(read) == 3
