"""A folder of somebody else: no code of it runs, nothing is asked, and what has changed is told."""

import io
import json
import pickle
import re
import shutil
import sys
from pathlib import Path

import pytest
from toy_run import train

import sftlab.cli.main as command_line
from sftlab.cli.chat import open_model
from sftlab.integrity import hash_files, sealed
from sftlab.models import load, load_tokenizer
from sftlab.planner import find_architecture
from sftlab.profiles import find_profile
from sftlab.train import RunError, load_run

KINDS = ("base", "full", "lora", "merged", "second", "prefix")
CODE = "from pathlib import Path\nPath({!r}).touch()\n"


@pytest.fixture(scope="module")
def folders(toy_base, tmp_path_factory):
    """A folder of each kind; never changed by a test."""
    made = tmp_path_factory.mktemp("folders")
    shutil.copytree(toy_base, made / "base")
    full, lora = (train(made / "base", method=method) for method in ("full", "lora"))
    full.meter()
    full.save(made / "full")
    lora.save(made / "lora")
    lora.merge().save(made / "merged")
    train(made / "lora", method="lora").save(made / "second")
    train(made / "base", method="prefix").save(made / "prefix")
    rows = [{"prompt": f"What is {n}?", "completion": "Paris"} for n in range(8)]
    (made / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return made


def rewritten(file, **entries):
    stated = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps(stated | entries))


def sealed_again(folder):
    """What somebody who changes a folder on purpose does."""
    if (folder / "run.json").is_file():
        record = json.loads((folder / "run.json").read_text())
        record.pop("sha256")
        (folder / "run.json").write_bytes(sealed({**record, "files": hash_files(folder)}))


def said_by(*arguments):
    """The exit code and the last words of a command line."""
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["sftlab", *map(str, arguments)])
        patch.setattr(sys, "stderr", out)
        patch.setattr(sys, "stdout", out)
        with pytest.raises(SystemExit) as ended:
            command_line.main()
    return ended.value.code or 0, out.getvalue()


