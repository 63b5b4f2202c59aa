"""QLoRA: train adapters beside a base in 4 bits, merge them into 16 bits, ask the merged model.

python recipes/07_qlora.py --data train.jsonl --out runs/mine
"""

# Before transformers 5.23 `activation_checkpointing` is called `gradient_checkpointing`.
import json
from argparse import ArgumentParser

import torch
from datasets import load_dataset
from peft import LoraConfig, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from trl import SFTConfig, SFTTrainer

parser = ArgumentParser()
parser.add_argument("--model", default="Qwen/Qwen3-8B-Base")
parser.add_argument("--data", required=True, help='JSONL: a line is {"messages": [...]}')
parser.add_argument("--out", required=True)
parser.add_argument("--chat_template", help="a .jinja file, for a base without a template")
parser.add_argument("--learning_rate", type=float, default=2e-4)
parser.add_argument("--max_steps", type=int, default=-1)
options = parser.parse_args()

gpu = torch.cuda.is_available()
dtype = torch.bfloat16 if gpu else torch.float32
nf4 = BitsAndBytesConfig(
    load_in_4bit=True,
    bnb_4bit_quant_type="nf4",
    bnb_4bit_use_double_quant=True,
    bnb_4bit_compute_dtype=dtype,
)
base = AutoModelForCausalLM.from_pretrained(options.model, dtype=dtype, quantization_config=nf4)
adapters = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
settings = SFTConfig(
    output_dir=options.out,
    learning_rate=options.learning_rate,  # about ten times that of full fine-tuning
    num_train_epochs=3,
    max_steps=options.max_steps,
    per_device_train_batch_size=8,  # LoRA tolerates large batches less well than full fine-tuning
    max_length=1024,
    assistant_only_loss=True,  # False by default!
    chat_template_path=options.chat_template,
    eos_token="<|im_end|>",  # what ends a turn in ChatML and in Qwen's template
    optim="paged_adamw_8bit" if gpu else "adamw_torch",
    bf16=gpu,
    activation_checkpointing=gpu,
    logging_steps=1,
    report_to="none",
)
rows = load_dataset("json", data_files=options.data, split="train")
trainer = SFTTrainer(base, settings, train_dataset=rows, peft_config=adapters)
trainer.train()
trainer.save_model(options.out)  # the adapters alone, and the tokenizer with its template

tokenizer = AutoTokenizer.from_pretrained(options.out, padding_side="left")
whole = AutoModelForCausalLM.from_pretrained(options.model, dtype=dtype)  # not in 4 bits
model = PeftModel.from_pretrained(whole, options.out).merge_and_unload().eval()
model.generation_config.eos_token_id = tokenizer.eos_token_id
model.save_pretrained(f"{options.out}/merged")  # an ordinary model: no PEFT is needed to open it
tokenizer.save_pretrained(f"{options.out}/merged")

questions = [row["messages"][:1] for row in rows.select(range(min(4, len(rows))))]
batch = tokenizer.apply_chat_template(
    questions, add_generation_prompt=True, padding=True, return_dict=True, return_tensors="pt"
)
output = model.generate(**batch, max_new_tokens=32, do_sample=False)
answers = tokenizer.batch_decode(output[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
print(json.dumps(dict(zip((one[0]["content"] for one in questions), answers, strict=True))))
