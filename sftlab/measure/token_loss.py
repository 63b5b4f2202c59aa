"""The loss of each single token of a text, by a model."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def token_losses(
    model: "PreTrainedModel", ids: Sequence[int], *, targets: Sequence[int] | None = None
) -> list[float | None]:
    """How surprised the model is by each token, in nats, given the tokens before it.

        ids       A   B   C        loss of C = -log p(C | A B)
        losses  None 5.1 0.2       nothing comes before the first, so it has none

    The mean over the supervised tokens is the loss that training goes down on.

    Args:
        model: its mode is put back.
        ids: at least one token.
        targets: what is to be predicted at each place, where that is not the token itself.

    Raises:
        ValueError: there is no token, more than the model reads, or one that it does not know.
    """
    import torch

    targets = ids if targets is None else targets
    rows = model.get_input_embeddings().weight.shape[0]
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if not ids or len(ids) != len(targets):
        raise ValueError(f"{len(ids)} ids and {len(targets)} targets; give as many, at least one")
    if limit and len(ids) > limit:
        raise ValueError(
            f"the text has {len(ids)} tokens and the model reads {limit}; shorten it, or cut it "
            f"with max_length={limit}"
        )
    if strange := [token for token in (*ids, *targets) if not 0 <= token < rows]:
        raise ValueError(
            f"the model has {rows} tokens, and {strange[0]} is none of them; a base model lacks the"
            " tokens that its fine-tune added: give the tokenizer and the ids of the same model"
        )
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            given = torch.tensor([ids], device=model.device)
            logits = model(input_ids=given, use_cache=False).logits[0, :-1].float()
            wanted = torch.tensor(targets[1:], device=logits.device)
            losses = torch.nn.functional.cross_entropy(logits, wanted, reduction="none")
    finally:
        model.train(training)
    return [None, *losses.tolist()]
