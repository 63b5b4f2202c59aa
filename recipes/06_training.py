"""Fine-tune with packing, gradient accumulation and checkpoints; reload the model and ask it.

python recipes/06_training.py --data train.jsonl --out runs/mine    (again: it goes on)
"""

# Before transformers 5.23 `activation_checkpointing` is called `gradient_checkpointing`.
import json
from argparse import ArgumentParser
from pathlib import Path

import torch
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.trainer_utils import get_last_checkpoint
from trl import SFTConfig, SFTTrainer

parser = ArgumentParser()
parser.add_argument("--model", default="Qwen/Qwen3-0.6B-Base")
parser.add_argument("--data", required=True, help='JSONL: a line is {"messages": [...]}')
parser.add_argument("--out", required=True)
parser.add_argument("--chat_template", help="a .jinja file, for a base without a template")
parser.add_argument("--learning_rate", type=float, default=2e-5)
parser.add_argument("--max_steps", type=int, default=-1)
parser.add_argument("--save_steps", type=int, default=50)
options = parser.parse_args()

settings = SFTConfig(
    output_dir=options.out,
    learning_rate=options.learning_rate,
    num_train_epochs=3,
    max_steps=options.max_steps,
    per_device_train_batch_size=1,  # one packed row of up to max_length tokens
    gradient_accumulation_steps=8,  # 8 of them make one optimizer step
    max_length=512,
    packing=True,  # strategy "bfd": cuts rows above max_length; examples do not see each other
    assistant_only_loss=True,  # False by default!
    chat_template_path=options.chat_template,
    eos_token="<|im_end|>",  # what ends a turn in ChatML and in Qwen's template
    bf16=torch.cuda.is_available(),
    activation_checkpointing=torch.cuda.is_available(),
    save_steps=options.save_steps,
    save_total_limit=2,
    logging_steps=1,
    report_to="none",  # or "tensorboard", "wandb", "trackio"
)
rows = load_dataset("json", data_files=options.data, split="train")
trainer = SFTTrainer(options.model, settings, train_dataset=rows)
started = Path(options.out).is_dir() and get_last_checkpoint(options.out)
trainer.train(resume_from_checkpoint=started or None)
trainer.save_model(options.out)  # the model, and the tokenizer with its template

tokenizer = AutoTokenizer.from_pretrained(options.out, padding_side="left")
model = AutoModelForCausalLM.from_pretrained(options.out).eval()
questions = [row["messages"][:1] for row in rows.select(range(min(4, len(rows))))]
batch = tokenizer.apply_chat_template(
    questions, add_generation_prompt=True, padding=True, return_dict=True, return_tensors="pt"
)
output = model.generate(**batch, max_new_tokens=32, do_sample=False)
answers = tokenizer.batch_decode(output[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
for question, answer in zip(questions, answers, strict=True):
    print(json.dumps({"question": question[0]["content"], "answer": answer}))
