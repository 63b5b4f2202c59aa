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
