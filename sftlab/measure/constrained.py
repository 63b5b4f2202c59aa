"""Constrained decoding: at each step only a token with which the text can still become valid.

    pattern   \\{"capital": "[A-Z][a-z]+"\\}
    so far    {"capital": "Pa
    likeliest next tokens:  is   ris   ":   ...     the first that keeps to the pattern is taken
                            yes

Nothing is trained. A pattern can force the form of an answer, never its truth.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sftlab.measure.generation import with_bos

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LONGEST = 40
"""Characters of a text whose schema names no `maxLength`."""


class PatternError(ValueError):
    """A schema from which no pattern is made."""


def schema_pattern(schema: Mapping[str, Any]) -> str:
    """A regular expression whose every match fits the schema; keys stand in the schema's order.

    For objects whose properties are all required, of texts (with `enum`, `pattern` of a class of
    characters such as `^[a-z ]+$`, `maxLength`), integers, booleans, and such objects again.

    Raises:
        PatternError: the schema asks for something else.
    """
    if "enum" in schema:
        return "(?:" + "|".join(re.escape(json.dumps(value)) for value in schema["enum"]) + ")"
    kind = schema.get("type")
    if kind == "string":
        most = schema.get("maxLength", LONGEST)
        least = max(1, schema.get("minLength", 1))
        letters = schema.get("pattern", r'^[^"\\\x00-\x1f]+$')
        if not (letters.startswith("^[") and letters.endswith("]+$")):
            raise PatternError(f"pattern {letters!r}: use a class of characters, as ^[a-z ]+$")
        return f'"{letters[1:-2]}{{{least},{most}}}"'
    if kind == "integer":
        return r"-?(?:0|[1-9][0-9]{0,8})"
    if kind == "boolean":
        return "(?:true|false)"
    if kind == "object" and "properties" in schema:
        optional = set(schema["properties"]) - set(schema.get("required", ()))
        if optional:
            raise PatternError(
                f"property {min(optional)!r} is not required: require it, or drop it"
            )
        parts = [f"{re.escape(json.dumps(name))}: {schema_pattern(one)}"
                 for name, one in schema["properties"].items()]  # fmt: skip
        return r"\{" + ", ".join(parts) + r"\}"
    raise PatternError(
        f"{json.dumps(dict(schema))[:80]}: no pattern is made of this kind of schema"
    )


def complete_within(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[str],
    *,
    pattern: str | Sequence[str],
    max_new_tokens: int = 80,
    batch_size: int = 64,
) -> list[str]:
    """Continue each prompt greedily with the likeliest tokens that keep to the pattern.

    A row ends when its text matches and no longer one that begins with it would; where both would
    do, the model's own end of text decides. Each text keeps to the pattern, whole unless it is cut
    at `max_new_tokens`. Texts come without the space that a tokenizer puts in front. `pattern` is
    one for all prompts, or one for each.

    Raises:
        PatternError: there are not as many patterns as prompts.
    """
    import regex
    import torch

    patterns = [pattern] * len(prompts) if isinstance(pattern, str) else list(pattern)
    if len(patterns) != len(prompts):
        raise PatternError(f"{len(patterns)} patterns for {len(prompts)} prompts: give one each")
    rules = [regex.compile(one) for one in patterns]
    words = [tokenizer.decode([n]) for n in range(len(tokenizer))]
    stops = model.generation_config.eos_token_id
    stops = {stops} if isinstance(stops, int) else set(stops or ())
    special = stops | set(tokenizer.all_special_ids)
    found: list[str] = []
    for start in range(0, len(prompts), batch_size):
        ids = [with_bos(tokenizer, prompt) for prompt in prompts[start : start + batch_size]]
        width = max(map(len, ids))
        batch = torch.zeros((len(ids), width), dtype=torch.long)
        mask = torch.zeros_like(batch)
        for row, one in enumerate(ids):
            batch[row, width - len(one) :] = torch.tensor(one)
            mask[row, width - len(one) :] = 1
        batch, mask, cache = batch.to(model.device), mask.to(model.device), None
        texts, open_rows = [""] * len(ids), set(range(len(ids)))
        with torch.inference_mode():
            for _ in range(max_new_tokens):
                places = (mask.cumsum(1) - 1).clamp(min=0)[:, -batch.shape[1] :]
                out = model(input_ids=batch, attention_mask=mask, position_ids=places,
                            past_key_values=cache, use_cache=True)  # fmt: skip
                cache = out.past_key_values
                order = out.logits[:, -1].float().argsort(descending=True).tolist()
                chosen = [0] * len(ids)
                for row in sorted(open_rows):
                    token = _next(order[row], texts[row], rules[start + row], words, special, stops)
                    if token is None:
                        open_rows.discard(row)
                        continue
                    chosen[row] = token
                    texts[row] = (texts[row] + words[token]).lstrip(" ")
                if not open_rows:
                    break
                batch = torch.tensor(chosen, device=batch.device)[:, None]
                mask = torch.cat([mask, torch.ones_like(batch)], dim=1)
        found += texts
    return found


def _next(
    order: list[int], text: str, rule, words: list[str], special: set[int], stops: set[int]
) -> int | None:
    """The likeliest token that keeps to the rule; None where the text ends."""
    whole = bool(rule.fullmatch(text))
    for token in order:
        if token in special:
            if whole and token in stops:
                return None
            continue
        # The first token may bring the space that stands between prompt and text.
        new = text + words[token] if text else words[token].lstrip(" ")
        # A token may be a part of a letter: alone it is none, so such letters are not written.
        if new != text and "\ufffd" not in words[token] and rule.fullmatch(new, partial=True):
            return token
    return None
