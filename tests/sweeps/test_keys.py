"""What changes the key of a run, and what does not."""

import functools
import importlib
import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pandas as pd
import pytest
import torch

from sftlab.measure import code_drawn
from sftlab.models import find_profile
from sftlab.sweeps.keys import FingerprintError, base_hashes, fingerprint
from sftlab.world import countries

ROOT = Path(__file__).resolve().parents[2]


def define(source, **names):
    """The function `measure` of a notebook's cell."""
    space = {"__name__": "__main__", **names}
    exec(compile(textwrap.dedent(source), "<cell>", "exec"), space)
    return space["measure"]


BODY = "def measure(run, form=0):\n    return helper(len(WORDS)) + form"


def test_all_that_a_function_is_and_uses_counts_and_its_comments_do_not():
    def made(body=BODY, words=("a",), step=1, other=1):
        helper = define("def measure(n):\n    return n + STEP", STEP=step)
        measure = define(body, WORDS=list(words), helper=helper, other=other)
        return fingerprint(measure, what="the measure 'm'")

    spread = """
    # A remark.
    def measure(
        run,
        form=0,
    ):
        return helper(  # of all
            len(WORDS)) + form
    """
    assert made() == made() == made(spread) == made(other=2), "what is not used does not count"
    changed = [
        made(BODY.replace("+ form", "- form")),
        made(BODY.replace("form=0", "form=1")),
        made(words="ab"),
        made(step=2),
    ]
    assert len({made(), *changed}) == 5


def test_lambdas_on_one_line_closures_and_partials_differ():
    def closed(value):
        return lambda run: value

    def taking(run, way):
        return way(run)

    values = [1, 2, 2.5, "2", [1, 2], [2, 1], {"a": 1}, None, *countries()[:2]]
    values += [pd.DataFrame({"x": [1]}), pd.DataFrame({"x": [2]}), pd.DataFrame({"y": [1]})]
    functions = [
        *(lambda run: 1, lambda run: 2),
        *map(closed, values),
        *(functools.partial(taking, way=way) for way in (len, sum)),
        *map(code_drawn, (0.2, 0.7)),
    ]
    assert len({fingerprint(one, what="it") for one in functions}) == len(functions)
    orders = [closed({"a": 1, "b": 2}), closed({"b": 2, "a": 1})]
    assert len({fingerprint(one, what="it") for one in orders}) == 1


def test_every_process_gives_the_same_hash(tmp_path):
    (tmp_path / "script.py").write_text(
        "import functools, re\n"
        "import pandas as pd\n"
        "from sftlab.sweeps.keys import fingerprint\n"
        "from sftlab.world import countries\n"
        "WORDS, AMONG = frozenset(['a', 'b', 'c', 'd']), countries()\n"
        "FRAME = pd.DataFrame({'x': ['a', None], 'y': [1, 2.5]})\n"
        "class Judge:\n"
        "    known = {'p', 'q', 'r'}\n"
        "    def __call__(self, word): return word in {'x', 'y', 'z'} or word in WORDS\n"
        "judge = Judge()\n"
        "@functools.cache\n"
        "def helper(n): return helper(n - 1) if n else re.compile('a+')\n"
        "def measure(run, n=len(AMONG)): return judge(run) or [helper(x) for x in FRAME]\n"
        "print(fingerprint([measure, AMONG], what='it'))\n"
    )
    command = [sys.executable, "script.py"]
    found = {
        subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True,
                       env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed}).stdout
        for seed in "12"
    }  # fmt: skip
    assert len(found) == 1


def test_a_model_from_outside_and_a_generator_are_refused_with_the_remedy():
    layer = torch.nn.Linear(1, 1)
    held, stream = {"deep": [layer]}, (n for n in range(3))
    for measure in (lambda run: layer(1), lambda run: held["deep"], functools.partial(len, layer)):
        with pytest.raises(FingerprintError, match=r"the measure 'm' uses a model.*run\.model"):
            fingerprint(measure, what="the measure 'm'")
    with pytest.raises(FingerprintError, match=r"the measure 'm' uses .* make it inside the funct"):
        fingerprint(lambda run: next(stream), what="the measure 'm'")


def test_a_path_counts_by_the_content_of_its_file_and_an_own_module_by_its_file(
    tmp_path, monkeypatch
):
    file = tmp_path / "words.txt"
    module = tmp_path / "helpers_of_mine.py"
    module.write_text("def help(run): return 1")
    monkeypatch.syspath_prepend(tmp_path)
    helpers = importlib.import_module("helpers_of_mine")
    hashes = set()
    for text in ("one", "two"):
        file.write_text(text)
        hashes.add(fingerprint(lambda run: file.read_text(), what="it"))
        for function in (helpers.help, lambda run: helpers.help(run)):
            hashes.add(fingerprint(function, what="it"))
        module.write_text("def help(run): return 2")
    del sys.modules["helpers_of_mine"]
    assert len(hashes) == 6


def test_weights_configuration_and_tokenizer_make_the_base(toy_base, tmp_path):
    found = base_hashes(find_profile(toy_base))
    copy = tmp_path / "copy"
    shutil.copytree(toy_base, copy)
    assert base_hashes(find_profile(copy)) == found, "the path does not count"
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-3}))
    changed = base_hashes(find_profile(copy))
    assert changed["weights"] == found["weights"]
    assert changed["files"] != found["files"]
    weights = copy / "model.safetensors"
    raw = weights.read_bytes()
    weights.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    assert base_hashes(find_profile(copy))["weights"] != found["weights"]
