"""Examples, bases and quick settings for fine-tunes of a random two-layer model."""

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from sftlab.train import finetune
from sftlab.train.trainer import SupervisedTrainer


def talk(question, answer):
    return {
        "messages": [
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ]
    }


CALL = {"type": "function", "function": {"name": "weather", "arguments": {"town": "Oslo"}}}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
EXAMPLES = [talk(f"What is {n}?", "Paris") for n in range(24)]
# Lengths differ much, so that padding and grouping have something to do.
MIXED = [
    talk(
        "the capital of France is " * (1 + 7 * n % 5),
        ["Paris", "Oslo is the capital", "Rome, Italy"][n % 3],
    )
    for n in range(24)
]
QUICK = {
    "bf16": False,
    "num_train_epochs": 1,
    "per_device_train_batch_size": 8,
    "learning_rate": 1e-3,
    "progress": False,
}
"""Three steps in float32."""


def train(base, examples=EXAMPLES, **settings):
    return finetune(str(base), examples, **{**QUICK, **settings})


def same(one, other):
    """Whether two dictionaries of tensors are alike, bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def equal(one, other):
    """Whether two runs have the same weights, bit for bit."""
    return same(one.model.state_dict(), other.model.state_dict())


def logits(model, ids=(9, 10, 11, 12, 13, 14)):
    with torch.no_grad():
        return model(torch.tensor([ids]), use_cache=False).logits.float()


def write_base(folder, tokenizer, *, tied):
    """A random Qwen3, whose heads are wider than hidden size / heads, and a tokenizer."""
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32}
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    torch.manual_seed(1)
    config = Qwen3Config(
        vocab_size=len(tokenizer), tie_word_embeddings=tied, **sizes, **heads, **ends
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


class Stopped(Exception):
    """Instead of a kill."""


def before_step(patch, step, do):
    """Let any training do something before a step, counted from 0."""
    ordinary = SupervisedTrainer.training_step

    def training_step(self, *given, **named):
        if self.state.global_step == step:
            do()
        return ordinary(self, *given, **named)

    patch.setattr(SupervisedTrainer, "training_step", training_step)


def stop_at(patch, step, error=Stopped):
    """Let any training end before a step, as a kill does: no more checkpoints are written."""

    def stop():
        raise error

    before_step(patch, step, stop)
