"""Some hundred cases of each fuzzer; `benchmarks/fuzz.py` runs ten thousand.

A fuzzer is a module beside this file with `check(seed, folder)`: it makes the case of a seed, runs
the product on it in an empty folder, asserts what must hold, and says in a word what came of it.
"""

import importlib
from collections import Counter

import pytest

CASES = {"files": 400, "templates": 150, "command_lines": 300, "candidates": 150}


@pytest.mark.parametrize("kind", CASES)
def test_every_case_ends_as_it_should(kind, tmp_path):
    check, outcomes = importlib.import_module(kind).check, Counter()
    for seed in range(CASES[kind]):
        (folder := tmp_path / str(seed)).mkdir()
        outcomes[check(seed, folder)] += 1
    # A fuzzer whose cases all end alike has stopped to look.
    assert len(outcomes) > 2, outcomes
    assert outcomes.most_common(1)[0][1] < 0.9 * CASES[kind], outcomes
