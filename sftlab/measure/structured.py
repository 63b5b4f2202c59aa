"""Constrained decoding: only tokens with which the text can still become valid are allowed.

    pattern   \\{"capital": "[A-Z][a-z]+"\\}
    so far    {"capital": "Pa
    most likely next tokens:  is   ris   ":   ...     the first that fits the pattern is taken
                              yes

A pattern can force the form of an answer, never its truth.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from sftlab.measure.generation import with_bos


def schema_pattern(schema: Mapping[str, Any]) -> str:
    """A regular expression whose every match fits the schema, with keys in the schema's order.

    For objects whose properties are all required, of strings (with `enum`, `pattern` of a class of
    characters such as `^[a-z ]+$`, `maxLength`) and of nested such objects. ValueError: the schema
    has something else.
    """
    if "enum" in schema:
        return "(?:" + "|".join(re.escape(json.dumps(value)) for value in schema["enum"]) + ")"
    if schema.get("type") == "string":
        letters = schema.get("pattern", r'^[^"\\\x00-\x1f]+$')
        if not (letters.startswith("^[") and letters.endswith("]+$")) or "minLength" in schema:
            raise ValueError(f"{dict(schema)}: a pattern must be like ^[a-z]+$, without minLength")
        letters = letters[1:-2]
        return f'"{letters}{{1,{schema.get("maxLength", 40)}}}"'
    if schema.get("type") != "object" or set(schema.get("properties", ())) != set(
        schema.get("required", ())
    ):
        raise ValueError(
            f"{dict(schema)}: only strings, enum, and objects whose properties are all required "
            "can be made a pattern"
        )
    each = schema["properties"].items()
    parts = [f"{re.escape(json.dumps(name))}: {schema_pattern(one)}" for name, one in each]
    return r"\{" + ", ".join(parts) + r"\}"


def complete_within(
    model,
    tokenizer,
    prompts: Sequence[str],
    *,
    pattern: str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]],
    max_new_tokens: int = 80,
) -> list[str]:
    """Continue each prompt greedily with the most likely tokens that fit the pattern, or its own.

    A pattern is a regular expression, or a JSON schema that `schema_pattern` takes.
    A row ends when its text matches and no longer one would; where both do, the model's own end of
    text decides. Texts come without the space that a tokenizer puts in front.
    """
    import regex
    import torch

    rules = [pattern] * len(prompts) if isinstance(pattern, str | Mapping) else pattern
    rules = [one if isinstance(one, str) else schema_pattern(one) for one in rules]
    rules = [regex.compile(one) for one in rules]
    stops = model.generation_config.eos_token_id
    stops = [stops] if isinstance(stops, int) else list(stops or [tokenizer.eos_token_id])
    special = {*stops, *tokenizer.all_special_ids}
    words = [tokenizer.decode([n]) for n in range(len(tokenizer))]
    rows = [with_bos(tokenizer, prompt) for prompt in prompts]
    width = max(map(len, rows))
    padded = torch.tensor([[stops[0]] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])

    def text_of(ids: list[int]) -> str:
        return "".join(words[n] for n in ids if n not in special).lstrip(" ")

    def next_token(order: list[int], text: str, rule) -> int:
        whole = bool(rule.fullmatch(text))
        for token in order:
            if token in special:
                if whole and token in stops:
                    return token
                continue
            # The first token may bring the space between prompt and text.
            new = text + words[token] if text else words[token].lstrip(" ")
            # A part of a character decodes to U+FFFD: such tokens are not used.
            if new != text and "\ufffd" not in words[token] and rule.fullmatch(new, partial=True):
                return token
        return stops[0]

    def only_fitting(ids, scores):
        """A logits processor: of each row only the chosen token keeps its score."""
        kept = torch.full_like(scores, -torch.inf)
        orders = scores.argsort(descending=True).tolist()
        for row, (order, rule) in enumerate(zip(orders, rules, strict=True)):
            kept[row, next_token(order, text_of(ids[row, width:].tolist()), rule)] = 0
        return kept

    out = model.generate(
        padded.to(model.device),
        attention_mask=mask.to(model.device),
        logits_processor=[only_fitting],
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=stops,
        pad_token_id=stops[0],
    )
    return [text_of(row) for row in out[:, width:].tolist()]
