"""What a model finds likely: losses of tokens, answers and documents, and choices between answers.

Nothing is generated here. Losses are in nats; the perplexity of a text is exp of its mean loss a
token.
"""

from collections.abc import Iterator, Mapping, Sequence
from inspect import signature
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from sftlab.chat import IGNORED, label_rows
from sftlab.measure.generation import with_bos
from sftlab.measure.probes import country_prompts
from sftlab.world import RELATIONS, Country, countries, example, grammar

if TYPE_CHECKING:
    import torch

_ROWS, _LOGITS = 64, 1 << 25
"""The most rows of a batch, and the most logits of it (128 MB): vocabularies differ."""
_LONGER = 1.25
"""By how much the longest row of a batch may exceed the shortest: what is beyond is padding."""


def row_logits(
    model, rows: Sequence[Sequence[int]], *, starts: Sequence[int] | None = None
) -> "Iterator[tuple[int, torch.Tensor]]":
    """The predictions of a model for each row of ids, in batches of rows of like length.

    Yields, in any order, the index of a row and its logits (tokens - start + 1, vocabulary) in
    float32: the first predicts the token at `start` (1 by default), the last that after the end.
    """
    import torch

    starts = [1] * len(rows) if starts is None else starts
    vocabulary = model.config.get_text_config().vocab_size
    # A large vocabulary makes the last matrix multiplication the most expensive one: it is spared
    # where nothing has to be predicted.
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    keeps = "logits_to_keep" in signature(base.forward).parameters
    for batch in _batches([len(row) for row in rows], most=_LOGITS // vocabulary):
        width = max(len(rows[n]) for n in batch)
        gaps = [width - len(rows[n]) for n in batch]
        ids = [[*rows[n], *[0] * gap] for n, gap in zip(batch, gaps, strict=True)]
        mask = [[1] * (width - gap) + [0] * gap for gap in gaps]
        last = {"logits_to_keep": width - min(starts[n] for n in batch) + 1} if keeps else {}
        with torch.inference_mode():
            logits = model(
                input_ids=torch.tensor(ids, device=model.device),
                attention_mask=torch.tensor(mask, device=model.device),
                use_cache=False,
                **last,
            ).logits
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


def text_loss(model, tokenizer, documents: Sequence[str], *, max_length: int = 256) -> float:
    """Mean loss per predicted token over the documents, in nats; each begins with BOS."""
    rows = [with_bos(tokenizer, document)[:max_length] for document in documents]
    total = sum(
        target_losses(logits, rows[n][1:]).sum().item() for n, logits in row_logits(model, rows)
    )
    return total / sum(len(row) - 1 for row in rows)


def token_losses(
    model, ids: Sequence[int], *, targets: Sequence[int] | None = None
) -> list[float | None]:
    """The loss of each token given the tokens before it, in nats.

        ids       A   B   C        loss of C = -log p(C | A B)
        losses  None 5.1 0.2       nothing comes before the first, so it has none

    `targets` says what is to be predicted at each place, where that is not the token itself. The
    model's training or evaluation mode is restored afterwards.

    Raises:
        ValueError: no token, more tokens than the model reads, or ids outside its vocabulary.
    """
    targets = ids if targets is None else targets
    rows = model.get_input_embeddings().weight.shape[0]
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if not ids:
        raise ValueError("the text has no token: give at least one")
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


def probe_perplexity(model, tokenizer, rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The loss of each conversation's answers, in the tokenizer's chat template.

    Columns: conversation (its index), tokens (supervised ones, ends of turn among them), characters
    (of the answers), nats (their sum). The perplexity of all of them is exp(sum of nats / sum of
    tokens); nats a character can be compared between tokenizers.
    """
    labelled = label_rows(tokenizer, rows)
    nats = {
        n: target_losses(logits, labelled[n].labels[1:]).sum().item()
        for n, logits in row_logits(model, [row.ids for row in labelled])
    }
    return pd.DataFrame(
        {
            "conversation": n,
            "tokens": sum(label != IGNORED for label in labelled[n].labels),
            "characters": sum(
                len(one["content"]) for one in row["messages"] if one["role"] == "assistant"
            ),
            "nats": nats[n],
        }
        for n, row in enumerate(rows)
    )


def probe_right_context(model, tokenizer, *, among: Sequence[Country]) -> pd.DataFrame:
    """How much the loss on a capital falls when the text after it is shown too.

    A masked language model reads both sides of a word; a causal one predicts it from the left
    alone, so nothing that follows can help it. Columns: country, alone (mean loss of the capital's
    tokens, where the text ends with them), followed (the same with a sentence after it that names
    the capital again), gain (alone - followed).
    """
    frame = []
    for country in among:
        before = grammar.cloze(country, "capital")
        text = f"{before} {country.capital}"
        after = f"{text}. {country.capital} is the capital of {country.name}."
        start = len(with_bos(tokenizer, before))
        capital = with_bos(tokenizer, text)[start:]
        row = {"country": country.name}
        for name, whole in (("alone", text), ("followed", after)):
            ((_, logits),) = row_logits(model, [with_bos(tokenizer, whole)], starts=[start])
            row[name] = target_losses(logits, capital).mean().item()
        frame.append(row)
    frame = pd.DataFrame(frame)
    return frame.assign(gain=frame["alone"] - frame["followed"])


def probe_forced(model, tokenizer, *, among: Sequence[Country]) -> pd.DataFrame:
    """Teacher forcing: is each token of the worked answer to a two-hop question the likeliest one?

        true answer      Paris is the capital of France. The language of France is French.
        teacher forcing  every token is predicted after the true ones: a slip is forgiven at once
        generation       every token is predicted after those the model wrote: a slip stays

    While training, and in a validation loss, a model is always in the first situation. The examples
    are made as `two_hop_examples`, in the tokenizer's chat template: one for each country and
    relation but the capital. Adds tokens (supervised ones, the end of turn among them),
    tokens_right (share predicted), right (whether the last fact is, after the true words before).
    """

    def worked(one: Country, relation: str) -> dict:
        question = grammar.TWO_HOP_QUESTION.format(relation=relation, x=one.capital)
        fact = grammar.statement(one, relation)
        return example(question, f"{one.capital} is the capital of {one.name}. {fact}")

    frame = country_prompts(worked, among=among, relations=RELATIONS[1:])
    labelled = label_rows(tokenizer, frame.pop("prompt"))
    found = {}
    for n, logits in row_logits(model, [row.ids for row in labelled]):
        pairs = zip(logits.argmax(-1).tolist(), labelled[n].labels[1:], strict=False)
        pairs = [(likeliest, label) for likeliest, label in pairs if label != IGNORED]
        hits = [likeliest == label for likeliest, label in pairs]
        fact = last_words(tokenizer, [label for _, label in pairs], frame["expected"][n])
        found[n] = (len(hits), sum(hits) / len(hits), all(hits[place] for place in fact))
    columns = ["tokens", "tokens_right", "right"]
    return frame.join(pd.DataFrame.from_dict(found, orient="index", columns=columns))


def last_words(tokenizer, ids: Sequence[int], words: str) -> range:
    """Places of the tokens of an answer that hold these words the last time."""
    start = max(n for n in range(len(ids)) if words in tokenizer.decode(ids[n:]))
    end = min(n for n in range(len(ids) + 1) if words in tokenizer.decode(ids[start:n]))
    return range(start, end)


class LogLikelihood(NamedTuple):
    """The log-likelihood of a text after a prompt: the sum over its tokens, and their number."""

    nats: float
    tokens: int

    @property
    def mean(self) -> float:
        """For each token, which favours long texts whose words follow from each other."""
        return self.nats / self.tokens


def log_likelihoods(model, tokenizer, pairs: Sequence[tuple[str, str]]) -> list[LogLikelihood]:
    """How likely each text of (prompt, text) is after its prompt.

    Prompt and text are tokenized as one; the text begins after as many tokens as the prompt has
    alone (lm-eval does the same). Let it begin with the space before it; it must not be empty.
    """
    if any(not text for _, text in pairs):
        raise ValueError("the text to be scored must not be empty: give at least one character")
    ids = [with_bos(tokenizer, prompt + text) for prompt, text in pairs]
    starts = [len(with_bos(tokenizer, prompt)) for prompt, _ in pairs]
    found = {}
    for n, logits in row_logits(model, ids, starts=starts):
        losses = target_losses(logits, ids[n][starts[n] :])
        found[n] = LogLikelihood(-losses.sum().item(), len(losses))
    return [found[n] for n in range(len(pairs))]


def mc2(likelihoods: Sequence[float], right: Sequence[bool]) -> float:
    """Probability of the right choices over that of all choices (TruthfulQA, arXiv 2109.07958).

    `likelihoods` are the log-likelihoods of the choices.
    """
    if len(likelihoods) != len(right) or not 0 < sum(map(bool, right)) < len(right):
        raise ValueError(
            f"{len(likelihoods)} likelihoods and {len(right)} marks, {sum(map(bool, right))} of "
            "them right: give one mark a choice, and at least one that is right and one that is not"
        )
    scores = np.asarray(likelihoods, dtype=float)
    shares = np.exp(scores - scores.max())
    return float(shares[np.asarray(right, dtype=bool)].sum() / shares.sum())


def choices(country: Country, relation: str, *, wrong: int = 4, seed: int = 0) -> list[str]:
    """The right answer first, then `wrong` wrong ones of the same relation, drawn by the seed."""
    right = country.answers(relation)
    others = sorted({getattr(one, relation) for one in countries()} - set(right))
    if not 1 <= wrong <= len(others):
        raise ValueError(f"wrong={wrong}: a {relation} has 1 to {len(others)} wrong answers")
    drawn = Random(f"choices-{seed}-{country.name}-{relation}").sample(others, wrong)
    return [right[0], *drawn]


def probe_choices(
    model, tokenizer, *, among: Sequence[Country], relations: Sequence[str] = RELATIONS
) -> pd.DataFrame:
    """MC1 and MC2 on facts: the right answer among four others of the same relation.

        The capital of France is   Paris   -0.1 nats      MC1  is the likeliest one right?
                                   Lyon    -4.0           MC2  share of the right ones in the
                                   Rome    -3.2                probability of all of them

    A row for each country and relation, with choices (the right one first), their likelihoods, mc1
    (of equal ones the first counts) and mc2.
    """
    frame = country_prompts(grammar.cloze, among=among, relations=relations)
    frame["choices"] = [choices(one, relation) for one in among for relation in relations]
    pairs = frame[["prompt", "choices"]].explode("choices")
    pairs = list(zip(pairs["prompt"], " " + pairs["choices"], strict=True))
    nats = [one.nats for one in log_likelihoods(model, tokenizer, pairs)]
    size = len(nats) // len(frame)
    frame["likelihoods"] = [nats[n : n + size] for n in range(0, len(nats), size)]
    frame["mc1"] = [float(np.argmax(one) == 0) for one in frame["likelihoods"]]
    frame["mc2"] = [mc2(one, [True] + [False] * (size - 1)) for one in frame["likelihoods"]]
    return frame


def losses(run) -> pd.DataFrame:
    """Every loss of a training run: each step's, and each epoch's on the validation examples.

    Columns: kind (training or validation), step, epoch (a fraction within an epoch), nats (a
    supervised token; of a step before its update), kept (whether the run has these weights).
    """
    end = run.kept_epoch or max((row["epoch"] for row in run.validation), default=None)
    rows = [("training", row, False) for row in run.history]
    rows += [("validation", row, row["epoch"] == end) for row in run.validation]
    return pd.DataFrame(
        [(kind, row["step"], row["epoch"], row["loss"], kept) for kind, row, kept in rows],
        columns=["kind", "step", "epoch", "nats", "kept"],
    )
