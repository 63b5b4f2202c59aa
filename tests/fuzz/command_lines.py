"""Command lines that nobody would type, over every command and option of `sftlab`.

Each ends in an exit code of the lab, in words, and never in a traceback. What takes long or opens a
server is given at least one wrong value: `run`, `lab`, `base`, `train`.
"""

import contextlib
import io
import json
import os
import random
import re
import sys
from pathlib import Path
from unittest import mock

import typer

os.environ["HF_HUB_OFFLINE"] = "1"  # read when the hub's client is imported

from sftlab.cli import main as cli

COMMANDS = typer.main.get_command(cli.app).commands
ODD = """- -1 0 1 3 nan inf -inf 1e999 1e30 0.5 tiny small nosuch owner/name ../.. ~ ~nobody/x
    * [a- null true -- -- --help --nosuch -p {} [] name=value lr=1 = seed=-1 r=1e3 max_length=0
    target_modules=[] target_modules=['('] seeds='x' template='{{' bf16=1 method='lora'
    learning_rate=1e999 num_train_epochs=1e12 seed=2**64 {[]:1} lora qlora full chatml own qwen3
    {{1/0}} all everything 00 99 capital story /dev/null /dev/stdin /proc/self/mem /nosuch/x
    rtx-3090 bfloat16 llama-3.1-8b prompt""".split()
ODD += ["", " ", "9" * 30, "9" * 4400, "x" * 300, "y" * 5000, "[" * 3000, "\U0001f600" * 3]
ODD += ["{% for", "a\nb", "\x1b[31m", "é\u202e", os.fsdecode(b"\xff\xfe"), os.fsdecode(b"name\x80")]
ROWS = [{"prompt": f"What is {n}?", "completion": "Paris", "n": n} for n in range(6)]
FILES = {
    "good.jsonl": "".join(json.dumps(row) + "\n" for row in ROWS),
    "good.csv": "prompt,completion\na,b\nc,d\n",
    "chat.json": json.dumps([{"messages": [{"role": "user", "content": "a"}]}]),
    "bad.jsonl": '{"prompt": \n[1, 2]\n{"prompt": 3, "completion": null}\n',
    "empty.jsonl": "",
    "bytes.csv": "\udcff\udcfe,\udc80\n",
    "tools.json": '[{"type": "function", "function": {"name": "f", "parameters": {}}}]',
    "half.json": '[{"prompt": "a',
    "own.jinja": "{% for m in messages %}{{ m['content'] }}{% endfor %}",
    "wrong.jinja": "{% for m in messages %}{{ m.x.y.z }}",
    "model/config.json": '{"model_type": "llama", "hidden_size": -1}',
    "list/config.json": "[]",
    "run/run.json": '{"settings": {}}',
    "adapters/adapter_config.json": '{"peft_type": "LORA", "base_model_name_or_path": 3}',
    "folder/x": "x",
}
# What is right for a parameter, so that a line gets as far as its one odd value.
RIGHT = {
    name: values.split()
    for names, values in {
        "file files messages data": "good.jsonl good.csv bad.jsonl chat.json",
        "profile tokenizer model": "tiny small model run adapters",
        "good bad": "new.jsonl good.jsonl folder new/x.jsonl",
        "max_length row limit count batch seq rank": "1 3 64",
        "rate epochs memory tokens supervised": "0.5 1 1e-3",
        "max_new_tokens seed": "1 2",
        "template": "chatml qwen3 llama3 own.jinja own",
        "turns": "all last everything",
        "start": "auto content generation",
        "method": "lora full qlora prefix",
        "set_": "max_length=64 per_device_train_batch_size=2 seed=3",
        "out": "new runs/new folder good.csv",
        "run": "run adapters model",
        "tools": "tools.json",
        "gpu": "a100-80gb",
        "meta": "n",
    }.items()
    for name in names.split()
}
# Commands that would do real work, each with what ends them before it: the last option counts.
WRONG = {
    "run": ["--out", "good.csv/x"],
    "train": ["--group", "nosuch"],
    "base": ["nosuch"],
    "lab": ["--nosuch"],
    "seen": ["--nosuch"],
}


def case(seed: int) -> list[str]:
    """The arguments of a seed."""
    draw = random.Random(seed)
    names = [*COMMANDS, *sorted(COMMANDS.keys() - {"lab", "base", "seen"}) * 3, "", "nosuch"]
    name = draw.choice(names)
    if name not in COMMANDS:
        return [name, *draw.sample(ODD, draw.randrange(3))]
    pool, line = [*ODD, *FILES, *{file.partition("/")[0] for file in FILES}], []
    for one in COMMANDS[name].params:
        # What must be given is, as a rule; else every line would end at the first that lacks.
        if draw.random() < (0.95 if one.required else 0.3):
            right = RIGHT.get(one.name, [*FILES])
            value = draw.choice(right if draw.random() < 0.7 else pool)
            if getattr(one, "count", False) or getattr(one, "is_flag", False):
                line.append([one.opts[0]])
            elif one.param_type_name == "argument":
                line.append([value])
            else:
                line.append(draw.choice([[one.opts[0], value], [f"{one.opts[0]}={value}"]]))
    draw.shuffle(line)
    words = [word for group in line for word in group]
    if draw.random() < 0.1:
        words.insert(draw.randrange(len(words) + 1), draw.choice(pool))
    words = [word for word in words if word != "--"] if name in WRONG else words
    return [name, *words, *WRONG.get(name, [])]


def check(seed: int, folder: Path) -> str:
    """Run the command line of a seed in a folder of its own; returns command and exit code."""
    arguments, here = case(seed), Path.cwd()
    for name, text in FILES.items():
        file = folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8", errors="surrogateescape")
    out, err, code = io.StringIO(), io.StringIO(), 0
    os.chdir(folder)
    try:
        with (
            mock.patch.object(sys, "argv", ["sftlab", *arguments]),
            mock.patch.object(sys, "stdin", io.StringIO("Hi\n/reset\n\n/quit\n")),
            mock.patch.dict(os.environ, {"SFTLAB_CACHE": str(folder / "cache")}),
            mock.patch.dict(os.environ, {"SFTLAB_PROGRESS": str(folder / "progress")}),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            cli.main()
    except SystemExit as ended:
        code = ended.code or 0
    finally:
        os.chdir(here)
    said = err.getvalue()
    shown = f"{arguments!r:.400}\ncode {code}\n{said[:1500]}"
    assert code in (0, 1, 2, 130), shown
    assert "Traceback" not in said + out.getvalue(), shown
    assert "SFTLAB_DEBUG" not in said, f"an error that no command foresees: {shown}"
    mistake = [line for line in said.splitlines() if not line.startswith("checking ")]
    assert code != 2 or 1 <= len(mistake) <= 12, shown
    assert not re.search(r"\bNaN\b|\bInfinity\b", out.getvalue()) or "--json" not in arguments, (
        shown
    )
    outputs = re.findall("--(?:good|bad)[ =](\\S+)", " ".join(arguments))
    for name, text in FILES.items():
        kept = (folder / name).read_text(encoding="utf-8", errors="surrogateescape")
        assert kept == text or name in outputs, f"{name} was changed: {shown}"
    return f"{arguments[0] if arguments[0] in COMMANDS else 'unknown'}: {code}"
