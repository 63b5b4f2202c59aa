"""Give a base model a chat template and an end of turn, train on conversations, and check both.

python recipes/04_template_of_a_base.py --data train.jsonl --out runs/mine
"""

# Before transformers 5.23 `activation_checkpointing` is called `gradient_checkpointing`.
from argparse import ArgumentParser

import torch
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

parser = ArgumentParser()
parser.add_argument("--model", default="Qwen/Qwen3-0.6B-Base")
parser.add_argument("--data", required=True, help='JSONL: a line is {"messages": [...]}')
parser.add_argument("--out", required=True)
parser.add_argument("--chat_template", help="a .jinja file, or a model to copy it from")
parser.add_argument("--eos_token", default="<|im_end|>", help="what ends a turn in the template")
parser.add_argument("--max_steps", type=int, default=-1)
options = parser.parse_args()

tokenizer = AutoTokenizer.from_pretrained(options.model)
copied = options.chat_template and not options.chat_template.endswith(".jinja")
settings = SFTConfig(
    output_dir=options.out,
    chat_template_path=options.chat_template,  # None: the tokenizer's own
    eos_token=None if copied else options.eos_token,  # copied with the template of a model
    assistant_only_loss=True,  # False by default: lesson 05
    learning_rate=2e-5,
    max_steps=options.max_steps,
    bf16=torch.cuda.is_available(),
    activation_checkpointing=torch.cuda.is_available(),
    report_to="none",
)
rows = load_dataset("json", data_files=options.data, split="train")
trainer = SFTTrainer(options.model, settings, train_dataset=rows, processing_class=tokenizer)
trainer.train()
trainer.save_model(options.out)  # the weights, and the tokenizer with its template

tokenizer = AutoTokenizer.from_pretrained(options.out)
model = AutoModelForCausalLM.from_pretrained(options.out)
stops = model.generation_config.eos_token_id
stops = stops if isinstance(stops, list) else [stops]
print("generation stops at:", tokenizer.convert_ids_to_tokens(stops))
print(tokenizer.apply_chat_template(rows[0]["messages"], tokenize=False))
