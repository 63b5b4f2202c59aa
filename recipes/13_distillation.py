"""Let a stronger model answer prompts, and train a smaller one on its answers and your own rows.

python recipes/13_distillation.py --data my.jsonl --prompts prompts.jsonl --out runs/student"""

# Before transformers 5.23 `activation_checkpointing` is called `gradient_checkpointing`.
# The teacher's license may forbid this: many do, for competing models. Read it first.
import json
from argparse import ArgumentParser
from pathlib import Path

import torch
from datasets import concatenate_datasets, load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

parser = ArgumentParser()
parser.add_argument("--model", default="Qwen/Qwen3-0.6B-Base", help="the student")
parser.add_argument("--teacher", default="Qwen/Qwen3-4B-Instruct-2507", help="a chat model")
parser.add_argument("--data", required=True, help='JSONL: a line is {"messages": [...]}')
parser.add_argument("--prompts", required=True, help="JSONL like it, without the last answer")
parser.add_argument("--out", required=True)
parser.add_argument("--chat_template", help="a .jinja file, for a student without a template")
parser.add_argument("--max_new_tokens", type=int, default=512)
parser.add_argument("--learning_rate", type=float, default=2e-5)
parser.add_argument("--max_steps", type=int, default=-1)
options = parser.parse_args()

gpu, files = torch.cuda.is_available(), (options.data, options.prompts)
own, prompts = (load_dataset("json", data_files=file, split="train") for file in files)
tokenizer = AutoTokenizer.from_pretrained(options.teacher, padding_side="left")
teacher = AutoModelForCausalLM.from_pretrained(options.teacher, dtype="auto")
teacher.to("cuda" if gpu else "cpu")


def answer(rows):
    """The teacher's greedy answers; one that was cut off at the limit is no example: None."""
    form = {"add_generation_prompt": True, "padding": True, "return_tensors": "pt"}
    batch = tokenizer.apply_chat_template(rows["messages"], return_dict=True, **form)
    limit = {"max_new_tokens": options.max_new_tokens, "do_sample": False}
    new = teacher.generate(**batch.to(teacher.device), **limit)[:, batch["input_ids"].shape[1] :]
    ends = torch.tensor(teacher.generation_config.eos_token_id, device=new.device)
    found = tokenizer.batch_decode(new, skip_special_tokens=True)
    turns = [{"role": "assistant", "content": text.strip()} for text in found]
    made = zip(rows["messages"], turns, torch.isin(new, ends).any(1), strict=True)
    return {"messages": [[*row, turn] if ended else None for row, turn, ended in made]}


taught = prompts.map(answer, batched=True, batch_size=32, remove_columns=prompts.column_names)
taught = taught.filter(lambda row: row["messages"] is not None)
Path(options.out).mkdir(parents=True)
taught.to_json(Path(options.out, "taught.jsonl"))  # read some of it before you trust it
teacher.to("cpu")  # its place on the GPU is the student's
student = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32)
settings = SFTConfig(
    output_dir=options.out,
    learning_rate=options.learning_rate,
    num_train_epochs=3,
    max_steps=options.max_steps,
    per_device_train_batch_size=8,
    assistant_only_loss=True,  # False by default!
    chat_template_path=options.chat_template,
    eos_token="<|im_end|>",  # what ends a turn in ChatML and in Qwen's template
    bf16=gpu,
    activation_checkpointing=gpu,
    logging_steps=1,
    report_to="none",
)
trainer = SFTTrainer(student, settings, train_dataset=concatenate_datasets([own, taught]))
trainer.train()
trainer.save_model(options.out)
print(json.dumps({"own": len(own), "taught": len(taught), "cut": len(prompts) - len(taught)}))
