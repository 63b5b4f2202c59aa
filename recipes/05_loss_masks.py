"""Choose what the loss is computed on, and look at the labels before training.

python recipes/05_loss_masks.py --data train.jsonl --out runs/mine --loss answers
"""

# Before transformers 5.23 `activation_checkpointing` is called `gradient_checkpointing`.
from argparse import ArgumentParser

import torch
from datasets import load_dataset
from transformers import AutoTokenizer
from trl import SFTConfig, SFTTrainer

parser = ArgumentParser()
parser.add_argument("--model", default="Qwen/Qwen3-0.6B-Base")
parser.add_argument("--data", required=True, help='JSONL: a line is {"messages": [...]}')
parser.add_argument("--out", required=True)
parser.add_argument("--chat_template", help="a .jinja file, for a base without a template")
parser.add_argument("--loss", choices=["answers", "last answer", "everything"], default="answers")
parser.add_argument("--max_steps", type=int, default=-1)
options = parser.parse_args()

rows = load_dataset("json", data_files=options.data, split="train")
if options.loss == "last answer":  # prompt and completion: no generation tags are needed
    rows = rows.map(
        lambda row: {"prompt": row["messages"][:-1], "completion": row["messages"][-1:]},
        remove_columns="messages",
    )
settings = SFTConfig(
    output_dir=options.out,
    assistant_only_loss=options.loss == "answers",  # False by default: the loss is on everything
    completion_only_loss=True if options.loss == "last answer" else None,
    chat_template_path=options.chat_template,
    eos_token="<|im_end|>",
    max_length=1024,
    learning_rate=2e-5,
    max_steps=options.max_steps,
    bf16=torch.cuda.is_available(),
    activation_checkpointing=torch.cuda.is_available(),
    logging_steps=1,
    report_to="none",
)
tokenizer = AutoTokenizer.from_pretrained(options.model)
trainer = SFTTrainer(options.model, settings, train_dataset=rows, processing_class=tokenizer)

print(f"{len(trainer.train_dataset)} of {len(rows)} rows have something to learn")
first = trainer.train_dataset[0]
for token, label in zip(first["input_ids"], first["labels"], strict=True):
    print(f"{label:7} {tokenizer.decode(token)!r}")
trainer.train()
trainer.save_model(options.out)
