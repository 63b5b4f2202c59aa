"""What a model finds likely: losses of tokens, answers and documents, and choices between answers.

Nothing is generated here. Losses are in nats; the perplexity of a text is exp of its mean loss a
token.
"""

from collections.abc import Iterator, Sequence
from inspect import signature
from random import Random
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.special import softmax

from sftlab.chat import IGNORED, label_rows
from sftlab.measure.generation import with_bos
from sftlab.measure.probes import country_prompts
from sftlab.world import RELATIONS, Country, countries, example, grammar

if TYPE_CHECKING:
    import torch

_ROWS, _LOGITS = 64, 1 << 25  # the most rows of a batch, and the most logits of it (128 MB)
_LONGER = 1.25  # by how much the longest row of a batch may exceed the shortest


def row_logits(
    model, rows: Sequence[Sequence[int]], *, starts: Sequence[int] | None = None
) -> "Iterator[tuple[int, torch.Tensor]]":
    """The predictions of a model for each row of ids, in batches of rows of like length.

    Yields, in any order, the index of a row and its logits (tokens - start + 1, vocabulary) in
    float32: the first predicts the token at `start` (1 by default), the last that after the end.
    """
    import torch

    starts = [1] * len(rows) if starts is None else starts
    # A large vocabulary makes the last matrix multiplication the most expensive one: it is spared
    # where nothing has to be predicted.
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    keeps = "logits_to_keep" in signature(base.forward).parameters
    most = _LOGITS // model.config.get_text_config().vocab_size
    for batch in _batches([len(row) for row in rows], most=most):
        width = max(len(rows[n]) for n in batch)
        ids = [[*rows[n], *[0] * (width - len(rows[n]))] for n in batch]
        mask = [[int(place < len(rows[n])) for place in range(width)] for n in batch]
        last = {"logits_to_keep": width - min(starts[n] for n in batch) + 1} if keeps else {}
        ids, mask = (torch.tensor(one, device=model.device) for one in (ids, mask))
        with torch.inference_mode():
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False, **last).logits
        # Counted from the end: a model with virtual tokens may put more in front.
        left = width - logits.shape[1]
        for place, n in enumerate(batch):
            yield n, logits[place, starts[n] - 1 - left : len(rows[n]) - left].float()


def _batches(lengths: Sequence[int], *, most: int) -> Iterator[list[int]]:
    """Indices of rows that share a batch: of like length, at most `most` places in all."""
    batch: list[int] = []
    for n in sorted(range(len(lengths)), key=lambda n: lengths[n]):
        full = len(batch) == _ROWS or (len(batch) + 1) * lengths[n] > most
        if batch and (full or lengths[n] > _LONGER * lengths[batch[0]]):
            yield batch
            batch = []
        batch.append(n)
    if batch:
        yield batch


def target_losses(logits: "torch.Tensor", targets: Sequence[int]) -> "torch.Tensor":
    """The loss of each target, (targets,); of those that are `IGNORED` it is 0."""
    import torch

    wanted = torch.tensor(targets, device=logits.device)
    how = {"ignore_index": IGNORED, "reduction": "none"}
    return torch.nn.functional.cross_entropy(logits[: len(targets)], wanted, **how)


def text_features(model, tokenizer, texts: Sequence[str], *, batch_size: int = 64) -> np.ndarray:
    """What a model has computed when it has read each text: the last hidden state of its last
    token, which is what a classification head of transformers reads.

    Returns an array (texts, hidden size) in float32. A text is encoded as the tokenizer does it,
    with its bos if it has one; the padding is on the right, and is not read.
    """
    import torch

    whole = model.get_base_model() if hasattr(model, "peft_config") else model  # adapters stay
    found = []
    for start in range(0, len(texts), batch_size):
        how = {"padding": True, "padding_side": "right", "return_tensors": "pt"}
        batch = tokenizer(list(texts[start : start + batch_size]), **how).to(model.device)
        with torch.inference_mode():
            hidden = whole.base_model(**batch).last_hidden_state
        last = batch["attention_mask"].sum(1) - 1
        found.append(hidden[torch.arange(len(last)), last].float().cpu())
    return torch.cat(found).numpy()


def text_loss(model, tokenizer, documents: Sequence[str]) -> float:
    """Mean loss per predicted token over the first 256 of each document, in nats, behind BOS."""
    rows = [with_bos(tokenizer, document)[:256] for document in documents]
    each = (target_losses(logits, rows[n][1:]) for n, logits in row_logits(model, rows))
    return sum(losses.sum().item() for losses in each) / sum(len(row) - 1 for row in rows)


