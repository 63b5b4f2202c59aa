"""The contract of a saved run: what it refuses, that it says what differs, and that it lets honest
saves pass."""

import json
import shutil

import pytest
from safetensors.torch import load_file, save_file

from sftlab import country_examples, finetune, load_run
from sftlab.chat import CONTRACT, FAMILIES, contract_changes, find_system_prompt
from sftlab.integrity import RECORD, hash_files, sealed
from sftlab.train import RunError

ASSISTANT = "message['content'] + '<|im_end|>'"


def replaced(old, new):
    """A change of the chat template, which must be one."""

    def change(folder):
        file = folder / "chat_template.jinja"
        text = file.read_text(encoding="utf-8")
        assert old in text
        file.write_text(text.replace(old, new), encoding="utf-8")

    return change


def edited(name, edit):
    """A change of a JSON file."""

    def change(folder):
        record = json.loads((folder / name).read_text(encoding="utf-8"))
        edit(record)
        (folder / name).write_text(json.dumps(record, ensure_ascii=False), encoding="utf-8")

    return change


def template(text):
    return lambda folder: (folder / "chat_template.jinja").write_text(text, encoding="utf-8")


def swap_names(record):
    one, other = (next(t for t in record["added_tokens"] if t["id"] == id) for id in (2, 3))
    one["content"], other["content"] = other["content"], one["content"]


def swap_tokens(record):
    vocabulary = record["model"]["vocab"]
    vocabulary["Ġand"], vocabulary["Ġthe"] = vocabulary["Ġthe"], vocabulary["Ġand"]


def scale(folder):
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.mlp.down_proj.weight"] *= 1.05
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


OTHERS = ("llama-3", "gemma", "phi-3", "alpaca", "vicuna", "mistral", "article")
HEADER = "'<|im_start|>' + message['role'] + '\\n'"
INJECTED = "{{- '<|im_start|>system\\nBe kind.<|im_end|>\\n' }}"
CHANGES = {  # twenty silent ones, with a word of what the contract says of each
    **{name: (template(FAMILIES[name].text), "test prompts differ") for name in OTHERS},
    "no newline": (replaced(HEADER, HEADER[:-7]), "rendered as"),
    "lower case": (replaced("message['content']", "message['content'] | lower"), "rendered as"),
    "space": (replaced("+ '\\n' }}", "+ '\\n ' }}"), "rendered as"),
    "roles": (replaced("message['role'] +", "message['role'] | title +"), "rendered as"),
    "system": (
        lambda f: template(INJECTED + (f / "chat_template.jinja").read_text())(f),
        "Be kind",
    ),
    "no prompt": (replaced("if add_generation_prompt", "if false"), "with generation prompt"),
    "trimmed": (replaced("message['content']", "message['content'] | trim"), "outer spaces"),
    "stop": (edited("generation_config.json", lambda r: r.update(eos_token_id=0)), "stop ids"),
    "eos": (
        edited("tokenizer_config.json", lambda r: r.update(eos_token="<|endoftext|>")),
        "special ids eos_token 3 -> 0",
    ),
    "names": (edited("tokenizer.json", swap_names), "files tokenizer.json"),
    "tokens": (edited("tokenizer.json", swap_tokens), "vocabulary"),
    "weights": (scale, "files model.safetensors"),
    "settings": (edited(RECORD, lambda r: r["settings"].update(template="llama-3")), "llama-3"),
}


def sealed_again(folder):
    """What a person does who writes new hashes after a change."""
    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    record.pop("sha256")
    (folder / RECORD).write_bytes(sealed({**record, "files": hash_files(folder)}))


@pytest.fixture
def changed(saved, tmp_path, request):
    folder = tmp_path / "changed"
    shutil.copytree(saved, folder)
    change, word = CHANGES[request.param]
    change(folder)
    return folder, word


@pytest.mark.parametrize("changed", CHANGES, indirect=True)
def test_change_is_refused(changed):
    folder, word = changed
    with pytest.raises(RunError, match=r"is not as it was saved: .+ differs.*--changed"):
        load_run(folder)
    sealed_again(folder)
    with pytest.raises(RunError, match="doesn't keep its contract") as refusal:
        load_run(folder)
    assert word in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("system", "settings"),
    [
        (None, {"method": "lora"}),
        ("Answer in one word.", {"method": "qlora"}),
        (None, {"method": "int8"}),
        ("Antworte kurz.\n", {"template": "llama-3", "method": "lora"}),
        (None, {"template": "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"}),
    ],
)
def test_honest_saves_open(toy_base, tmp_path, settings, system):
    rows = country_examples(8)
    if system:
        rows = [{"messages": [{"role": "system", "content": system}, *r["messages"]]} for r in rows]
    how = {"num_train_epochs": 1, "learning_rate": 1e-3, "bf16": False, "progress": False}
    made = finetune(str(toy_base), rows, **how, **settings)
    one = load_run(made.save(tmp_path / "one"))
    two = load_run(one.save(tmp_path / "two"))
    contract = json.loads((tmp_path / "one" / CONTRACT).read_text(encoding="utf-8"))
    assert contract["system_prompt"] == {"text": system, "different": 1}
    assert contract_changes(contract, two.contract()) == ""
    merged = load_run(two.merge().save(tmp_path / "merged"))
    assert contract_changes(contract, merged.contract()) == ""


def test_a_run_without_a_contract_opens(saved, tmp_path):
    folder = tmp_path / "old"
    shutil.copytree(saved, folder)
    (folder / CONTRACT).unlink()
    sealed_again(folder)
    load_run(folder)


def test_a_damaged_contract_is_refused(saved, tmp_path):
    folder = tmp_path / "damaged"
    shutil.copytree(saved, folder)
    (folder / CONTRACT).write_text("[1, 2]")
    sealed_again(folder)
    with pytest.raises(RunError, match=r"contract.json can't be read"):
        load_run(folder)


def test_what_a_library_changes_is_found(run):
    recorded = run.contract()
    found = json.loads(json.dumps(recorded))
    found["prompts"]["not English, with generation prompt"]["ids"][3] += 1
    assert "1 of 12 test prompts differ: 'not English" in contract_changes(recorded, found)
    found = {**recorded, "stop_ids": []}
    assert contract_changes(recorded, found) == "stop ids [3, 0] -> []"
    assert contract_changes(recorded, recorded) == ""


def test_system_prompt_of_a_training():
    def row(system):
        first = [{"role": "system", "content": system}] if system else []
        return {"messages": [*first, {"role": "user", "content": "Hi"}]}

    assert find_system_prompt([row("A"), row("A")]) == {"text": "A", "different": 1}
    assert find_system_prompt([row(None)]) == {"text": None, "different": 1}
    assert find_system_prompt([row("A"), row(None), row("B")]) == {"text": None, "different": 3}
