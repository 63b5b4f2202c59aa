"""Getting text out of a model: many continuations at once, plain completion, few-shot prompts."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import takewhile

_STRETCH = 4  # tokens after which rows that have ended leave their batch
_SPARED = 64  # tokens that a prefix cache must spare: the forward pass that fills it has a price
_FORM = "Q: {q}\nA: {a}"


def generate(
    model,
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
    """The ids that follow each prompt, in the order of the prompts, without the one that ends it.

    What all prompts of a batch begin with, such as shots, is computed once. A batch is continued in
    short stretches, after which the rows that have ended leave it: a third of the time of one
    padded `model.generate` a batch on 4-shot prompts, two thirds on answers.

    `pad`, any id, stands masked on the left of prompts. A row ends early where the model's
    positions do, or `ended` is true of its new ids. `sample` draws each token, with `temperature`
    and from `seed`; the caller's random state is left alone.
    """
    import torch

    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 1 << 62
    stops = model.generation_config.eos_token_id
    stops = {stops} if isinstance(stops, int) else set(stops or ())
    drawing = {"temperature": temperature, "top_k": 0, "top_p": 1.0} if sample else {}
    # With PEFT's virtual tokens in it, a cache can not be continued.
    virtual = any(one.is_prompt_learning for one in getattr(model, "peft_config", {}).values())
    # Prompts of like length share a batch, so that little of it is padding.
    order = sorted(range(len(prompts)), key=lambda n: len(prompts[n]))
    found: list[list[int]] = [[] for _ in prompts]
    gpus = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=gpus), torch.inference_mode():
        torch.manual_seed(seed)
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            texts = [prompts[n] for n in rows]
            width = max(map(len, texts))
            shared, cache = (0, None) if virtual else _prefix(model, texts)
            # prefix | padding, masked | rest
            gaps = [width - len(text) for text in texts]
            ids = [t[:shared] + [pad] * g + t[shared:] for t, g in zip(texts, gaps, strict=True)]
            mask = [[1] * shared + [0] * g + [1] * (width - shared - g) for g in gaps]
            ids, mask = (torch.tensor(one, device=model.device) for one in (ids, mask))
            left = max(1, min(max_new_tokens, positions - width))
            while rows:
                out = model.generate(
                    ids,
                    attention_mask=mask,
                    past_key_values=cache,
                    pad_token_id=pad,
                    do_sample=sample,
                    max_new_tokens=left if virtual else min(_STRETCH, left),
                    return_dict_in_generate=True,
                    **drawing,
                )
                new = out.sequences[:, ids.shape[1] :]
                left -= new.shape[1]
                going = []
                for place, tokens in enumerate(new.tolist()):
                    written = list(takewhile(lambda token: token not in stops, tokens))
                    found[rows[place]] += written
                    if written == tokens and left > 0 and not ended(found[rows[place]]):
                        going.append(place)
                rows = [rows[place] for place in going]
                kept = torch.tensor(going, dtype=torch.long, device=ids.device)
                mask = torch.cat([mask, mask.new_ones(new.shape)], dim=1)[kept]
                ids, cache = out.sequences[kept], out.past_key_values
                if rows and len(rows) < len(new):
                    cache.batch_select_indices(kept)
    return found


def _prefix(model, prompts: Sequence[list[int]]):
    """How many tokens all prompts begin with, at least one left out, and a cache that has read them
    for each prompt; none where that is not worth it."""
    import torch
    from transformers import DynamicCache

    alike = list(takewhile(lambda column: len(set(column)) == 1, zip(*prompts, strict=False)))
    shared = min(len(alike), min(map(len, prompts)) - 1)
    if shared * (len(prompts) - 1) < _SPARED:
        return 0, None
    cache = DynamicCache(config=model.config)
    prefix = torch.tensor([prompts[0][:shared]], device=model.device)
    model(prefix, past_key_values=cache, use_cache=True, logits_to_keep=1)
    cache.batch_repeat_interleave(len(prompts))
    return shared, cache


def complete(
    model,
    tokenizer,
    prompts: Sequence[str],
    *,
    max_new_tokens: int = 24,
    stop: Sequence[str] = (),
    ended: Callable[[str], bool] | None = None,
    **drawing,
) -> list[str]:
    """Continue each prompt as plain text; only the new text is returned.

    A prompt stands behind the tokenizer's BOS. The text ends before the first of `stop`, at the end
    of the document, or after `max_new_tokens`; with `ended` it is continued at least until that is
    true of it. Greedy, unless `sample` draws as in `generate`.
    """
    enough = ended or (lambda text: any(one in text for one in stop))
    decode = partial(tokenizer.decode, skip_special_tokens=True)
    new = generate(
        model,
        [with_bos(tokenizer, prompt) for prompt in prompts],
        pad=tokenizer.pad_token_id or 0,
        max_new_tokens=max_new_tokens,
        ended=lambda ids: enough(decode(ids)),
        **drawing,
    )
    return [t[: min((t.find(s) for s in stop if s in t), default=len(t))] for t in map(decode, new)]


def with_bos(tokenizer, prompt: str) -> list[int]:
    """Ids of a text at the start of a document: BOS in front, once, where there is one."""
    ids = tokenizer(prompt)["input_ids"]
    bos = tokenizer.bos_token_id
    return ids if bos is None or ids[:1] == [bos] else [bos, *ids]


def few_shot(shots: Sequence[tuple[str, str]], question: str, *, form: str = _FORM) -> str:
    """Answered questions, each after a blank line, then the one to answer, cut after `A:`.

    The prompt ends without a space: byte-level tokenizers put it into the answer's first token.
    """
    if "{q}" not in form or not form.endswith("{a}"):
        raise ValueError(f"form {form!r} must hold {{q}} and end with {{a}}")
    blocks = [form.format(q=q, a=a) for q, a in shots]
    return "\n\n".join([*blocks, form.format(q=question, a="").rstrip(" ")])


def behind_prompt(
    model,
    tokenizer,
    shots: Sequence[tuple[str, str]],
    *,
    form: str = _FORM,
    max_new_tokens: int = 10,
) -> Callable[[list[str]], list[str]]:
    """A function from questions to the first line that follows a few-shot prompt with each."""

    def ask(questions: list[str]) -> list[str]:
        prompts = [few_shot(shots, question, form=form) for question in questions]
        # A model that writes a line end first has its answer on the next line.
        how = {"ended": lambda text: "\n" in text.lstrip(), "max_new_tokens": max_new_tokens}
        outputs = complete(model, tokenizer, prompts, **how)
        return [output.strip().split("\n")[0] for output in outputs]

    return ask
