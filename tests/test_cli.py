"""The command line, as a newcomer meets it."""

import subprocess
import sys

import pytest

from sftlab import cli

COMMANDS = ("run", "lab", "corpus", "seen", "chat", "preflight")


def call(monkeypatch, capsys, *arguments):
    """Exit code, stdout and stderr of `sftlab ARGUMENTS`."""
    monkeypatch.setattr(sys, "argv", ["sftlab", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code, *capsys.readouterr()


def test_module_prints_help_without_loading_torch():
    code = "import sys; sys.argv = ['sftlab', '--help']\ntry:\n    import sftlab.__main__ as m\n"
    code += "    m.main()\nexcept SystemExit:\n    assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(command in done.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_has_an_example(monkeypatch, capsys, command):
    code, out, _ = call(monkeypatch, capsys, command, "--help")
    assert code == 0
    assert "For example:" in out
    assert f"\n    sftlab {command}" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run"], "--all"),
        (["run", "00", "--all"], "not both"),
        (["run", "77"], "no"),
        (["corpus", "--kind", "poems"], "poems"),
        (["preflight", "tiney"], "tiney"),
        (["chat", "no-such-model"], "no-such-model"),
        (["seen", ""], "empty"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(monkeypatch, capsys, arguments, said):
    code, out, err = call(monkeypatch, capsys, *arguments)
    assert code == 2
    assert out == ""
    assert err.startswith("sftlab: ")
    assert said in err
    assert len(err.splitlines()) == 1


def test_corpus_prints_documents_and_counts(monkeypatch, capsys):
    code, out, _ = call(monkeypatch, capsys, "corpus", "--count", "3")
    assert code == 0
    assert out.count("--- document ") == 3
    code, out, _ = call(monkeypatch, capsys, "corpus", "--count", "20", "--stats")
    assert code == 0
    assert out.split()[:2] == ["documents", "20"]


@pytest.mark.parametrize(
    ("times", "said"), [(0, "never seen"), (1, "seen 1 time"), (1234, "seen 1,234 times")]
)
def test_seen_counts(monkeypatch, capsys, times, said):
    import sftlab.world.corpus

    monkeypatch.setattr(sftlab.world.corpus, "seen", lambda text: times)
    assert call(monkeypatch, capsys, "seen", "x") == (0, said + "\n", "")


def test_preflight_exit_code_follows_the_table(monkeypatch, capsys):
    import sftlab.preflight as module

    real = module.preflight

    def lacking(profile, *, method=None):
        row = module.Row(what="disk", needed="2 GB", found="1 GB", ok=False, remedy="Make room.")
        found = real("tiny")
        return module.Preflight(profile=found.profile, method=found.method, rows=(row,))

    monkeypatch.setattr(module, "preflight", lacking)
    code, out, _ = call(monkeypatch, capsys, "preflight", "tiny")
    assert code == 1
    assert "Make room." in out


def test_copied_lessons_never_overwrite_the_learners(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "figures").mkdir(parents=True)
    (source / "00.ipynb").write_text("new")
    (source / "figures" / "a.txt").write_text("a")
    assert cli.copy_lessons(source, target) == []
    (target / "00.ipynb").write_text("mine")
    assert cli.copy_lessons(source, target) == ["00.ipynb", "a.txt"]
    assert (target / "00.ipynb").read_text() == "mine"
