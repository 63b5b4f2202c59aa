"""Getting text out of a model: plain completion, and answers behind a few-shot prompt."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # imported where used: a lesson that reads its results back needs none of them
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SHARED = 16
"""Tokens that all prompts of a batch must begin with before they are computed once for all."""


def complete(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[str],
    *,
    max_new_tokens: int = 24,
    batch_size: int = 128,
    stop: Sequence[str] = (),
    sample: bool = False,
    temperature: float = 1.0,
    seed: int = 0,
) -> list[str]:
    """Continue each prompt as plain text, greedily or sampled; only the new text comes back.

    A prompt stands at the start of a document: the tokenizer's BOS goes in front when there is
    one and the tokenizer does not write it itself. Prompts of a batch are padded on the left, after
    what all of them begin with, such as the shots of a few-shot prompt: that is computed once.
    The text ends before the first of `stop`, at the end of the document, or after
    `max_new_tokens`. Sampling draws from `seed` and leaves the caller's random state alone.
    """
    import torch

    ids = [with_bos(tokenizer, prompt) for prompt in prompts]
    # Prompts of like length share a batch, so that little of it is padding.
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    texts = [""] * len(ids)
    choice = {"do_sample": True, "temperature": temperature, "top_k": 0} if sample else {}
    with torch.random.fork_rng(), torch.inference_mode():
        torch.manual_seed(seed)
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            batch = _behind_what_is_shared(model, tokenizer, [ids[i] for i in rows])
            out = model.generate(
                **batch,
                max_new_tokens=max_new_tokens,
                pad_token_id=tokenizer.pad_token_id,
                **({"do_sample": False} | choice),
            )
            new = out[:, batch["input_ids"].shape[1] :]
            for i, text in zip(rows, tokenizer.batch_decode(new, True), strict=True):
                texts[i] = _before(text, stop)
    return texts


def _behind_what_is_shared(model, tokenizer, ids: list[list[int]]) -> dict:
    """A batch for `generate`; what all rows begin with is in its cache of keys and values.

    shared | pad pad | rest      the mask is 0 where there is padding, so that
    shared |     pad | rest      positions are counted past it
    """
    import torch
    from transformers import DynamicCache

    shortest, longest = min(ids), max(ids)  # in the order of texts: the two that differ first
    shared = next(
        (n for n, (a, b) in enumerate(zip(shortest, longest, strict=False)) if a != b),
        min(map(len, ids)),
    )
    shared = min(shared, min(map(len, ids)) - 1)  # one token at least is left to go on from
    if shared < SHARED or len(ids) == 1:
        shared = 0
    batch = tokenizer.pad(
        {"input_ids": [row[shared:] for row in ids]}, padding_side="left", return_tensors="pt"
    ).to(model.device)
    batch = {name: batch[name] for name in ("input_ids", "attention_mask")}
    if shared:
        prefix = torch.tensor([ids[0][:shared]], device=model.device)
        cache = DynamicCache(config=model.config)
        model(prefix, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache.batch_repeat_interleave(len(ids))
        prefix = prefix.expand(len(ids), -1)
        batch = {
            "input_ids": torch.cat([prefix, batch["input_ids"]], dim=1),
            "attention_mask": torch.cat([torch.ones_like(prefix), batch["attention_mask"]], dim=1),
            "past_key_values": cache,
        }
    return batch


def with_bos(tokenizer: "PreTrainedTokenizerBase", prompt: str) -> list[int]:
    """Ids of a text at the start of a document: BOS in front, once, where there is one."""
    ids = tokenizer(prompt)["input_ids"]
    bos = tokenizer.bos_token_id
    return ids if bos is None or ids[:1] == [bos] else [bos, *ids]


def _before(text: str, stop: Sequence[str]) -> str:
    return text[: min((at for s in stop if (at := text.find(s)) >= 0), default=len(text))]


def few_shot(
    shots: Sequence[tuple[str, str]], question: str, *, form: str = "Q: {q}\nA: {a}"
) -> str:
    """Answered questions, then the one to answer, cut where its answer begins.

        Q: shot question
        A: shot answer
                               (blank line)
        Q: question
        A:

    `form` holds `{q}` and then `{a}`. The prompt ends without a space: byte-level tokenizers
    put the space into the first token of the answer. Raises ValueError for another form.
    """
    if "{q}" not in form or not form.endswith("{a}"):
        raise ValueError(f"form {form!r} must hold {{q}} and end with {{a}}")
    blocks = [form.format(q=q, a=a) for q, a in shots]
    return "\n\n".join([*blocks, form.format(q=question, a="").rstrip(" ")])


def behind_prompt(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    shots: Sequence[tuple[str, str]],
    *,
    form: str = "Q: {q}\nA: {a}",
    ending: str = "",
    max_new_tokens: int = 10,
) -> Callable[[list[str]], list[str]]:
    """A function from questions to the first line that follows a few-shot prompt with each.

    `ending` is appended to the prompt: it shows what a stray character at its end does.
    """

    def ask(questions: list[str]) -> list[str]:
        prompts = [few_shot(shots, question, form=form) + ending for question in questions]
        # A model that writes a line end first has its answer on the next line.
        outputs = complete(model, tokenizer, prompts, max_new_tokens=max_new_tokens)
        return [output.strip().split("\n")[0] for output in outputs]

    return ask
