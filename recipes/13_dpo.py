"""Train a fine-tuned model on pairs of a chosen and a rejected answer (DPO).

python recipes/13_dpo.py --model runs/mine --data pairs.jsonl --out runs/preferred"""

# Before transformers 5.23 `activation_checkpointing` is called `gradient_checkpointing`.
import json
import math
from argparse import ArgumentParser

import torch
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer

parser = ArgumentParser()
parser.add_argument("--model", default="Qwen/Qwen2.5-0.5B-Instruct", help="after SFT")
parser.add_argument("--data", required=True, help="JSONL: prompt, chosen, rejected, as messages")
parser.add_argument("--out", required=True)
parser.add_argument("--beta", type=float, default=0.1)
parser.add_argument("--learning_rate", type=float, default=1e-6)
parser.add_argument("--max_steps", type=int, default=-1)
options = parser.parse_args()

tokenizer = AutoTokenizer.from_pretrained(options.model)


def rendered(row):
    """As text that ends with the end of turn: from messages the trainer would also count what the
    template writes after it, such as a line break that SFT never trained."""
    how = {"tokenize": False, "add_generation_prompt": True}
    answers = {side: row[side][-1]["content"] for side in ("chosen", "rejected")}
    texts = {side: text + tokenizer.eos_token for side, text in answers.items()}
    return {"prompt": tokenizer.apply_chat_template(row["prompt"], **how), **texts}


pairs = load_dataset("json", data_files=options.data, split="train").map(rendered)
model, reference = (
    AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32) for _ in range(2)
)
settings = DPOConfig(
    output_dir=options.out,
    beta=options.beta,
    learning_rate=options.learning_rate,
    num_train_epochs=1,
    max_steps=options.max_steps,
    per_device_train_batch_size=8,
    bf16=torch.cuda.is_available(),
    activation_checkpointing=torch.cuda.is_available(),
    logging_steps=1,
    report_to="none",
)
some = pairs.select(range(min(len(pairs), 64)))
how = {"train_dataset": pairs, "eval_dataset": some, "processing_class": tokenizer}
trainer = DPOTrainer(model, ref_model=reference, args=settings, **how)
before = trainer.evaluate()
wrong = "the first loss is not ln 2: the reference is not the model that is trained"
assert abs(before["eval_loss"] - math.log(2)) < 0.01, wrong
trainer.train()
after = trainer.evaluate()
trainer.save_model(options.out)
names = ("loss", "logps/chosen", "logps/rejected")  # the chosen may fall too: look at both
print(json.dumps({name: [one[f"eval_{name}"] for one in (before, after)] for name in names}))
