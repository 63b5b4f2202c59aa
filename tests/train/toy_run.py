"""Examples and quick settings for fine-tunes of a random two-layer model."""

import torch

from sftlab.train import finetune


def talk(question, answer):
    return {
        "messages": [
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ]
    }


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
WAYS = {
    "grouped": {},
    "random": {"train_sampling_strategy": "random"},
    "padding-free": {"train_sampling_strategy": "random", "padding_free": True},
}
KINDS = {
    "plain": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "pissa": {"init_lora_weights": "pissa"},
}


def train(base, examples=EXAMPLES, **settings):
    return finetune(str(base), examples, **{**QUICK, **settings})


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def equal(one, other):
    """Whether two runs have the same weights, bit for bit."""
    one, other = one.model.state_dict(), other.model.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def logits(model, ids=(9, 10, 11, 12, 13, 14)):
    with torch.no_grad():
        return model(torch.tensor([ids]), use_cache=False).logits.float()


class Stopped(Exception):
    """Instead of a kill."""


def stop_at(patch, step, error=Stopped):
    """Let any training end before a step, as a kill does: no more checkpoints are written."""
    from sftlab.train.trainer import SupervisedTrainer

    ordinary = SupervisedTrainer.training_step

    def training_step(self, *given, **named):
        if self.state.global_step == step:
            raise error
        return ordinary(self, *given, **named)

    patch.setattr(SupervisedTrainer, "training_step", training_step)
