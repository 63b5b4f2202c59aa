"""Compare a fine-tune with a baseline on held-out questions: accuracy, paired difference, interval.

    python recipes/09_evaluation.py --model RUN --data test.jsonl --shots train.jsonl

The interval is over questions alone: train with other seeds too. Public benchmarks, with lm-eval:

    lm-eval run --model hf --model_args pretrained=RUN --tasks ifeval --apply_chat_template
    lm-eval run --model hf --model_args pretrained=BASE,peft=RUN,tokenizer=RUN --tasks ifeval \
        --apply_chat_template --gen_kwargs eos_token_id=ID_OF_THE_END_OF_TURN --batch_size 8
"""

import json
from argparse import ArgumentParser
from pathlib import Path

import evaluate
import numpy as np
from transformers import AutoModelForCausalLM, AutoTokenizer

parser = ArgumentParser()
parser.add_argument("--model", default="Qwen/Qwen3-0.6B", help="a merged run, or a hub id")
parser.add_argument("--baseline", default="Qwen/Qwen3-0.6B-Base")
parser.add_argument("--data", required=True, help='JSONL of {"messages": [...]}, held out')
parser.add_argument("--shots", required=True, help="JSONL of rows for the few-shot prompt")
parser.add_argument("--out", default="results.json")
parser.add_argument("--metric", default="exact_match", help="of the hub, or a module's path")
parser.add_argument("--max_steps", type=int, default=-1, help="batches of 16 questions; -1 for all")
args = parser.parse_args()


def read(path):
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


rows = read(args.data)[: 16 * args.max_steps if args.max_steps > 0 else None]
shots = [[turn["content"] for turn in row["messages"][-2:]] for row in read(args.shots)[:4]]
prefix = "".join(f"Q: {question}\nA: {answer}\n\n" for question, answer in shots)


def answers(name):
    tokenizer = AutoTokenizer.from_pretrained(name, padding_side="left")  # answers start together
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(name, dtype="auto", device_map="auto").eval()
    chat, found = tokenizer.chat_template is not None, []
    for start in range(0, len(rows), 16):
        asked = [row["messages"][:-1] for row in rows[start : start + 16]]
        texts = [f"{prefix}Q: {turns[-1]['content']}\nA:" for turns in asked]
        if chat:
            how = {"tokenize": False, "add_generation_prompt": True}
            texts = tokenizer.apply_chat_template(asked, **how)
        batch = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=not chat)
        batch = {key: batch[key].to(model.device) for key in ("input_ids", "attention_mask")}
        new = model.generate(**batch, max_new_tokens=32, do_sample=False)
        new = new[:, batch["input_ids"].shape[1] :]  # without the prompt
        found += tokenizer.batch_decode(new, skip_special_tokens=True)
    return [text.strip().split("\n")[0].strip(" .") for text in found]


truth = [row["messages"][-1]["content"].strip(" .") for row in rows]
metric = evaluate.load(args.metric, "exact_match")


def scores(texts):
    pairs = zip(texts, truth, strict=True)
    each = [metric.compute(predictions=[said], references=[right]) for said, right in pairs]
    return np.array([one["exact_match"] for one in each])


outputs = {name: answers(name) for name in (args.model, args.baseline)}
ours, theirs = (scores(texts) for texts in outputs.values())
gaps = ours - theirs  # paired: both answered the same questions
draws = np.random.default_rng(0).integers(len(gaps), size=(10_000, len(gaps)))
low, high = np.percentile(gaps[draws].mean(axis=1), [2.5, 97.5])
print(f"accuracy {ours.mean():.1%}, baseline {theirs.mean():.1%}, {len(rows)} questions")
print(f"difference {100 * gaps.mean():+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})")
found = {"difference": gaps.mean(), "low": low, "high": high, "outputs": outputs, "truth": truth}
Path(args.out).write_text(json.dumps(found, indent=1), encoding="utf-8")
