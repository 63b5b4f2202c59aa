import sys

import pytest

from sftlab.cli import main as cli


@pytest.fixture
def call(monkeypatch, capsys):
    """Exit code, stdout and stderr of `sftlab ARGUMENTS`."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["sftlab", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code or 0, *capsys.readouterr()

    return run


@pytest.fixture(scope="session")
def mine(toy_base, tmp_path_factory):
    """The folder of a small run, called mine."""
    from sftlab.train import finetune

    turns = (("user", "Hi"), ("assistant", "Ho"))
    rows = [{"messages": [{"role": role, "content": text} for role, text in turns]}] * 8
    run = finetune(str(toy_base), rows, num_train_epochs=9, bf16=False, progress=False)
    return run.save(tmp_path_factory.mktemp("cli") / "mine")
