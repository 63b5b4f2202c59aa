"""The checklist of a run: boxes come from files, and what no file shows stays open."""

import json

from sftlab.show import run_checklist


def states(page):
    return {box.item: box.state for box in page.boxes}


def test_boxes_come_from_files(saved, tmp_path):
    before = run_checklist(saved)
    found = states(before)
    assert found["settings and versions are recorded"] == found["weights changed"] == "yes"
    assert found["contract of prompt and tokens"] == "yes"
    assert found["the gate opened"] == found["deduplication"] == found["safety"] == "not measured"
    assert "sftlab ship" in before.markdown
    (tmp_path / "gate.json").write_text(json.dumps({"passed": False, "checks": []}))
    assert states(run_checklist(saved, release=tmp_path))["the gate opened"] == "no"


def test_rows_that_a_training_kept_are_measured(saved, tmp_path):
    row = {"messages": [{"role": "user", "content": "Who is a@b.org?"}]}
    row["messages"].append({"role": "assistant", "content": "Ann."})
    (tmp_path / "run.json").write_bytes((saved / "run.json").read_bytes())
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.jsonl").write_text(f"{json.dumps(row)}\n" * 2)
    found = states(run_checklist(tmp_path))
    assert found["deduplication"] == found["privacy"] == "no"
    assert found["consistency"] == "yes"


def test_evidence_is_escaped(saved, tmp_path):
    record = json.dumps({"system_prompt": {"text": "<script>", "different": 1}})
    (tmp_path / "contract.json").write_text(record)
    assert "<script>" not in run_checklist(saved, release=tmp_path).html
