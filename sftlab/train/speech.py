"""Give a base model and its tokenizer what a conversation needs: template, end of turn, padding."""

from typing import TYPE_CHECKING

from sftlab.chat.templates import CONTROL_TOKENS, END_OF_TURN, TEMPLATES

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def teach_tokens(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", *, template: str
) -> list[str]:
    """Set up a freshly loaded pair in place; return the tokens that had to be added.

    A vocabulary without the template's control tokens gets them, each starting at the mean of all
    embeddings. The end of turn becomes the tokenizer's eos, and generation stops at it and at the
    base's own eos; padding gets a token that is neither, or the base's eos, which no conversation
    contains (were the end of turn the padding, a collator that masks padding would mask the stops).
    """
    from transformers import GenerationConfig

    base_eos, end = tokenizer.eos_token, END_OF_TURN[template]
    pad = tokenizer.pad_token
    if pad is None or pad in (base_eos, end):
        pad = base_eos if base_eos not in (None, end) else "<|pad|>"
    vocabulary = tokenizer.get_vocab()
    added = [token for token in (*CONTROL_TOKENS[template], pad) if token not in vocabulary]
    if added:
        tokenizer.add_special_tokens({"additional_special_tokens": added})
        grow_embeddings(model, len(tokenizer))
    tokenizer.pad_token = pad
    text = TEMPLATES[template]
    if writes_bos(tokenizer):  # the template is tokenised without special tokens, so it writes it
        text = "{{- bos_token }}" + text
    tokenizer.chat_template = text

    base_stops = model.generation_config.eos_token_id
    stops = [base_stops] if isinstance(base_stops, int) else list(base_stops or [])
    if base_eos is not None:
        stops.append(tokenizer.convert_tokens_to_ids(base_eos))
    tokenizer.eos_token = end
    # A plain generation config: a hub model's own may sample, or carry values that only warn.
    model.generation_config = GenerationConfig(
        eos_token_id=list(dict.fromkeys([tokenizer.eos_token_id, *stops])),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
    )
    # Said here, or the trainer says it itself, with a warning.
    config = model.config.get_text_config()
    config.eos_token_id, config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    config.bos_token_id = tokenizer.bos_token_id
    return added


def writes_bos(tokenizer: "PreTrainedTokenizerBase") -> bool:
    """Whether the tokenizer puts its bos before every text, as Llama's does."""
    ids = tokenizer("a")["input_ids"]
    return tokenizer.bos_token_id is not None and ids[:1] == [tokenizer.bos_token_id]


def grow_embeddings(model: "PreTrainedModel", size: int) -> None:
    """Make room for `size` tokens, new rows at the mean of the old; never shrinks.

    Some models (Qwen's) have more rows than tokens: they are left as they are.
    """
    import torch

    old = model.get_input_embeddings().weight.shape[0]
    if size <= old:
        return
    # mean_resizing draws the rows from a distribution fitted to the old ones: random, and slow.
    model.resize_token_embeddings(size, mean_resizing=False)
    with torch.no_grad():
        for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
            layer.weight[old:] = layer.weight[:old].mean(dim=0)
