"""A run's recipe: the same fine-tune in plain TRL and PEFT, run as a script of its own."""

import ast
import json
import os
import re
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
import trl
from peft import PeftModel
from toy_run import CALL, EXAMPLES, TOOLS, train
from transformers import AutoConfig, AutoModelForCausalLM

from sftlab.measure import probe_questions
from sftlab.models import load
from sftlab.train import RunError
from sftlab.train.examples import supervise
from sftlab.world import countries, country_examples

MARGIN = 0.10
"""Of the share of 216 questions answered rightly. Chosen beforehand: the two runs differ in the
order of the examples, which among seeds of one run moves the share by a few points."""
LIBRARIES = {"trl", "peft", "transformers", "datasets", "torch", "json", "sys"}
ASKED = [country for country in countries(split="held_out") if country.group == "asked"]


def libraries(script):
    ast.parse(script)  # it is Python
    return set(re.findall(r"^\s*(?:from|import) (\w+)", script, flags=re.M))


def carried_out(script, examples, folder):
    """The folder of the model that the script wrote."""
    rows, file = folder / "train.jsonl", folder / "recipe.py"
    rows.write_text("".join(json.dumps(row) + "\n" for row in examples))
    file.write_text(script)
    command = [sys.executable, str(file), str(rows), str(folder / "out")]
    environment = {**os.environ, "PYTHONPATH": "", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder / "out"


@pytest.mark.slow
@pytest.mark.parametrize("how", [{"template": "article"}, {"method": "lora"}])
def test_the_scripts_model_answers_as_the_runs(tmp_path, how):
    examples = country_examples(400, seed=0)
    run = train("tiny", examples, learning_rate=None, num_train_epochs=3, seed=3, **how)
    script = run.recipe()
    assert libraries(script) <= LIBRARIES
    out = carried_out(script, examples, tmp_path)
    if how.get("method") == "lora":
        base, _ = load("tiny")
        other = replace(run, model=PeftModel.from_pretrained(base, out).eval())
    else:
        other = replace(run, model=AutoModelForCausalLM.from_pretrained(out).eval())
    other.model.generation_config = run.model.generation_config
    found = [probe_questions(one.answer, among=ASKED)["right"] for one in (run, other)]
    assert len(found[0]) >= 100
    assert found[0].mean() > 0.5, "this test needs a run that learned"
    assert abs(found[0].mean() - found[1].mean()) <= MARGIN


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (
            {"method": "qlora", "early_stopping_patience": 2, "eval_dataset": EXAMPLES[:2]},
            "EarlyStoppingCallback(2)",
        ),
        ({"method": "int8", "use_rslora": True, "target_modules": ["q_proj"]}, "['q_proj']"),
        ({"method": "frozen", "end_of_turn": False, "turns": "everything"}, "\nlayers[-1:]."),
    ],
)
def test_every_script_is_python_with_the_runs_settings(toy_base, how, said):
    run = train(toy_base, EXAMPLES[:8], **how)
    script = run.recipe()
    assert libraries(script) <= LIBRARIES
    assert f"seed={run.settings.seed}" in script
    assert said in script
    assert ("BitsAndBytesConfig" in script) == (how["method"] in ("qlora", "int8"))


ADDING = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|fin|>{% endfor %}"
USER, ANSWER = EXAMPLES[0]["messages"]
CALLED = [
    USER,
    {"role": "assistant", "content": "", "reasoning_content": "Hm.", "tool_calls": [CALL]},
    {"role": "tool", "content": "Grey."},
    ANSWER,
]


@pytest.mark.parametrize(
    ("messages", "how"),
    [
        (CALLED, {}),
        ([USER, {**ANSWER, "train": False}, USER, ANSWER], {}),
        ([USER, {**ANSWER, "reasoning_content": "So."}], {"end_of_turn": False}),
        ([USER, {**ANSWER, "reasoning_content": f"So {ANSWER['content']} it is."}], {}),
        ([USER, {**ANSWER, "reasoning_content": "So Paris."}], {"start": "content"}),
        ([USER, {**ANSWER, "reasoning_content": "So.", "content": ""}], {}),
        ([USER, ANSWER, USER, ANSWER], {"turns": "last", "start": "generation"}),
    ],
)
def test_the_script_labels_rows_as_the_run_did(toy_base, messages, how):
    run = train(toy_base, EXAMPLES[:8], template="qwen3", **how)
    script = ast.parse(run.recipe())
    names = {"tokenizer": run.tokenizer, "MAX_LENGTH": 512, "END_OF_TURN": "<|im_end|>"}
    (part,) = [one for one in script.body if getattr(one, "name", "") == "labelled"]
    exec(compile(ast.Module([part], []), "recipe", "exec"), names)
    row = {"messages": messages, "tools": TOOLS}
    assert [names["labelled"](row)] == supervise([row], run.tokenizer, run.settings)


@pytest.mark.parametrize("warmup", [0.0, 0.05, 2])
def test_the_script_has_the_rates_of_the_run(toy_base, tmp_path, monkeypatch, warmup):
    run = train(toy_base, EXAMPLES, lr_scheduler_type="cosine", warmup_steps=warmup)
    made, ordinary = [], trl.SFTTrainer.train

    def steps(self):
        made.append(self)
        return ordinary(self)

    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in EXAMPLES))
    monkeypatch.setattr(trl.SFTTrainer, "train", steps)
    monkeypatch.setattr(sys, "argv", ["recipe.py", str(rows), str(tmp_path / "out")])
    script = run.recipe().replace("MODEL = ", f"MODEL = {str(toy_base)!r}  # ")
    exec(compile(script, "recipe", "exec"), {})
    rates = [one["learning_rate"] for one in made[0].state.log_history if "loss" in one]
    assert rates == pytest.approx([one["learning_rate"] for one in run.history])


@pytest.mark.parametrize("kind", ["gpt2", "opt", "gpt_neox"])
def test_the_script_freezes_what_the_run_did_in_any_family(toy_tokenizer, tmp_path, kind):
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
    ends = {name: getattr(toy_tokenizer, name) for name in ("eos_token_id", "pad_token_id")}
    sizes |= {**ends, "tie_word_embeddings": kind != "gpt_neox", "vocab_size": len(toy_tokenizer)}
    AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes)).save_pretrained(tmp_path)
    toy_tokenizer.save_pretrained(tmp_path)
    run = train(tmp_path, EXAMPLES[:8], method="frozen")
    model = load(str(tmp_path))[0].requires_grad_(False)
    part = re.search(r"^layers = .*?^layers\[-2:\].*?$", run.recipe(), flags=re.M | re.S)
    exec(part[0], {"model": model, "torch": torch})
    of = ({n for n, w in m.named_parameters() if w.requires_grad} for m in (model, run.model))
    assert next(of) == next(of)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"method": "gradual", "dropout": 0.1}, "no method='gradual', dropout"),
        ({"method": "frozen", "template": ADDING}, "no rows of added tokens"),
    ],
)
def test_what_the_libraries_lack_is_refused(toy_base, how, said):
    run = train(toy_base, EXAMPLES[:8], **how)
    with pytest.raises(RunError, match=said):
        run.recipe()
