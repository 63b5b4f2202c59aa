"""What a model finds likely: losses of tokens, answers and documents, and choices between answers.

Nothing is generated here. Losses are in nats; the perplexity of a text is exp of its mean loss a
token.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from random import Random
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd

from sftlab.chat import IGNORED, label_rows
from sftlab.measure.generation import with_bos
from sftlab.world import RELATIONS, Country, countries, example, grammar

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_ROWS, _LOGITS = 64, 1 << 25
"""The most rows of a batch, and the most logits of it (128 MB): vocabularies differ."""
_LONGER = 1.25
"""By how much the longest row of a batch may exceed the shortest: what is beyond is padding."""


def row_logits(
    model: "PreTrainedModel", rows: Sequence[Sequence[int]], *, starts: Sequence[int] | None = None
) -> "Iterator[tuple[int, torch.Tensor]]":
    """The predictions of a model for each row of ids, in batches of rows of like length.

    Yields, in no particular order, the index of a row and its logits (tokens - start + 1,
    vocabulary) in float32: the first predicts the token at `start` (1 by default), the last the
    token after the end.
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
        ids = torch.zeros((len(batch), width), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for place, n in enumerate(batch):
            ids[place, : len(rows[n])] = torch.tensor(rows[n])
            mask[place, : len(rows[n])] = 1
        last = {"logits_to_keep": width - min(starts[n] for n in batch) + 1} if keeps else {}
        given = {"input_ids": ids.to(model.device), "attention_mask": mask.to(model.device)}
        with torch.inference_mode():
            logits = model(**given, use_cache=False, **last).logits
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
    return torch.nn.functional.cross_entropy(
        logits[: len(targets)], wanted, ignore_index=IGNORED, reduction="none"
    )


def text_loss(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    documents: Sequence[str],
    *,
    max_length: int = 256,
) -> float:
    """Mean loss per predicted token over the documents, in nats; each begins with BOS.

    Documents longer than `max_length` tokens are cut there.
    """
    rows = [with_bos(tokenizer, document)[:max_length] for document in documents]
    total = sum(
        target_losses(logits, rows[n][1:]).sum().item() for n, logits in row_logits(model, rows)
    )
    return total / sum(len(row) - 1 for row in rows)


def token_losses(
    model: "PreTrainedModel", ids: Sequence[int], *, targets: Sequence[int] | None = None
) -> list[float | None]:
    """The loss of each token given the tokens before it, in nats.

        ids       A   B   C        loss of C = -log p(C | A B)
        losses  None 5.1 0.2       nothing comes before the first, so it has none

    Args:
        model: its training or evaluation mode is restored afterwards.
        ids: at least one token.
        targets: what is to be predicted at each place, where that is not the token itself.

    Raises:
        ValueError: no token, more tokens than the model reads, or ids outside its vocabulary.
    """
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


def probe_perplexity(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    rows: Sequence[Mapping[str, Any]],
) -> pd.DataFrame:
    """The loss of each conversation's answers, in the tokenizer's chat template.

    Columns: conversation (its index), tokens (supervised ones, ends of turn among them), characters
    (of the answers), nats (their sum). The perplexity of all of them is exp(sum of nats / sum of
    tokens); nats a character can be compared between tokenizers.
    """
    labelled = label_rows(tokenizer, rows)
    nats = [0.0] * len(labelled)
    for n, logits in row_logits(model, [row.ids for row in labelled]):
        nats[n] = target_losses(logits, labelled[n].labels[1:]).sum().item()
    return pd.DataFrame(
        {
            "conversation": range(len(rows)),
            "tokens": [sum(label != IGNORED for label in row.labels) for row in labelled],
            "characters": [
                sum(len(m["content"]) for m in row["messages"] if m["role"] == "assistant")
                for row in rows
            ],
            "nats": nats,
        }
    )


def probe_right_context(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", *, among: Sequence[Country]
) -> pd.DataFrame:
    """How much the loss on a capital falls when the text after it is shown too.

    A masked language model reads both sides of a word; a causal one predicts it from the left
    alone, so nothing that follows can help it. Columns: country, alone (mean loss of the capital's
    tokens, where the text ends with them), followed (the same with a sentence after it that names
    the capital again), gain (alone - followed).
    """
    rows = []
    for country in among:
        start = len(with_bos(tokenizer, grammar.cloze(country, "capital")))
        text = f"{grammar.cloze(country, 'capital')} {country.capital}"
        capital = with_bos(tokenizer, text)[start:]
        after = f"{text}. {country.capital} is the capital of {country.name}."
        losses = {}
        for name, whole in (("alone", text), ("followed", after)):
            ((_, logits),) = row_logits(model, [with_bos(tokenizer, whole)], starts=[start])
            losses[name] = target_losses(logits, capital).mean().item()
        gain = losses["alone"] - losses["followed"]
        rows.append({"country": country.name, **losses, "gain": gain})
    return pd.DataFrame(rows)


def probe_forced(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", *, among: Sequence[Country]
) -> pd.DataFrame:
    """Teacher forcing: is each token of the worked answer to a two-hop question the likeliest one?

        true answer      Paris is the capital of France. The language of France is French.
        teacher forcing  every token is predicted after the true ones: a slip is forgiven at once
        generation       every token is predicted after those the model wrote: a slip stays

    While training, and in a validation loss, a model is always in the first situation. Answers and
    wording are those of `two_hop_examples`, in the tokenizer's chat template. A row for each
    country and relation but the capital. Columns: country, group, relation, tokens (supervised
    ones, the end of turn among them), tokens_right (share predicted), right (whether the last fact
    is predicted, after the true words before it).
    """
    items = [(country, relation) for country in among for relation in RELATIONS[1:]]
    labelled = label_rows(
        tokenizer,
        [
            example(
                grammar.TWO_HOP_QUESTION.format(relation=relation, x=one.capital),
                f"{one.capital} is the capital of {one.name}. {grammar.statement(one, relation)}",
            )
            for one, relation in items
        ],
    )
    frame: list[dict[str, Any]] = [{} for _ in items]
    for n, logits in row_logits(model, [row.ids for row in labelled]):
        country, relation = items[n]
        likeliest = logits.argmax(-1).tolist()
        pairs = zip(likeliest, labelled[n].labels[1:], strict=False)
        pairs = [(a, label) for a, label in pairs if label != IGNORED]
        hits = [a == label for a, label in pairs]
        fact = last_words(tokenizer, [label for _, label in pairs], getattr(country, relation))
        frame[n] = {
            "country": country.name,
            "group": country.group,
            "relation": relation,
            "tokens": len(hits),
            "tokens_right": sum(hits) / len(hits),
            "right": all(hits[place] for place in fact),
        }
    return pd.DataFrame(frame)


def last_words(tokenizer, ids: Sequence[int], words: str) -> range:
    """Places of the tokens of an answer that hold these words the last time."""
    for start in reversed(range(len(ids))):
        if words in tokenizer.decode(ids[start:]):
            ends = range(start + 1, len(ids) + 1)
            return range(start, next(n for n in ends if words in tokenizer.decode(ids[start:n])))
    raise ValueError(f"{words!r} is not in {tokenizer.decode(ids)!r}")


@dataclass(frozen=True, kw_only=True)
class LogLikelihood:
    """The log-likelihood of a text after a prompt."""

    nats: float
    """Sum over its tokens, zero or less."""
    tokens: int
    """How many they are."""

    @property
    def mean(self) -> float:
        """For each token, which favours long texts whose words follow from each other."""
        return self.nats / self.tokens


def log_likelihoods(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    pairs: Sequence[tuple[str, str]],
) -> list[LogLikelihood]:
    """How likely each text of (prompt, text) is after its prompt.

    Prompt and text are tokenized as one; the text begins after as many tokens as the prompt has
    alone (lm-eval does the same). Let it begin with the space before it. BOS as in `complete`.

    Raises:
        ValueError: a text is empty.
    """
    if any(not text for _, text in pairs):
        raise ValueError("the text to be scored must not be empty: give at least one character")
    ids = [with_bos(tokenizer, prompt + text) for prompt, text in pairs]
    starts = [len(with_bos(tokenizer, prompt)) for prompt, _ in pairs]
    found: dict[int, LogLikelihood] = {}
    for n, logits in row_logits(model, ids, starts=starts):
        losses = target_losses(logits, ids[n][starts[n] :])
        found[n] = LogLikelihood(nats=-losses.sum().item(), tokens=len(losses))
    return [found[n] for n in range(len(pairs))]


def mc1(likelihoods: Sequence[float], right: Sequence[bool]) -> float:
    """1 when the likeliest choice is right, else 0 (TruthfulQA, arXiv 2109.07958).

    `likelihoods` are the log-likelihoods of the choices; of equal ones the first counts.
    """
    _check(likelihoods, right)
    return float(right[int(np.argmax(likelihoods))])


def mc2(likelihoods: Sequence[float], right: Sequence[bool]) -> float:
    """Probability of the right choices over the probability of all choices (TruthfulQA)."""
    _check(likelihoods, right)
    scores = np.asarray(likelihoods, dtype=float)
    shares = np.exp(scores - scores.max())
    return float(shares[np.asarray(right, dtype=bool)].sum() / shares.sum())


def _check(likelihoods: Sequence[float], right: Sequence[bool]) -> None:
    if len(likelihoods) != len(right) or not 0 < sum(map(bool, right)) < len(right):
        raise ValueError(
            f"{len(likelihoods)} likelihoods and {len(right)} marks, {sum(map(bool, right))} of "
            "them right: give one mark a choice, and at least one that is right and one that is not"
        )


def choices(country: Country, relation: str, *, wrong: int = 4, seed: int = 0) -> list[str]:
    """The right answer first, then `wrong` wrong ones of the same relation, drawn by the seed.

    Raises:
        ValueError: there are not that many wrong ones.
    """
    right = country.answers(relation)
    others = sorted({getattr(one, relation) for one in countries()} - set(right))
    if not 1 <= wrong <= len(others):
        raise ValueError(f"wrong={wrong}: a {relation} has 1 to {len(others)} wrong answers")
    drawn = Random(f"choices-{seed}-{country.name}-{relation}").sample(others, wrong)
    return [right[0], *drawn]


def probe_choices(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    *,
    among: Sequence[Country],
    relations: Sequence[str] = RELATIONS,
    prompt: str | None = None,
    wrong: int = 4,
    seed: int = 0,
) -> pd.DataFrame:
    """MC1 and MC2 on facts: the right answer among `wrong` others of the same relation.

        The capital of France is   Paris   -0.1 nats      MC1  is the likeliest one right?
                                   Lyon    -4.0           MC2  share of the right ones in the
                                   Rome    -3.2                probability of all of them

    By default after the cloze (`The capital of France is`); `prompt` puts the question instead,
    such as `Q: {q}\\nA:`. Columns: country, group, relation, prompt, choices, likelihoods, mc1
    and mc2.
    """
    frame = pd.DataFrame(
        {
            "country": one.name,
            "group": one.group,
            "relation": relation,
            "prompt": grammar.cloze(one, relation)
            if prompt is None
            else prompt.format(q=grammar.question(one, relation, wording="test")),
            "choices": choices(one, relation, wrong=wrong, seed=seed),
        }
        for one in among
        for relation in relations
    )
    pairs = zip(frame["prompt"], frame["choices"], strict=True)
    pairs = [(text, f" {choice}") for text, offered in pairs for choice in offered]
    nats = [one.nats for one in log_likelihoods(model, tokenizer, pairs)]
    size, right = wrong + 1, [True] + [False] * wrong
    frame["likelihoods"] = [nats[n : n + size] for n in range(0, len(nats), size)]
    frame["mc1"] = [mc1(one, right) for one in frame["likelihoods"]]
    frame["mc2"] = [mc2(one, right) for one in frame["likelihoods"]]
    return frame


class _Trained(Protocol):
    """The part of a run that `losses` reads."""

    history: list[dict[str, float]]
    validation: list[dict[str, float]]
    kept_epoch: float | None


_COLUMNS = ["kind", "step", "epoch", "nats", "norm", "rate", "kept"]


def losses(run: _Trained) -> pd.DataFrame:
    """Every loss of a training run: each step's, and each epoch's on the validation examples.

    Columns: kind (training or validation), step, epoch (a fraction within an epoch), nats (a
    supervised token), kept (whether the run has the weights of this moment), and of a step norm (of
    the gradient, before clipping) and rate. The loss of a step is that *before* its update, on
    examples that are about to be learned.
    """
    steps = pd.DataFrame(
        run.history, columns=["step", "epoch", "loss", "grad_norm", "learning_rate"]
    )
    points = pd.DataFrame(run.validation, columns=["step", "epoch", "loss"])
    end = run.kept_epoch or points["epoch"].max()
    frames = [
        frame.assign(kind=kind, kept=kind == "validation" and (frame["epoch"] == end))
        for kind, frame in (("training", steps), ("validation", points))
        if len(frame)
    ]
    if not frames:
        return pd.DataFrame(columns=_COLUMNS)
    names = {"loss": "nats", "grad_norm": "norm", "learning_rate": "rate"}
    return pd.concat(frames, ignore_index=True).rename(columns=names).reindex(columns=_COLUMNS)


def by_epoch(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame of `losses`, perhaps of many runs, with one row an epoch and kind.

    The training loss of an epoch is the mean over its steps. Grouped by all other columns, such as
    a sweep's own. Columns: those, epoch (whole), kind, loss.
    """
    whole = frame.assign(epoch=(frame["epoch"] - 1e-6).floordiv(1).astype(int) + 1)
    others = [name for name in frame.columns if name not in {*_COLUMNS, "loss"}]
    keys = [name for name in others if frame[name].notna().all()]
    means = whole.groupby([*keys, "kind", "epoch"], sort=False)["nats"].mean()
    return means.rename("loss").reset_index()


def final(frame: pd.DataFrame) -> pd.DataFrame:
    """The validation loss of each run's weights: rows of the frame of `losses`, one a run."""
    return frame[(frame["kind"] == "validation") & frame["kept"].astype(bool)]
