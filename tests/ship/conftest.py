"""A run that was trained long enough to be sure of its answers, saved once for all tests here."""

import pytest

from sftlab import country_examples, finetune, load_run


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """A folder with a full fine-tune of tiny on 200 questions about countries."""
    rows = country_examples(200, seed=100)
    run = finetune("tiny", rows, seed=100, template="chatml", method="full", progress=False)
    return run.save(tmp_path_factory.mktemp("ship") / "run")


@pytest.fixture(scope="session")
def run(saved):
    return load_run(saved)
