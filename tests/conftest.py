"""Fixtures that every test may use: a random base model, and a cache of its own."""

import gc
import os
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

# Several workers of pytest-xdist share the cores; must be set before torch is imported. A lesson's
# sweep has a process for each core that joblib counts: here its worker's share of them.
if "PYTEST_XDIST_WORKER" in os.environ:
    share = (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("LOKY_MAX_CPU_COUNT", str(max(share, 1)))
os.environ["SFTLAB_PROGRESS"] = os.devnull  # nothing of a test is kept with a developer's attempts

# When bitsandbytes is imported it asks for torch.compile, which imports the compiler: 2.5 s in each
# process of these tests. Nothing in the course compiles; on a CPU bitsandbytes has kernels in C++.
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")

import hypothesis
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from xdist.scheduler import LoadScopeScheduling

from sftlab.world import corpus_text as corpus
from sftlab.world import train_tokenizer

# No test fails because a machine is busy.
hypothesis.settings.register_profile("lab", deadline=None)
hypothesis.settings.load_profile("lab")

LESSONS = ("tests/browser/", "tests/notebooks/test_notebooks.py", "tests/site/")
LESSONS += ("tests/notebooks/test_real_model.py",)
"""Tests that run the lessons whole. Their names hold the lesson's number."""
LONG = re.compile(r"(in_lab|test_notebooks)\.py.*\[A[23]_|foreign_profile\.py.*\[(09|1[03]|A[78])_")
"""For CI's time, with `--long` alone: A2, A3 on `tiny`; 09, 10, 13, A7, A8 on FOREIGN."""
FOREIGN = "tests/notebooks/test_foreign_profile.py"
"""Runs lessons in one kernel."""
ZOO = "tests/exercises/test_zoo.py"
"""Trains what lesson A8 shows."""


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="run the longest tests too")


def pytest_collection_modifyitems(config, items):
    long = [] if config.getoption("--long") else [i for i in items if LONG.search(i.nodeid)]
    config.hook.pytest_deselected(items=long)
    items[:] = [item for item in items if item not in long]


class ByFile(LoadScopeScheduling):
    """The tests of a file stay in one worker: they share what the file prepares.

    So do those of a lesson, in the browser and in tests/notebooks and tests/site, where what the
    browser saved is read. The lessons are divided among the workers. With
    `--no-loadscope-reorder`, as `make test` has it, they come first, since tests/browser is
    collected first.
    """

    def _split_scope(self, nodeid):
        file, _, test = nodeid.partition("::")
        if file == ZOO:
            return "lesson A8"
        number = re.search(r"(?:^test_|\[)([A\d])(\d)_", test)
        if number and file == FOREIGN:
            return f"{file} {number[1]}"
        return f"lesson {number[1]}{number[2]}" if number and file.startswith(LESSONS) else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    return ByFile(config, log)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """Tests neither read nor fill the cache of whoever runs them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SFTLAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _libraries_stay():
    """In a worker of xdist: the garbage collector does not search what the libraries made when they
    were imported (as in `sweeps.worker`)."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        import_module("sftlab.train.finetuning")
        gc.freeze()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium without a window. A machine without it fails: a skip would hide the gap."""
    sys.path.insert(0, str(Path(__file__).with_name("browser")))
    from lab_server import CHROMIUM_FLAGS, find_chromium
    from playwright.sync_api import sync_playwright

    options = {"executable_path": find_chromium(), "args": CHROMIUM_FLAGS, "timeout": 240_000}
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(**options)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def from_browser(tmp_path_factory) -> Path:
    """A folder of lessons that the browser ran without a complaint, for tests/notebooks.

    <lesson>/<lesson>.ipynb as JupyterLab saved it, <lesson>/records/<claim>.json.
    """
    return tmp_path_factory.mktemp("from-browser")


@pytest.fixture(scope="session")
def toy_tokenizer():
    """The lab's byte-level BPE, trained on 500 documents."""
    stream = corpus.documents()
    return train_tokenizer([next(stream) for _ in range(500)])


@pytest.fixture(scope="session")
def toy_base(tmp_path_factory, toy_tokenizer) -> Path:
    """A folder with a random Llama of two layers and the toy tokenizer."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("toy-base")
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(toy_tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            bos_token_id=toy_tokenizer.bos_token_id,
            eos_token_id=toy_tokenizer.eos_token_id,
            pad_token_id=toy_tokenizer.pad_token_id,
        )
    ).save_pretrained(folder)
    toy_tokenizer.save_pretrained(folder)
    return folder
