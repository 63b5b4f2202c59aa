"""A training looked into: the batches it makes, what a batch costs, which examples see each other.

Counts of positions, bytes and operations, no times: they are the same on a busy machine.

    batches            no model runs            positions of an epoch: padded, grouped, packed
    batch_costs        some training steps      bytes and operations: checkpointing, precision,
                                                method
    neighbour_effect   two forward calls        whether packed examples read each other
"""

import gc
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pandas as pd

from sftlab.models import Profile, find_profile
from sftlab.quiet import quiet_libraries, randomness_kept
from sftlab.train.conversations import check_examples
from sftlab.train.settings import Settings
from sftlab.train.speech import control_tokens, teach_tokens
from sftlab.train.supervision import supervise

if TYPE_CHECKING:
    from sftlab.train.run import Run


def batches(
    profile: str | Path | Profile,
    examples: Iterable[Mapping[str, Any]],
    *,
    settings: Settings | None = None,
    **overrides: Any,
) -> pd.DataFrame:
    """The batches of the first epoch of a fine-tune, which is not begun.

    Arguments and errors are those of `finetune`.

    Returns:
        One row a batch: batch (from 1), examples, tokens (theirs), positions (those that are
        computed: with the padding, without the columns right of the last prediction).
    """
    found: list[dict] = []

    def look(trainer) -> None:
        for inputs in trainer.get_train_dataloader():
            found.append({"batch": len(found) + 1, **_sizes(inputs)})

    _with_trainer(profile, examples, settings, overrides, look)
    return pd.DataFrame(found)


def batch_costs(
    profile: str | Path | Profile,
    examples: Iterable[Mapping[str, Any]],
    *,
    steps: int = 1,
    settings: Settings | None = None,
    **overrides: Any,
) -> pd.DataFrame:
    """What the first batches of a fine-tune cost, counted while they are computed.

    The other arguments and the errors are those of `finetune`; `steps` is a number of optimizer
    steps.

    Returns:
        One row a batch: the columns of `batches`, and operations (of the matrix multiplications of
        the forward and the backward pass, two for a multiplication and its sum; by
        torch.utils.flop_counter), kept (bytes that autograd saves for the backward pass, the
        model's weights left out).
    """
    found: list[dict] = []

    def look(trainer) -> None:
        import torch
        from torch.utils.flop_counter import FlopCounterMode

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
            sizes = _sizes(inputs)
            with FlopCounterMode(display=False, custom_mapping=_formulas()) as counter:
                made = step(model, inputs, *given)
            found.append({"batch": len(found) + 1, **sizes,
                          "operations": counter.get_total_flops(),
                          "kept": sum(saved.values())})  # fmt: skip
            return made

        trainer.training_step, trainer.compute_loss = counted_step, counted_loss
        trainer.args.max_steps = steps
        trainer.train()

    _with_trainer(profile, examples, settings, overrides, look)
    return pd.DataFrame(found)


def neighbour_effect(
    run: "Run", examples: Sequence[Mapping[str, Any]], *, apart: bool = True
) -> float:
    """How far the last of some packed examples reacts to the others: 0 when it doesn't see them.

    The examples are laid end to end in one row; then again, with the tokens of all but the last in
    reverse order. The largest change of a logit of the last one is returned.

    Args:
        run: model and template.
        examples: two or more.
        apart: compute as the training does, where examples are blind to each other; else with a
            mask that lets all of the row be read, as if it were one text.
    """
    import torch

    from sftlab.train.step import packing_collator

    if len(examples) < 2:
        raise ValueError(f"examples are {len(examples)}; give two or more, or nothing is packed")
    checked = check_examples(examples, control=control_tokens(run.settings.template))
    rows, _ = supervise(checked, run.tokenizer, run.settings, max_length=run.settings.max_length)
    others = [{**row, "input_ids": row["input_ids"][::-1]} for row in rows[:-1]]
    found = []
    for laid in (rows, [*others, rows[-1]]):
        inputs = packing_collator(run.tokenizer.pad_token_id)(laid)
        inputs = {name: inputs[name].to(run.model.device) for name in ("input_ids", "position_ids")}
        if not apart:
            inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        with torch.no_grad():
            logits = run.model(**inputs, use_cache=False).logits[0]
        found.append(logits[-len(rows[-1]["input_ids"]) :].float())
    return (found[0] - found[1]).abs().max().item()


def _with_trainer(
    profile: str | Path | Profile,
    examples: Iterable[Mapping[str, Any]],
    settings: Settings | None,
    overrides: Mapping[str, Any],
    look: Callable[[Any], None],
) -> None:
    """Show the trainer that `finetune` would set up."""
    from sftlab.train import adapters
    from sftlab.train.dropout import dropping
    from sftlab.train.trainer import make_trainer

    profile = find_profile(profile)
    settings = (settings or Settings()).changed(**overrides).filled(profile)
    examples = check_examples(examples, control=control_tokens(settings.template))
    with quiet_libraries(), randomness_kept(), TemporaryDirectory() as scratch:
        model, tokenizer = adapters.load_base(profile, settings)
        added = teach_tokens(model, tokenizer, template=settings.template)
        limit = model.config.get_text_config().max_position_embeddings
        settings = replace(settings, max_length=min(settings.max_length, limit))
        rows, _ = supervise(examples, tokenizer, settings, max_length=settings.max_length)
        trainer = make_trainer(
            model, tokenizer, rows, settings, added, folder=Path(scratch), save_steps=None
        )
        gc.freeze()  # as `finetune` does: what there is already is not searched for garbage
        try:
            with dropping(trainer.model, settings.dropout):
                look(trainer)
        finally:
            gc.unfreeze()


def _sizes(inputs: Mapping[str, Any]) -> dict[str, int]:
    from sftlab.train.positions import shifted, trimmed

    inputs = dict(inputs)
    labels = inputs.pop("labels")
    kept, _ = trimmed(inputs, shifted(labels))
    ids, mask = inputs["input_ids"], inputs.get("attention_mask")
    packed = mask is None
    return {
        "examples": int((inputs["position_ids"] == 0).sum()) if packed else len(ids),
        "tokens": ids.numel() if packed else int(mask.sum()),
        "positions": kept["input_ids"].numel(),
    }


def _formulas() -> dict:
    """torch counts attention's products on a GPU alone; the same formulas hold on a CPU."""
    import torch
    from torch.utils.flop_counter import sdpa_backward_flop_count, sdpa_flop_count

    def there(query, key, value, *given, **named) -> int:
        return sdpa_flop_count(query, key, value)

    def back(gradient, query, key, value, *given, **named) -> int:
        return sdpa_backward_flop_count(gradient, query, key, value)

    ops = torch.ops.aten
    return {ops._scaled_dot_product_flash_attention_for_cpu: there,
            ops._scaled_dot_product_flash_attention_for_cpu_backward: back}  # fmt: skip
