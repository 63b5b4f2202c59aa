"""Many continuations at once: what prompts share is computed once, and rows that end drop out.

A batch is as slow as its longest row: one that rambles for 24 tokens would cost a hundred answers
of three tokens another 21 steps each. So a batch is continued in short stretches; after each, the
rows that have ended leave it, and the others go on from the cache of their keys and values.
"""

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # imported where used: a lesson that reads its results back needs neither
    import torch
    from transformers import PreTrainedModel

SHARED = 3
"""Tokens that all prompts of a batch must begin with before they are computed once for all."""
SPARED = 64
"""Tokens that this must spare: a forward call of its own has a price."""
STRETCH = 4
"""Tokens after which rows that have ended leave their batch."""


def generate(
    model: "PreTrainedModel",
    prompts: Sequence[list[int]],
    *,
    pad: int,
    max_new_tokens: int,
    ended: Callable[[list[int]], bool] = lambda new: False,
    batch_size: int = 128,
    sample: bool = False,
    temperature: float = 1.0,
    seed: int = 0,
) -> list[list[int]]:
    """The ids that follow each prompt, in the order of the prompts.

    Args:
        model: in evaluation mode; its generation config names the tokens that end a row.
        prompts: ids, each at least one.
        pad: any id of the vocabulary; it stands on the left, behind the mask.
        max_new_tokens: stop here if a row has not ended; fewer where the model's positions end.
        ended: whether a row needs no further tokens, by those that it has.
        batch_size: prompts at a time.
        sample: draw each token instead of taking the likeliest, with `temperature` and from `seed`;
            the caller's random state is left alone.

    Returns:
        For each prompt up to `max_new_tokens` ids, without the one that ended it.
    """
    import torch

    config = model.config.get_text_config()
    positions = getattr(config, "max_position_embeddings", None) or sys.maxsize
    stops = model.generation_config.eos_token_id
    stops = {stops} if isinstance(stops, int) else set(stops or ())
    # Prompts of like length share a batch, so that little of it is padding.
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    found: list[list[int]] = [[] for _ in prompts]
    draw = {"do_sample": False}
    if sample:
        draw = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
    cards = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cards), torch.inference_mode():
        torch.manual_seed(seed)
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            batch = _batch(model, [prompts[index] for index in rows], pad)
            left = max(1, min(max_new_tokens, positions - batch["input_ids"].shape[1]))
            while rows:
                some = min(STRETCH, left) if _can_go_on(model) else left
                width = batch["input_ids"].shape[1]
                out = model.generate(
                    **batch, **draw, max_new_tokens=some, pad_token_id=pad,
                    return_dict_in_generate=True,
                )  # fmt: skip
                left -= some
                open_rows = []
                for place, new in enumerate(out.sequences[:, width:].tolist()):
                    end = next((n for n, token in enumerate(new) if token in stops), None)
                    found[rows[place]] += new[:end]
                    if end is None and left and not ended(found[rows[place]]):
                        open_rows.append(place)
                if open_rows:
                    batch = _those(batch, out, open_rows)
                rows = [rows[place] for place in open_rows]
    return found


def _can_go_on(model: Any) -> bool:
    """Whether a batch may be continued from its cache: not with PEFT's virtual tokens in it."""
    adapters = getattr(model, "peft_config", None)
    adapters = adapters.values() if isinstance(adapters, dict) else ()
    return not any(getattr(one, "is_prompt_learning", False) for one in adapters)


def _those(batch: dict[str, Any], out: Any, rows: list[int]) -> dict[str, Any]:
    """The next stretch of some rows of a batch: all of their ids, and the cache that they have."""
    import torch

    ids, cache = out.sequences, out.past_key_values
    mask = batch["attention_mask"]
    mask = torch.cat([mask, mask.new_ones(len(ids), ids.shape[1] - mask.shape[1])], dim=1)
    if len(rows) < len(ids):
        kept = torch.tensor(rows, device=ids.device)
        ids, mask = ids[kept], mask[kept]
        cache.batch_select_indices(kept)
    return {"input_ids": ids, "attention_mask": mask, "past_key_values": cache}


def _batch(model: "PreTrainedModel", ids: list[list[int]], pad: int) -> dict[str, Any]:
    """A batch, padded on the left after what all of its rows begin with.

    shared | pad pad | rest      the keys and values of what is shared are computed once; the mask
    shared |     pad | rest      is 0 where there is padding, so that positions are counted past it
    """
    import torch

    shared = _shared(ids) if _can_go_on(model) else 0
    width = max(map(len, ids)) - shared
    rest = torch.full((len(ids), width), pad)
    mask = torch.zeros_like(rest)
    for row, one in enumerate(ids):
        rest[row, width - len(one) + shared :] = torch.tensor(one[shared:])
        mask[row, width - len(one) + shared :] = 1
    rest, mask = rest.to(model.device), mask.to(model.device)
    if not shared:
        return {"input_ids": rest, "attention_mask": mask}
    prefix = torch.tensor([ids[0][:shared]], device=model.device)
    cache = _keys_and_values(model, prefix, copies=len(ids))
    prefix = prefix.expand(len(ids), -1)
    return {
        "input_ids": torch.cat([prefix, rest], dim=1),
        "attention_mask": torch.cat([torch.ones_like(prefix), mask], dim=1),
        "past_key_values": cache,
    }


def _shared(ids: list[list[int]]) -> int:
    """How many tokens all rows begin with, at least one left out; 0 when it is not worth it."""
    first, last = min(ids), max(ids)  # in the order of texts: the two that differ first
    shared = next(
        (n for n, (a, b) in enumerate(zip(first, last, strict=False)) if a != b),
        min(map(len, ids)),
    )
    shared = min(shared, min(map(len, ids)) - 1)
    return shared if shared >= SHARED and shared * (len(ids) - 1) >= SPARED else 0


def _keys_and_values(model: "PreTrainedModel", prefix: "torch.Tensor", *, copies: int) -> Any:
    """A cache that has read the prefix, (1, tokens), for as many rows."""
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config)
    model(prefix, past_key_values=cache, use_cache=True, logits_to_keep=1)
    cache.batch_repeat_interleave(copies)
    return cache
