"""Two processes, started by torchrun, train as one with twice the batch, and write everything once.

`two_ranks.py` is what they run, in one launch; here one process does the same.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from toy_run import train
from two_ranks import PATIENT, ROWS, TWICE, by_hand, seen

from sftlab.train import CheckpointError, finetune, last_step, load_run

TORCHRUN = "-m torch.distributed.run --standalone --nproc_per_node 2".split()


@pytest.fixture(scope="module")
def two(toy_base, tmp_path_factory):
    """The folder that they wrote to, what they printed, and what each of them found."""
    folder = tmp_path_factory.mktemp("two")
    rows = [
        {"prompt": f"What is {n * 7919:x}?", "completion": "Rome " * (n % 3 + 1)} for n in range(40)
    ]
    (folder / "my.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    script = Path(__file__).with_name("two_ranks.py")
    done = subprocess.run(
        [sys.executable, *TORCHRUN, str(script), str(toy_base), str(folder)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return folder, done, [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize(
    ("name", "how"), [("plain", TWICE), ("resumed", TWICE), ("patient", PATIENT)]
)
def test_two_processes_train_as_one_with_twice_the_batch(toy_base, two, name, how):
    one, (first, second) = seen(train(toy_base, ROWS, **how)), (rank[name] for rank in two[2])
    assert first["losses"] == second["losses"] == pytest.approx(one["losses"], abs=1e-4)
    assert torch.equal(first["weights"], second["weights"])
    torch.testing.assert_close(first["weights"], one["weights"], rtol=0, atol=1e-4)
    assert first["tokens"] == second["tokens"] == one["tokens"]


def test_a_run_is_saved_once_and_checkpoints_are_whole(toy_base, two):
    folder, _, (first, _) = two
    assert torch.equal(seen(load_run(folder / "saved"))["weights"], first["plain"]["weights"])
    names = {one.name for one in (folder / "checkpoints").iterdir()}
    assert names == {"training.json", "checkpoint-4", "checkpoint-6"}
    assert last_step(folder / "checkpoints") == 6
    four = {"per_device_train_batch_size": 4, "output_dir": folder / "checkpoints"}
    with pytest.raises(
        CheckpointError, match="other processes"
    ):  # its steps would be half as large
        train(toy_base, ROWS, **four, **TWICE)


def test_sftlab_train_reports_once(toy_base, two):
    folder, done, _ = two
    assert done.stdout.count("next      sftlab chat") == 1
    assert done.stdout.count("12 steps") >= 1
    for line in ("checking", "training in 2 processes, 4 rows", "writing the report"):
        assert done.stderr.count(line) == 1
    assert (folder / "cli" / "report.html").is_file()
    assert not (folder / "cli" / "checkpoints").exists()
    run, data = load_run(folder / "cli"), folder / "cli" / "data"
    rows, held_out = (
        [json.loads(line) for line in (data / f"{name}.jsonl").read_text().splitlines()]
        for name in ("train", "held_out")
    )
    eight = run.settings.changed(per_device_train_batch_size=8)
    one = finetune(toy_base, rows, settings=eight, eval_dataset=held_out, progress=False)
    assert seen(run)["losses"] == pytest.approx(seen(one)["losses"], abs=1e-4)


def test_weights_that_fsdp_divides_give_the_losses_of_whole_ones(toy_base, two):
    one, ranks = by_hand(toy_base), [rank["sharded"] for rank in two[2]]
    for rank in ranks:
        assert rank["losses"] == pytest.approx(one["losses"], abs=1e-4)
        assert rank["held"] < 0.51 * one["held"]
    assert sum(rank["held"] for rank in ranks) == one["held"]
