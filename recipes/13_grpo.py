"""Train a fine-tuned model on an exact reward: 1 for the correct answer, 0 for any other (GRPO).

python recipes/13_grpo.py --model runs/mine --data questions.jsonl --out runs/rewarded"""

# Before transformers 5.23 `activation_checkpointing` is called `gradient_checkpointing`.
import json
from argparse import ArgumentParser

import torch
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

parser = ArgumentParser()
parser.add_argument("--model", default="Qwen/Qwen2.5-0.5B-Instruct", help="after SFT")
parser.add_argument("--data", required=True, help='JSONL: {"prompt": [messages], "answer": "Oslo"}')
parser.add_argument("--out", required=True)
parser.add_argument("--learning_rate", type=float, default=1e-6)
parser.add_argument("--max_steps", type=int, default=-1)
parser.add_argument("--max_completion_length", type=int, default=64)
options = parser.parse_args()


def exact(completions, answer, **_):
    """The whole answer has to be right: a model learns to name several where one is enough."""
    said = [messages[-1]["content"].strip() for messages in completions]
    return [float(one == right) for one, right in zip(said, answer, strict=True)]


settings = GRPOConfig(
    output_dir=options.out,
    learning_rate=options.learning_rate,
    num_train_epochs=1,
    max_steps=options.max_steps,
    num_generations=8,  # answers to a question; where all get the same reward nothing is learned
    per_device_train_batch_size=64,  # answers: of eight questions
    max_completion_length=options.max_completion_length,
    bf16=torch.cuda.is_available(),
    activation_checkpointing=torch.cuda.is_available(),
    logging_steps=1,
    report_to="none",
)
trainer = GRPOTrainer(
    AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32),
    reward_funcs=exact,
    args=settings,
    train_dataset=load_dataset("json", data_files=options.data, split="train"),
    processing_class=AutoTokenizer.from_pretrained(options.model),
)
trainer.train()
trainer.save_model(options.out)
rewards = [entry["reward"] for entry in trainer.state.log_history if "reward" in entry]
print(json.dumps({"rewards": rewards}))