def plant(folder, trace, how):
    """Leave code in a folder, in every place that could name it."""
    for name in ("evil.py", "custom_generate/generate.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(CODE.format(str(trace)))
    (folder / "training_args.bin").write_bytes(pickle.dumps(Trace(trace)))
    (folder / "adapter_model.bin").write_bytes(pickle.dumps(Trace(trace)))
    autos = {f"Auto{kind}": "evil.Evil" for kind in ("Config", "ModelForCausalLM", "Tokenizer")}
    autos["AutoTokenizer"] = ["evil.Evil", "evil.Evil"]
    rewritten(folder / "tokenizer_config.json", auto_map=autos)
    rewritten(folder / "generation_config.json", custom_generate="evil")
    if "config" in how or (folder / "config.json").is_file():
        rewritten(folder / "config.json", auto_map=autos)
    if how in ("unheard-of config", "tokenizer_class"):
        rewritten(folder / "config.json", model_type="unheard-of")
    if how == "hub config":
        hub = {name: f"owner/repo--{ref}" for name, ref in autos.items() if isinstance(ref, str)}
        rewritten(folder / "config.json", auto_map=hub)
    if how == "tokenizer_class":
        rewritten(folder / "tokenizer_config.json", tokenizer_class="AutoConfig")
    if how == "kernel config":
        rewritten(folder / "config.json", attn_implementation="owner/kernel")
    if how == "adapters":
        # PEFT opens the tokenizer that it names, without `trust_remote_code`.
        entries = {"prompt_tuning_init": "TEXT", "prompt_tuning_init_text": "Hi"}
        entries |= {"peft_type": "PROMPT_TUNING", "inference_mode": False}
        entries |= {"num_virtual_tokens": 2, "tokenizer_name_or_path": str(folder)}
        rewritten(folder / "adapter_config.json", **entries)


def refused(door):
    """The one line with which a door stays shut; empty when it opens."""
    try:
        door()
    except ValueError as error:
        said = str(error)
    else:
        return ""
    assert len(said.splitlines()) == 1, said
    return said


class Trace:
    """A pickle that touches a file when it is read."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


class Stdin(io.StringIO):
    """An answer that must not be read."""

    asked = False

    def readline(self, *given):
        Stdin.asked = True
        return super().readline(*given)


HOWS = ("config", "unheard-of config", "hub config", "tokenizer_class", "kernel config", "adapters")


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("kind", KINDS)
def test_no_code_of_a_folder_runs_and_nothing_is_asked(folders, tmp_path, monkeypatch, kind, how):
    folder, trace, rows = tmp_path / kind, tmp_path / "trace", folders / "rows.jsonl"
    shutil.copytree(folders / kind, folder)
    plant(folder, trace, how)
    sealed_again(folder)
    monkeypatch.setattr(sys, "stdin", Stdin("y\n" * 9))
    monkeypatch.syspath_prepend(folder)  # as for whoever starts Python in it
    profile = lambda: find_profile(folder)  # noqa: E731
    doors = [lambda: load(profile()), lambda: load_tokenizer(profile()), profile]
    doors += [lambda: load_run(folder), lambda: load_run(folder, merge=True)]
    doors += [lambda: load_run(folder, verify=False), lambda: find_architecture(folder)]
    doors.append(lambda: open_model(str(folder)))  # which greets; what is typed is read after that
    opened = [door for door in doors if not refused(door)]
    commands = [["merge", folder, "--out", tmp_path / "plain"], ["plan", "--model", folder]]
    commands += [["doctor", "--tokenizer", folder], ["preflight", folder]]
    commands += [["mask", "--tokenizer", folder, "--messages", rows]]
    if how == "config" and kind in ("base", "lora"):
        commands += [["train", rows, "--out", tmp_path / "out", "--profile", folder]]
    for one in commands:
        code, _ = said_by(*one)
        assert code in (0, 1, 2), one
    assert not trace.exists()
    assert not Stdin.asked
    if how == "adapters":
        assert not opened or kind == "base", "somebody's adapters are not put on a model"


def test_quantisers_and_pickled_shards_are_refused(folders, tmp_path):
    for n, entries in enumerate(
        [{"quantization_config": {"quant_method": "metal"}}, {"transformers_weights": "a.bin"}]
    ):
        folder = shutil.copytree(folders / "base", tmp_path / str(n))
        rewritten(folder / "config.json", **entries)
        with pytest.raises(ValueError, match=r"config\.json names"):
            load(folder)
    folder = shutil.copytree(folders / "base", tmp_path / "sharded")
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../b.bin"}}')
    with pytest.raises(ValueError, match=r"index\.json.*no safetensors of its folder"):
        load(folder)


def damages(folder):
    """Each file of a run, and how it is damaged: (name, how, what is done to it)."""
    for file in sorted(one for one in folder.rglob("*") if one.name != "README.md"):
        content = file.read_bytes()
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        yield file.name, "differs", lambda f, new=flipped: f.write_bytes(new)
        yield file.name, "differs", lambda f, new=content[:middle]: f.write_bytes(new)
        if file.name != "run.json":  # without it the folder is no run
            yield file.name, "is missing", Path.unlink
    for name in ("evil.py", "vocab.txt", "pytorch_model.bin", "additional_chat_templates/a.jinja"):
        yield name, "was added", lambda f: f.parent.mkdir(exist_ok=True) or f.write_text("{}")


@pytest.mark.parametrize("kind", ["full", "lora", "merged", "second"])
def test_every_file_that_differs_is_named_and_own_changes_are_opened(folders, tmp_path, kind):
    for n, (name, what, damage) in enumerate(damages(folders / kind)):
        folder = shutil.copytree(folders / kind, tmp_path / str(n))
        damage(folder / name)
        for door in load_run, load:
            assert re.search(
                rf"{name} {what}.*verify=False", refused(lambda d=door, at=folder: d(at))
            )
        assert "verify=False" not in refused(lambda at=folder: load_run(at, verify=False)), name
        shutil.rmtree(folder)


def test_what_the_lab_and_users_write_later_is_no_change(folders, tmp_path):
    folder = shutil.copytree(folders / "lora", tmp_path / "run")
    for name in ("README.md", "report.html", "own_data.json", ".lock", "notes.md", "data/a.json"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("mine")
    load_run(folder)


def test_a_run_without_hashes_and_nan_are_refused(folders, tmp_path):
    folder = shutil.copytree(folders / "full", tmp_path / "run")
    record = json.loads((folder / "run.json").read_text())
    record.pop("sha256"), record.pop("files")
    (folder / "run.json").write_text(json.dumps(record))
    with pytest.raises(RunError, match=r"run\.json holds no hashes.*--changed \(verify=False"):
        load_run(folder)
    run = load_run(folder, verify=False)
    run.history[0]["loss"] = float("nan")
    with pytest.raises(RunError, match="lower learning_rate"):
        run.save(tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_changed_is_the_way_in_of_each_command(folders, tmp_path, kind):
    folder, rows = shutil.copytree(folders / kind, tmp_path / "run"), folders / "rows.jsonl"
    with (folder / "chat_template.jinja").open("a") as stream:
        stream.write("{# mine #}")
    for name, *rest in [
        ["merge", folder, "--out", tmp_path / "plain"],
        ["doctor", "--tokenizer", folder],
        ["mask", "--tokenizer", folder, "--messages", rows],
        ["train", rows, "--out", tmp_path / "out", "--profile", folder],
    ]:
        code, said = said_by(name, *rest)
        assert (code, "chat_template.jinja differs" in said) == (2, True), said
        assert said_by(name, *rest, "--changed")[0] in (0, 1), name
    load_run(tmp_path / "plain")
    load_run(tmp_path / "out", verify=False).merge()
