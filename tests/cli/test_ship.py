"""`sftlab ship` and `sftlab checklist`: what they print, write and exit with."""

import json

import pytest

from sftlab.ship import BOUNDS, Bounds


@pytest.fixture
def asked(tmp_path):
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
    (tmp_path / "asked.jsonl").write_text(json.dumps({"messages": turns}))
    return tmp_path / "asked.jsonl"


def test_a_release_is_written_listed_and_can_be_opened(call, mine, asked, tmp_path):
    out = tmp_path / "a release"
    code, said, _ = call("ship", mine, "--out", out, "--to", "merged", "--questions", asked)
    assert code == 0
    assert f"sftlab serve '{out}'" in said
    assert {"gate.json", "contract.json", "README.md"} <= {file.name for file in out.iterdir()}
    code, said, _ = call("checklist", mine, "--release", out)
    assert code == 0
    assert "the gate opened                     yes" in said
    assert (mine / "checklist.html").is_file()
    assert "is there already" in call("checklist", mine, "--out", asked)[2]


def test_a_refused_release_exits_with_1_and_leaves_nothing(
    call, mine, asked, tmp_path, monkeypatch
):
    monkeypatch.setitem(BOUNDS, "bf16", Bounds(0, 0, 1))
    how = ("--out", tmp_path / "out", "--to", "merged", "--type", "bf16", "--questions", asked)
    code, said, _ = call("ship", mine, *how)
    assert (code, "difference FAILED" in said, "nothing was written" in said) == (1, True, True)
    assert [*tmp_path.iterdir()] == [asked]


@pytest.mark.parametrize(
    "wrong",
    [["--to", "onnx"], ["--to", "nf4", "--type", "f32"], ["--to", "merged", "--questions", "no"]],
)
def test_a_mistake_exits_with_2(call, mine, tmp_path, wrong):
    code, out, err = call("ship", mine, "--out", tmp_path / "out", *wrong)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert not [*tmp_path.iterdir()]
    assert call("checklist", tmp_path)[0] == 2
