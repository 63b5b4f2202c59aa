"""Fine-tune an instruct model to a house style, ask it before and after, save it merged.

python recipes/14_real_model.py --data train.jsonl --out runs/mine"""

# `--model` takes a hub id or a folder; `make real` in a clone of the course says where it put one.
import json
from argparse import ArgumentParser

import torch
from datasets import load_dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

parser = ArgumentParser()
parser.add_argument("--model", default="HuggingFaceTB/SmolLM2-135M-Instruct")
parser.add_argument("--data", required=True, help='JSONL: {"messages": [user, assistant]}')
parser.add_argument("--out", required=True)
parser.add_argument("--chat_template", help="a .jinja file, for a model without a template")
parser.add_argument("--learning_rate", type=float, default=4e-4)
parser.add_argument("--max_steps", type=int, default=20)
options = parser.parse_args()


def split(row):
    """The question and the answer apart: the loss is on the completion alone by default."""
    return {"prompt": row["messages"][:-1], "completion": row["messages"][-1:]}


tokenizer = AutoTokenizer.from_pretrained(options.model)
if options.chat_template:
    with open(options.chat_template, encoding="utf-8") as file:
        tokenizer.chat_template = file.read()
rows = load_dataset("json", data_files=options.data, split="train")
rows = rows.map(split, remove_columns=rows.column_names).train_test_split(8, seed=0)
model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32)


def right(model):
    """The share of held-out questions whose answer is the expected text and nothing else."""
    found = 0
    for row in rows["test"]:
        how = {"add_generation_prompt": True, "return_dict": True, "return_tensors": "pt"}
        prompt = tokenizer.apply_chat_template(row["prompt"], **how).to(model.device)
        ids = model.generate(**prompt, max_new_tokens=24, do_sample=False)
        text = tokenizer.decode(ids[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
        found += text.strip() == row["completion"][0]["content"]
    return found / len(rows["test"])


before = right(model)
settings = SFTConfig(
    output_dir=options.out,
    learning_rate=options.learning_rate,
    max_steps=options.max_steps,
    per_device_train_batch_size=8,
    bf16=torch.cuda.is_available(),
    activation_checkpointing=torch.cuda.is_available(),
    logging_steps=1,
    save_strategy="no",
    report_to="none",
)
adapters = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
data = {"train_dataset": rows["train"], "processing_class": tokenizer}
trainer = SFTTrainer(model, settings, peft_config=adapters, **data)
trainer.train()
after = right(trainer.model.eval())
merged = trainer.model.merge_and_unload()
merged.save_pretrained(options.out)  # an ordinary model, with the tokenizer and its template
tokenizer.save_pretrained(options.out)
losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
print(json.dumps({"before": before, "after": after, "losses": losses}))
