"""What a batch of a training costs.

Counts of positions, bytes and operations, no times: so they say the same on a busy machine.
"""

from collections.abc import Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from sftlab.profiles import Profile, find_profile
from sftlab.quiet import quiet_libraries, randomness_kept
from sftlab.train.finetuning import prepare_training
from sftlab.train.settings import Settings
from sftlab.train.trainer import trimmed

# torch counts attention's multiplications on a GPU alone (2.13); the formulas hold on a CPU too.
_FORMULAS = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: (
        lambda query, key, value, *_, **__: sdpa_flop_count(query, key, value)
    ),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda grad, query, key, value, *_, **__: sdpa_backward_flop_count(grad, query, key, value)
    ),
}


def batch_costs(
    profile: str | Path | Profile, examples: Iterable, *, steps: int = 1, **how: Any
) -> pd.DataFrame:
    """What the batches of the first optimizer steps of a fine-tune cost, counted as they run.

    One row a batch: batch (from 1), positions (those that are computed: with the padding, without
    the columns right of the last prediction), operations (of matrix multiplications, forward and
    backward, two for a multiplication and its sum; by torch.utils.flop_counter), kept (bytes that
    autograd saves for the backward pass, without the model's weights).
    """
    found: list[dict] = []
    with _trainer(profile, examples, **how) as trainer:
        step, loss, saved = trainer.training_step, trainer.compute_loss, {}

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

        def counted_step(model, inputs, *given):
            row = {"batch": len(found) + 1, "positions": _positions(inputs)}
            with FlopCounterMode(display=False, custom_mapping=_FORMULAS) as counter:
                made = step(model, inputs, *given)
            row["operations"], row["kept"] = counter.get_total_flops(), sum(saved.values())
            found.append(row)
            return made

        trainer.training_step, trainer.compute_loss = counted_step, counted_loss
        trainer.args.max_steps = steps
        trainer.train()
    return pd.DataFrame(found)


@contextmanager
def _trainer(profile, examples, settings: Settings | None = None, **overrides: Any):
    """The trainer that `finetune` would set up."""
    profile = find_profile(profile)
    settings = (settings or Settings()).changed(**overrides).filled(profile)
    with quiet_libraries(), randomness_kept(), TemporaryDirectory() as scratch:
        yield prepare_training(profile, examples, settings, folder=scratch)[0]


def _positions(inputs: Mapping[str, Any]) -> int:
    inputs = dict(inputs)
    kept, _ = trimmed(inputs, inputs.pop("labels"))
    return kept["input_ids"].numel()
