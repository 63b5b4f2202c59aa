"""`sftlab train` as a newcomer meets it, and the README's commands of the day after."""

import io
import json
import re
import shlex
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROWS = [{"prompt": f"What is {n} of {n * 7919:x}?", "completion": "Paris"} for n in range(40)]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def my(tmp_path, monkeypatch, toy_base):
    """The current folder, with my.jsonl and the options of a quick training."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "my.jsonl", ROWS)
    options = f"--profile {toy_base} --rate 1e-2 --epochs 6 --set per_device_train_batch_size=8"
    return ["train", "my.jsonl", "--out", "runs/mine", *shlex.split(options)]


def test_it_ends_with_the_next_command_which_works(monkeypatch, call, my):
    code, out, err = call(*my, "--method", "lora", "--rate", "2e-2")
    assert code == 0, err
    assert "30 rows to learn from, 10 held out" in out
    assert "ok  memory" in out
    assert re.search(r"held-out rows the loss went from \d", out)
    assert err.count("fine-tuning") >= 1
    assert "24/24" in err
    *_, last = out.splitlines()
    assert last.split(maxsplit=1) == ["next", "sftlab chat runs/mine"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("What is 3 of 9?\n"))
    code, out, _ = call(*shlex.split(last)[2:])
    assert (code, bool(out.strip())) == (0, True)
    assert call(*my, "--method", "lora", "--rate", "2e-2")[:2] == (
        0,
        "runs/mine is finished, and nothing was done\nnext      sftlab chat runs/mine\n",
    )
    code, out, err = call(*my)
    assert (code, out) == (2, "")
    assert re.fullmatch(r"sftlab: runs/mine holds another run \(other .*\n", err)


def test_bad_rows_stop_it_and_are_put_apart_on_demand(call, my, tmp_path):
    write(tmp_path / "my.jsonl", [*ROWS, {"prompt": " ", "completion": "x"}])
    code, out, _ = call(*my)
    assert code == 1
    assert "line 41" in out
    assert "write a text, or drop" in out
    assert "--skip-bad to go on with the 40 good rows" in out
    assert not (tmp_path / "runs").exists()
    code, out, _ = call(*my, "--skip-bad")
    assert code == 0
    assert "40 used, 1 bad" in out
    rejected = (tmp_path / "runs" / "mine" / "data" / "rejected.jsonl").read_text()
    assert json.loads(rejected)["line"] == 41


def test_a_machine_too_small_stops_it_before_anything_is_loaded(monkeypatch, call, my, tmp_path):
    from sftlab.planner import preflighting
    from sftlab.train import own_run

    monkeypatch.setattr(preflighting, "free_memory", lambda: 1e6)
    monkeypatch.setattr(own_run, "untrained", None)
    code, out, _ = call(*my)
    assert code == 1
    assert "NO  memory" in out
    assert "-> memory: " in out
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["none.jsonl"], "there is no such file"),
        (["--profile", "tinny"], "tinny"),
        (["--method", "lore"], "Input should be 'full', 'lora'"),
        (["--set", "lr"], "write name=value"),
        (["--template", "nosuch"], "there is no chat template"),
        (["--out", "my.jsonl"], "can't be a folder to write to"),
        (["--out", "."], "not empty"),
        (["--group", "city"], "'city'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(call, my, change, said):
    if change == ["none.jsonl"]:
        my[1] = change.pop()
    code, out, err = call(*my, *change)
    assert (code, out) == (2, "")
    assert said in err
    mistake = err.splitlines()[-1]
    assert mistake.startswith("sftlab: ")
    assert err.removeprefix("checking my.jsonl\n") == mistake + "\n"


@pytest.mark.parametrize(("step", "said"), [(7, "goes on from step 5"), (3, "starts again")])
def test_an_interrupt_says_how_to_go_on(monkeypatch, call, my, step, said):
    from sftlab.train.trainer import SupervisedTrainer

    with monkeypatch.context() as patch:
        real = SupervisedTrainer.training_step

        def stop(self, *args, **kwargs):
            if self.state.global_step == step:
                raise KeyboardInterrupt
            return real(self, *args, **kwargs)

        patch.setattr(SupervisedTrainer, "training_step", stop)
        code, _, err = call(*my)
    assert code == 130
    assert said in err
    again = shlex.split(err.splitlines()[-1])
    assert again[1:] == list(map(str, my))
    for file in Path("runs/mine/checkpoints").glob("checkpoint-*/optimizer.pt"):
        file.write_bytes(file.read_bytes()[:-1])
    code, _, err = call(*again[1:])
    assert code == 0
    told = "checkpoint-5 is damaged (optimizer.pt); starting again: there is no other"
    assert err.splitlines().count(told) == (step > 5)
    assert "Warning" not in err


def test_a_run_is_merged_and_gone_on_from(monkeypatch, call, my):
    how = ["--method", "lora", "--rate", "1e-2", "--epochs", "30"]
    assert call(*my, *how)[0] == 0
    code, out, err = call("merge", "runs/mine", "--out", "merged")
    assert code == 0, err
    made = {}
    for line in re.findall("^    (.*)", out, flags=re.M):  # three lines in plain transformers
        exec(line, made)
    assert made["model"].num_parameters() > 100_000
    assert made["tokenizer"].chat_template
    monkeypatch.setattr(sys, "stdin", io.StringIO("What is 3 of 9?\n"))
    assert call(*shlex.split(out.splitlines()[-1])[2:])[0] == 0
    code, out, err = call("merge", "runs/mine", "--out", "merged")
    assert (code, out) == (2, "")
    assert err == "sftlab: merged is a file, or not empty; give --out a new folder\n"
    assert "--out` wrote" in call("merge", "merged/none", "--out", "x")[2]
    for base in ("merged", "runs/mine"):
        out = f"runs/from-{base[:3]}"
        code, out, err = call(*my, *how, "--profile", base, "--out", out)
        assert code == 0, err
        assert re.search(r"Exact matches: from [1-9]", out), out


def test_the_readmes_commands_of_the_day_after_run_as_they_stand(monkeypatch, call, tmp_path):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = re.search(r"^## Your own data\n(.*?)(?=^## )", text, flags=re.M | re.S)[1]
    block = re.search(r"^```bash\n(.*?)^```", section, flags=re.M | re.S)[1]
    commands = [shlex.split(line, comments=True) for line in block.splitlines()]
    used = [command[1] for command in commands if command]
    assert used == "validate train chat merge ship serve checklist train".split()
    commands = [one for one in commands if one[1:2] != ["serve"]]  # it ends with Ctrl-C: test_serve
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "my.jsonl", ROWS)
    monkeypatch.setattr(sys, "stdin", io.StringIO("What is 3 of 9?\n"))
    for command in filter(None, commands):
        assert command[0] == "sftlab"
        code, out, err = call(*command[1:])
        assert code == 0, err
        assert out.strip()


def test_an_interrupt_or_a_full_disk_in_the_report_leaves_the_trained_model(
    monkeypatch, call, my, tmp_path
):
    def ends(error):
        def fail(*given):
            raise error

        with monkeypatch.context() as patch:
            patch.setattr("sftlab.show.report.write_atomically", fail)
            code, _, err = call(*my)
        return code, err.splitlines()

    code, (*_, what, again) = ends(KeyboardInterrupt())
    assert code == 130
    assert what.startswith("interrupted; the same command measures the model, which is trained")
    weights = (tmp_path / "runs" / "mine" / "model.safetensors").read_bytes()
    monkeypatch.setattr("sftlab.train.own_run.finetune", None)  # nothing is trained again
    code, (*_, said) = ends(OSError(28, "No space left on device"))
    assert code == 1
    assert said.startswith("sftlab: runs/mine can't be written to ([Errno 28] No space left")
    assert call(*shlex.split(again)[1:])[0] == 0
    assert (tmp_path / "runs" / "mine" / "model.safetensors").read_bytes() == weights
    assert (tmp_path / "runs" / "mine" / "report.html").is_file()


@pytest.mark.parametrize("spoilt", [b"", b'{"settings": 3}'])
def test_a_damaged_own_data_json_is_one_line(call, my, tmp_path, spoilt):
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "own_data.json").write_bytes(spoilt)
    code, out, err = call(*my)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert "own_data.json is damaged" in err


@pytest.mark.parametrize("out", ["my.jsonl/x", "x" * 300, "/dev/null/x", "/proc/nosuch/x"])
def test_a_folder_that_cannot_be_is_refused_before_anything_is_loaded(monkeypatch, call, my, out):
    monkeypatch.setattr("sftlab.profiles.find_profile", None)
    code, said, err = call(*my, "--out", out)
    assert (code, said, "--out" in err, len(err.splitlines())) == (2, "", True, 1)
