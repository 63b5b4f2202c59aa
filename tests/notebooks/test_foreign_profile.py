"""The lessons also run off the embedded profiles: here on a folder that behaves as Llama's do."""

import json
import os
import shutil

import nbformat
import pytest
from jupyter_client import AsyncKernelManager
from jupyter_core.utils import run_sync
from nbclient import NotebookClient
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from sftlab.course import find_lessons

LESSONS = {
    lesson.name: lesson
    for lesson in find_lessons()
    if lesson.defaults.get("profile") == "tiny"  # lesson 14 is about a model with a template
}


@pytest.fixture(scope="module")
def llama_like(toy_base, tmp_path_factory):
    """A random base whose tokenizer has no padding token and writes its bos before every text."""
    folder = tmp_path_factory.mktemp("models") / "llama-like"
    shutil.copytree(toy_base, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    bos = tokenizer.bos_token
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{bos} $A",
        pair=f"{bos} $A {bos} $B",
        special_tokens=[(bos, tokenizer.bos_token_id)],
    )
    tokenizer.save_pretrained(folder)
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / file).is_file():
            settings = json.loads((folder / file).read_text(encoding="utf-8"))
            settings.pop("pad_token", None)
            (folder / file).write_text(json.dumps(settings), encoding="utf-8")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["pad_token_id"] = None
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def execute(tmp_path_factory):
    """A function that runs a notebook, after all names are forgotten, in one kernel for all
    lessons: one of its own would import the libraries, and start a process for the lesson's sweeps
    that imports them again."""
    folder = str(tmp_path_factory.mktemp("kernel"))
    environment = os.environ | {"TMPDIR": folder, "SFTLAB_RECORDS": f"{folder}/records"}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    manager = AsyncKernelManager(kernel_name="python3")

    def run(notebook):
        notebook.cells.insert(0, nbformat.v4.new_code_cell("%reset -f"))
        client = NotebookClient(notebook, km=manager, timeout=None)
        client.execute(cwd=folder, env=environment)

    yield run
    run_sync(manager.shutdown_kernel)(now=True)


def test_the_folder_behaves_as_llamas(llama_like):
    tokenizer = AutoTokenizer.from_pretrained(llama_like)
    assert tokenizer.pad_token is None
    assert tokenizer("Paris")["input_ids"][0] == tokenizer.bos_token_id


@pytest.mark.parametrize("name", LESSONS)
def test_lesson_runs_to_its_end(name, llama_like, execute):
    seeds = 2 if name.startswith("09") else 1  # its pilot needs two
    given = {"profile": str(llama_like), "examples_count": 20, "seeds": seeds}
    notebook = nbformat.read(LESSONS[name].path, as_version=4)
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", []):
            for one in given.keys() & LESSONS[name].defaults:
                cell.source += f"\n{one} = {given[one]!r}"
    execute(notebook)
    for number, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            assert output.get("name") != "stderr", f"cell {number}: {output['text']}"
