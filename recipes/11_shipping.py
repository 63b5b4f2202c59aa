"""Train adapters, merge, save and open again; no release where it answers otherwise."""

# python recipes/11_shipping.py --data rows.jsonl --out release

import json
import shutil
from argparse import ArgumentParser
from pathlib import Path

import torch
from datasets import load_dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

parser = ArgumentParser()
parser.add_argument("--model", default="Qwen/Qwen3-0.6B-Base")
parser.add_argument("--data", required=True, help='JSONL: a line is {"messages": [...]}')
parser.add_argument("--out", required=True, help="a new folder")
parser.add_argument("--chat_template", help="a .jinja file, for a base without a template")
parser.add_argument("--dtype", default="float32", help="of the release: bfloat16 is half as large")
parser.add_argument("--bound", type=float, default=0.02, help="in nats; 0.6 for bfloat16")
parser.add_argument("--max_steps", type=int, default=-1)
options = parser.parse_args()
Path(options.out).mkdir(parents=True)  # an error where it is there: a refusal removes it

rows = load_dataset("json", data_files=options.data, split="train").train_test_split(8, seed=0)
settings = SFTConfig(
    output_dir=f"{options.out}-training",
    learning_rate=2e-4,
    max_steps=options.max_steps,
    assistant_only_loss=True,  # False by default!
    chat_template_path=options.chat_template,
    eos_token="<|im_end|>",  # what ends a turn in ChatML and in Qwen's template
    bf16=torch.cuda.is_available(),
    report_to="none",
)
adapters = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
base = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32)
trainer = SFTTrainer(base, settings, train_dataset=rows["train"], peft_config=adapters)
trainer.train()
trained, tokenizer = trainer.model.eval().cpu(), trainer.processing_class


@torch.no_grad()
def answers(model, tokenizer, given=()):
    # Of each held-out prompt: its ids, the trained model's greedy answer, log-probabilities.
    for n, row in enumerate(rows["test"]["messages"]):
        text = tokenizer.apply_chat_template(row[:-1], add_generation_prompt=True, tokenize=False)
        prompt = tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
        ids = given[n][1] if given else model.generate(prompt, max_new_tokens=32, do_sample=False)
        logits = model(ids).logits[0, prompt.shape[1] - 1 : -1]
        yield prompt.tolist(), ids, logits.float().log_softmax(-1)


before = list(answers(trained, tokenizer))
merged = trained.merge_and_unload().to(getattr(torch, options.dtype))
merged.save_pretrained(options.out)
tokenizer.save_pretrained(options.out)
served = AutoModelForCausalLM.from_pretrained(options.out, dtype="auto")
after = answers(served.eval(), AutoTokenizer.from_pretrained(options.out), before)
bound, differences, changed, same_ids = options.bound, [], 0, True
for (prompt, ids, ours), (reread, _, theirs) in zip(before, after, strict=True):
    # At the answer's own tokens; elsewhere only where another one wins, if by more than a near-tie.
    differences.append((ours - theirs).gather(1, ids[0, -len(ours) :, None]).abs().max().item())
    lead = ours.topk(2).values.diff().abs()[:, 0]  # over the second choice, in nats
    changed += ((ours.argmax(-1) != theirs.argmax(-1)) & (lead > bound)).sum().item()
    same_ids &= prompt == reread
print(json.dumps({"same_ids": same_ids, "changed": changed, "difference": max(differences)}))
if not (same_ids and not changed and max(differences) <= bound):  # NaN is refused too
    shutil.rmtree(options.out)
    raise SystemExit("refused: it does not answer as the trained model does")
