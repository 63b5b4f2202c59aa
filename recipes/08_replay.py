"""Mix general examples into those of a task, train adapters, measure old skills before and after.

python recipes/08_replay.py --data task.jsonl --general general.jsonl --old old.jsonl --out mine
"""

# Before transformers 5.23 `activation_checkpointing` is called `gradient_checkpointing`.
import json
from argparse import ArgumentParser

import torch
from datasets import concatenate_datasets, load_dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM
from trl import SFTConfig, SFTTrainer

parser = ArgumentParser()
parser.add_argument("--model", default="Qwen/Qwen3-0.6B-Base")
parser.add_argument("--data", required=True, help='JSONL: a line is {"messages": [...]}')
parser.add_argument("--general", required=True, help="JSONL like it, of what the base can do")
parser.add_argument("--old", required=True, help='JSONL: {"prompt": "2 3 4 5", "answer": "6 7 8"}')
parser.add_argument("--out", required=True)
parser.add_argument("--chat_template", help="a .jinja file, for a base without a template")
parser.add_argument("--share", type=float, default=0.1, help="of general examples")
parser.add_argument("--learning_rate", type=float, default=2e-4)
parser.add_argument("--max_steps", type=int, default=-1)
options = parser.parse_args()

task, general, old = (
    load_dataset("json", data_files=file, split="train")
    for file in (options.data, options.general, options.old)
)
count = round(len(task) * options.share / (1 - options.share))
mixture = concatenate_datasets([task, general.shuffle(seed=0).select(range(count))])


@torch.no_grad()
def kept(model, tokenizer):
    """The share of old items that the model would complete as expected, read in one pass each."""
    right = 0
    for item in old:
        start = len(tokenizer(item["prompt"])["input_ids"])
        ids = tokenizer(f"{item['prompt']} {item['answer']}", return_tensors="pt")["input_ids"]
        likeliest = model(ids.to(model.device)).logits[0].argmax(-1).cpu()
        right += torch.equal(likeliest[start - 1 : -1], ids[0, start:])
    return right / len(old)


base = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32)
settings = SFTConfig(
    output_dir=options.out,
    learning_rate=options.learning_rate,
    num_train_epochs=3,
    max_steps=options.max_steps,
    per_device_train_batch_size=8,
    assistant_only_loss=True,  # False by default!
    chat_template_path=options.chat_template,
    eos_token="<|im_end|>",  # what ends a turn in ChatML and in Qwen's template
    bf16=torch.cuda.is_available(),
    activation_checkpointing=torch.cuda.is_available(),
    logging_steps=1,
    report_to="none",
)
adapters = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
trainer = SFTTrainer(base, settings, train_dataset=mixture, peft_config=adapters)
model, tokenizer = trainer.model.eval(), trainer.processing_class
before = kept(model, tokenizer)  # fresh adapters change nothing: this is the base
trainer.train()
after = kept(model.eval(), tokenizer)
trainer.save_model(options.out)
print(json.dumps({"examples": len(mixture), "general": count, "before": before, "after": after}))
