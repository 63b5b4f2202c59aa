"""Set up a base model and its tokenizer for a chat template."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from sftlab.chat.spans import MARKER, find_turn_end
from sftlab.chat.templates import FAMILIES, find_template

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def control_tokens(template: str) -> tuple[str, ...]:
    """The tokens by which a family structures a conversation; no content may hold them."""
    return tuple(FAMILIES[template].control_tokens) if template in FAMILIES else ()


def setup_chat_template(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", *, template: str
) -> list[str]:
    """Set up a freshly loaded pair in place, the tokenizer as by `setup_tokenizer`; return the
    tokens that had to be added. Generation stops at the end of turn and at the base's own eos."""
    from transformers import GenerationConfig

    base_eos = tokenizer.eos_token
    added = setup_tokenizer(tokenizer, template=template)
    resize_embeddings(model, tokenizer, added)
    base_stops = model.generation_config.eos_token_id
    stops = [base_stops] if isinstance(base_stops, int) else list(base_stops or [])
    if base_eos is not None:
        stops.append(tokenizer.convert_tokens_to_ids(base_eos))
    # A plain generation config: a hub model's own may sample, or carry values that only warn.
    model.generation_config = GenerationConfig(
        eos_token_id=list(dict.fromkeys([tokenizer.eos_token_id, *stops])),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
    )
    config = model.config.get_text_config()
    for key in ("eos_token_id", "pad_token_id", "bos_token_id"):
        setattr(config, key, getattr(tokenizer, key))  # or the trainer does it, with a warning
    return added


def setup_tokenizer(tokenizer: "PreTrainedTokenizerBase", *, template: str) -> list[str]:
    """Give a tokenizer a chat template, in place; return the tokens that had to be added.

    What ends a turn (the family's, or what another template is seen to write, or else the eos)
    becomes the tokenizer's eos; padding gets a token that is neither, or the base's eos where that
    ends no turn: a collator that masks padding would else mask the stops. `template="own"` is the
    tokenizer's own, which stays as it is.
    """
    own = template == "own"
    base_eos, pad = tokenizer.eos_token, tokenizer.pad_token
    bos = tokenizer.bos_token or ""
    found = find_template(template, tokenizer=tokenizer if own else None)
    found = replace(found, bos_token=bos, eos_token=base_eos or "")
    if template in FAMILIES:
        end = FAMILIES[template].end(base_eos)
    else:
        turn = find_turn_end(found)
        end = turn.token or base_eos or "<|end|>"
        markers = re.findall(MARKER, end)
        if base_eos and base_eos == (turn.last or "").strip():  # gpt-oss: only its last turn stops
            end = base_eos
        elif "".join(markers) == end:  # of several generation stops at the last
            end = markers[-1]
    if pad is None or pad in (base_eos, end):
        pad = base_eos if base_eos not in (None, end) else "<|pad|>"
    vocabulary = tokenizer.get_vocab()
    wanted = dict.fromkeys([*control_tokens(template), end, pad])
    added = [token for token in wanted if token not in vocabulary]
    if added:
        tokenizer.add_special_tokens({"additional_special_tokens": added})
    tokenizer.pad_token = pad
    # The render is tokenised without special tokens, so it writes the bos itself if the tokenizer
    # puts its bos before every text, as Llama's does.
    text, talk = found.text, [{"role": role, "content": "a"} for role in ("user", "assistant")]
    writes = bos and tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
    if writes and not own and not found.render(talk).startswith(bos):
        text = "{{- bos_token }}" + text
    tokenizer.chat_template = text
    tokenizer.eos_token = end
    return added


def resize_embeddings(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", added: Sequence[str]
) -> None:
    """Make room for the `added` tokens of a tokenizer, whose rows start at the mean of those of its
    other tokens, also where they are padding of the model's (Qwen's); never shrinks."""
    import torch

    if not added:
        return
    ids, new = tokenizer.get_vocab().values(), tokenizer.convert_tokens_to_ids(list(added))
    old, size = sorted({*ids} - {*new}), max(ids) + 1
    if size > model.get_input_embeddings().weight.shape[0]:
        # mean_resizing draws the rows from a distribution fitted to the old ones: random, and slow.
        model.resize_token_embeddings(size, mean_resizing=False)
    with torch.no_grad():
        for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
            for weight in layer.parameters():  # a head may have a bias
                weight[new] = weight[old].mean(dim=0)