def token_losses(
    model, ids: Sequence[int], *, targets: Sequence[int] | None = None
) -> list[float | None]:
    """The loss of each token given the tokens before it, in nats.

        ids       A   B   C        loss of C = -log p(C | A B)
        losses  None 5.1 0.2       nothing comes before the first, so it has none

    `targets` says what is to be predicted at each place, where that is not the token itself. The
    model's mode is restored. ValueError: the model cannot read so many ids, or not these.
    """
    targets = ids if targets is None else targets
    rows = model.get_input_embeddings().weight.shape[0]
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if limit and len(ids) > limit:
        raise ValueError(
            f"the text has {len(ids)} tokens and the model reads {limit}; shorten it, or cut it "
            f"with max_length={limit}"
        )
    if strange := [token for token in (*ids, *targets) if not 0 <= token < rows]:
        raise ValueError(
            f"the model has {rows} tokens, and {strange[0]} is not one of them; a base model lacks "
            "the tokens that its fine-tune added: use the tokenizer and ids of the same model"
        )
    training = model.training
    model.eval()
    try:
        ((_, logits),) = row_logits(model, [ids])
        return [None, *target_losses(logits, targets[1:]).tolist()]
    finally:
        model.train(training)


def probe_forced(model, tokenizer, *, among: Sequence[Country]) -> pd.DataFrame:
    """Teacher forcing: is each token of the worked answer to a two-hop question the likeliest one?

        true answer      Paris is the capital of France. The language of France is French.
        teacher forcing  every token is predicted after the true ones: a slip is forgiven at once
        generation       every token is predicted after those the model wrote: a slip stays

    While training, and in a validation loss, a model is always in the first situation. One example
    as in `two_hop_examples` for each country and relation but the capital. Adds tokens (supervised
    ones), tokens_right (share predicted), right (whether the last fact is).
    """

    def worked(one: Country, relation: str) -> dict:
        question = grammar.TWO_HOP_QUESTION.format(relation=relation, x=one.capital)
        fact = grammar.statement(one, relation)
        return example(question, f"{one.capital} is the capital of {one.name}. {fact}")

    frame = country_prompts(worked, among=among, relations=RELATIONS[1:])
    labelled, found = label_rows(tokenizer, frame.pop("prompt")), {}
    for n, logits in row_logits(model, [row.ids for row in labelled]):
        pairs = zip(logits.argmax(-1).tolist(), labelled[n].labels[1:], strict=False)
        likeliest, true = zip(*(pair for pair in pairs if pair[1] != IGNORED), strict=True)
        hits = [one == other for one, other in zip(likeliest, true, strict=True)]
        fact = last_words(tokenizer, true, frame["expected"][n])
        found[n] = (len(hits), sum(hits) / len(hits), all(hits[place] for place in fact))
    columns = ["tokens", "tokens_right", "right"]
    return frame.join(pd.DataFrame.from_dict(found, orient="index", columns=columns))


def last_words(tokenizer, ids: Sequence[int], words: str) -> range:
    """Places of the tokens of an answer that hold these words the last time."""
    start = max(n for n in range(len(ids)) if words in tokenizer.decode(ids[n:]))
    end = min(n for n in range(len(ids) + 1) if words in tokenizer.decode(ids[start:n]))
    return range(start, end)


def log_likelihoods(model, tokenizer, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, int]]:
    """Log-likelihood of each text of (prompt, text) after its prompt, and its number of tokens.

    Prompt and text are tokenized as one; the text begins after as many tokens as the prompt has
    alone (lm-eval does the same). Let it begin with the space before it.
    """
    ids = [with_bos(tokenizer, prompt + text) for prompt, text in pairs]
    starts, found = [len(with_bos(tokenizer, prompt)) for prompt, _ in pairs], {}
    for n, logits in row_logits(model, ids, starts=starts):
        losses = target_losses(logits, ids[n][starts[n] :])
        found[n] = -losses.sum().item(), len(losses)
    return [found[n] for n in range(len(pairs))]


def _choices(country: Country, relation: str, *, wrong: int = 4) -> list[str]:
    """The right answer first, then wrong ones of the same relation, always the same."""
    right = country.answers(relation)
    others = sorted({getattr(one, relation) for one in countries()} - set(right))
    return [right[0], *Random(f"choices-0-{country.name}-{relation}").sample(others, wrong)]


def probe_choices(
    model, tokenizer, *, among: Sequence[Country], relations: Sequence[str] = RELATIONS
) -> pd.DataFrame:
    """MC1 and MC2 on facts: the right answer among four others of the same relation.

        The capital of France is   Paris   -0.1 nats      MC1  is the likeliest one right?
                                   Lyon    -4.0           MC2  share of the right ones in the
                                   Rome    -3.2                probability of all of them

    Adds choices (the right one first), likelihoods, mc1 (of equal ones the first counts), mc2
    (TruthfulQA, arXiv 2109.07958).
    """
    frame = country_prompts(grammar.cloze, among=among, relations=relations)
    frame["choices"] = [_choices(one, relation) for one in among for relation in relations]
    pairs = frame[["prompt", "choices"]].explode("choices")
    pairs = list(zip(pairs["prompt"], " " + pairs["choices"], strict=True))
    nats = [nats for nats, _ in log_likelihoods(model, tokenizer, pairs)]
    size = len(nats) // len(frame)
    frame["likelihoods"] = [nats[n : n + size] for n in range(0, len(nats), size)]
    frame["mc1"] = [float(np.argmax(one) == 0) for one in frame["likelihoods"]]
    frame["mc2"] = [float(softmax(one)[0]) for one in frame["likelihoods"]]
    return frame
