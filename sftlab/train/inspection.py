"""What a batch of a training costs, counted: so it says the same on a busy machine."""

from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

from sftlab.profiles import Profile, find_profile
from sftlab.quiet import quiet_libraries, randomness_kept
from sftlab.train.finetuning import prepare_training
from sftlab.train.settings import Settings


def batch_costs(
    profile: str | Path | Profile, examples: Iterable, *, settings: Settings
) -> pd.DataFrame:
    """What the batches of a fine-tune's first optimizer step cost, a row each.

    Columns: operations (of matrix multiplications, forward and backward, two for a multiplication
    and its sum; of rows of up to 512 tokens on a CPU, where torch 2.13 counts attention) and kept
    (bytes that autograd saves for the backward pass, without the model's weights).
    """
    profile, found, saved = find_profile(profile), [], {}
    with quiet_libraries(), randomness_kept(), TemporaryDirectory() as scratch:
        filled = settings.filled(profile)
        trainer = prepare_training(profile, examples, filled, folder=scratch)[0]
        step, loss = trainer.training_step, trainer.compute_loss

        def counted_loss(model, *given, **named):
            weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}

            def save(tensor):
                storage = tensor.untyped_storage()
                if storage.data_ptr() not in weights:  # views of one storage count once
                    saved[storage.data_ptr()] = storage.nbytes()
                return tensor

            saved.clear()
            with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
                return loss(model, *given, **named)

        def counted_step(model, *given):
            with FlopCounterMode(display=False) as counter:
                made = step(model, *given)
            found.append({"operations": counter.get_total_flops(), "kept": sum(saved.values())})
            return made

        trainer.training_step, trainer.compute_loss = counted_step, counted_loss
        trainer.args.max_steps = 1
        trainer.train()
    return pd.DataFrame(found)
