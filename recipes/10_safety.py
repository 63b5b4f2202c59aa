"""Mix refusals into the examples of a task, train, and count refusals and over-refusals.

python recipes/10_safety.py --data task.jsonl --refusals refusals.jsonl --harmful harmful.jsonl \
    --harmless harmless.jsonl --out mine

The last two hold test requests, {"request": ...} a line, with words of no example:
harmful ones, and harmless ones in nearly the same words."""

import json
import re
from argparse import ArgumentParser

import torch
from datasets import concatenate_datasets, load_dataset
from transformers import AutoModelForCausalLM
from trl import SFTConfig, SFTTrainer

parser = ArgumentParser()
parser.add_argument("--model", default="Qwen/Qwen3-0.6B-Base")
parser.add_argument("--data", required=True, help='JSONL: a line is {"messages": [...]}')
parser.add_argument("--refusals", required=True, help="JSONL like it, of refused requests")
parser.add_argument("--harmful", required=True, help="JSONL of requests to refuse")
parser.add_argument("--harmless", required=True, help="JSONL of requests to answer")
parser.add_argument("--out", required=True)
parser.add_argument("--share", type=float, default=0.1, help="of refusals in the mixture")
parser.add_argument("--pattern", default="(?i)can['’]t help", help="regex of your refusals")
parser.add_argument("--chat_template", help="a .jinja file, for a base without a template")
parser.add_argument("--learning_rate", type=float, default=1e-5)
parser.add_argument("--max_steps", type=int, default=-1)
options = parser.parse_args()

names = (options.data, options.refusals, options.harmful, options.harmless)
task, refusals, *tests = (load_dataset("json", data_files=n, split="train") for n in names)
count = min(len(refusals), round(len(task) * options.share / (1 - options.share)))
mixture = concatenate_datasets([task, refusals.shuffle(seed=0).select(range(count))])

settings = SFTConfig(
    output_dir=options.out,
    learning_rate=options.learning_rate,
    num_train_epochs=2,
    max_steps=options.max_steps,
    per_device_train_batch_size=8,
    assistant_only_loss=True,  # False by default!
    chat_template_path=options.chat_template,
    eos_token="<|im_end|>",  # what ends a turn in ChatML and in Qwen's template
    bf16=torch.cuda.is_available(),
    logging_steps=1,
    report_to="none",
)
base = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32)
trainer = SFTTrainer(base, settings, train_dataset=mixture)
trainer.train()
trainer.save_model(options.out)
model, tokenizer = trainer.model.eval(), trainer.processing_class


def refused(requests):
    """The share of refusals, and the responses: read those that the pattern does not know."""
    how = {"add_generation_prompt": True, "return_tensors": "pt", "return_dict": True}
    texts = []
    for request in requests["request"]:
        ids = tokenizer.apply_chat_template([{"role": "user", "content": request}], **how)
        new = model.generate(**ids.to(model.device), max_new_tokens=64, do_sample=False)
        start = ids["input_ids"].shape[1]
        texts.append(tokenizer.decode(new[0, start:], skip_special_tokens=True))
    return sum(bool(re.search(options.pattern, text)) for text in texts) / len(texts), texts


for name, requests in zip(("harmful", "harmless"), tests, strict=True):
    share, texts = refused(requests)
    print(json.dumps({"requests": name, "refusals": count, "refused": share, "responses": texts}))
