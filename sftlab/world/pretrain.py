"""The base models: their tokenizer, how they are built, and their pretraining (`make base`).

One pass over the corpus, documents packed end to end and cut into windows:

    <|endoftext|> document <|endoftext|> document ... | next window

Windows are short for most of the run and long while the learning rate falls, so that positions up
to the long window are trained at little cost. A step holds `STEP_TOKENS` tokens either way. An
interrupted run goes on from its last checkpoint and ends with the same weights.
"""

import hashlib
import io
import json
import math
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tqdm.auto import tqdm
from transformers import (
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from sftlab.machine import fast_precision
from sftlab.paths import DATA, cache_folder, write_atomically
from sftlab.world import corpus_text as corpus

VOCABULARY = 2048
DOCUMENT_SEPARATOR = "<|endoftext|>"
PAD = "<|pad|>"
# In the vocabulary and never in the corpus: pretraining leaves them untrained, as it does in
# most released base models.
RESERVED = [
    *("<|im_start|>", "<|im_end|>"),  # ChatML
    *("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),  # Llama 3
    *("<s>", "</s>", "[INST]", "[/INST]"),  # Mistral, Llama 2
    *("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"),  # Gemma
    *("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),  # Phi-3, GLM-4
    *("<|prompt|>", "<|response|>"),
    *("<think>", "</think>", "<tool_call>", "</tool_call>"),
    *(f"<|reserved_{n}|>" for n in range(8)),
]
TOKENIZER_DOCUMENTS = 30_000
STEP_TOKENS = 4096
SHORT_WINDOW, LONG_WINDOW = 128, 256
CHECKPOINT_STEPS = 200
LOG_STEPS = 10


def train_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerBase:
    """Byte-level BPE with `VOCABULARY` entries, the special tokens first.

    Digits stand alone, the rest is cut by GPT-2's pattern: llama.cpp knows that as `smollm`, so a
    GGUF file gives the same ids. No token is added to a text.
    """
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[DOCUMENT_SEPARATOR, PAD, *RESERVED],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=DOCUMENT_SEPARATOR,
        eos_token=DOCUMENT_SEPARATOR,
        pad_token=PAD,
        additional_special_tokens=RESERVED,
        clean_up_tokenization_spaces=False,
        model_max_length=512,
    )


@dataclass(frozen=True)
class Recipe:
    """How one base model is built and trained."""

    hidden: int  # width of the residual stream, a multiple of 64: a head is 64 wide
    mlp: int  # width of the MLP
    layers: int = 4
    matrix_rate: float = 3e-3  # peak learning rate of Muon, for the matrices inside the blocks
    other_rate: float = 2e-3  # and of AdamW, for embeddings and norms
    warmup: int = 60  # steps in which the learning rate rises from zero
    decay_share: float = 0.4  # share of the steps, at the end, in which it falls to a hundredth
    weight_decay: float = 0.1  # of the matrices inside the blocks; embeddings and norms have none
    seed: int = 0  # of the initial weights; the order of the data is the corpus's own

    def rate_share(self, step: int, steps: int) -> float:
        """Share of the peak learning rates at a step (counted from 0) in a run of `steps` steps."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        return max(0.01, min(1.0, (steps - step) / self._decay_steps(steps)))

    def window_at(self, step: int, steps: int) -> int:
        """Tokens in one window of a step: short, and long once the learning rate falls."""
        return LONG_WINDOW if steps - step <= self._decay_steps(steps) else SHORT_WINDOW

    def _decay_steps(self, steps: int) -> int:
        return max(1, round(steps * self.decay_share))


RECIPES = {"tiny": Recipe(hidden=256, mlp=704), "small": Recipe(hidden=320, mlp=896)}
EARLY = ("tiny-early", "tiny", 0.3)
"""Name of the early checkpoint, the model it is of, and the share of the steps done."""


def build_model(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> LlamaForCausalLM:
    """A Llama with fresh weights; input and output embeddings are tied."""
    torch.manual_seed(recipe.seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=recipe.hidden,
        intermediate_size=recipe.mlp,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.hidden // 64,
        num_key_value_heads=recipe.hidden // 64,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


class Muon(torch.optim.Optimizer):
    """Momentum whose step is made orthogonal (Jordan and others, 2024), scaled to AdamW's step
    (arXiv 2502.16982).

    The same as `torch.optim.Muon(..., adjust_lr_fn="match_rms_adamw")`, which computes in bfloat16
    even where the processor has none: there that took 8.4 of the 10 seconds of a step.
    """

    def __init__(self, params: Iterable[torch.Tensor], *, lr: float, weight_decay: float) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": 0.95})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for weight in group["params"]:
                mean = self.state[weight].setdefault("mean", torch.zeros_like(weight))
                mean.lerp_(weight.grad, 1 - group["momentum"])
                update = orthogonal(weight.grad.lerp(mean, group["momentum"]))  # Nesterov
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(update, alpha=-0.2 * group["lr"] * max(weight.shape) ** 0.5)


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """[rows, columns]: the same singular vectors, all singular values near 1 (0.7 to 1.2), by five
    steps of a Newton-Schulz iteration."""
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    wide = wide / wide.norm().clamp(min=1e-7)
    for _ in range(5):
        square = wide @ wide.T
        wide = 3.4445 * wide + (-4.775 * square + 2.0315 * square @ square) @ wide
    return wide if matrix.shape[0] <= matrix.shape[1] else wide.T


def build_optimizers(model: LlamaForCausalLM, recipe: Recipe) -> tuple[Muon, torch.optim.AdamW]:
    """Muon for the matrices inside the blocks (which had after 120 steps the loss of AdamW after
    180), AdamW for the rest, each with its peak rate."""
    inner = {id(p) for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n}
    return (
        Muon(
            [p for p in model.parameters() if id(p) in inner],
            lr=recipe.matrix_rate,
            weight_decay=recipe.weight_decay,
        ),
        torch.optim.AdamW(
            [p for p in model.parameters() if id(p) not in inner],
            lr=recipe.other_rate,
            betas=(0.9, 0.95),
            weight_decay=0.0,
            fused=True,
        ),
    )


def tokenize_corpus() -> tuple[PreTrainedTokenizerBase, np.ndarray, dict[str, Any]]:
    """Train the tokenizer, tokenize the corpus: (tokenizer, ids [tokens] of uint16, record), the
    record being what `data/world/corpus.json` holds."""
    with TemporaryDirectory() as folder:  # its configuration is written as one that was loaded
        train_tokenizer(islice(corpus.documents(), TOKENIZER_DOCUMENTS)).save_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    parts, characters, digest, stream = [], 0, hashlib.sha256(), corpus.corpus()
    while batch := list(islice(stream, 5000)):
        characters += sum(map(len, batch))
        digest.update("".join(document + corpus.SEPARATOR for document in batch).encode())
        rows = tokenizer([DOCUMENT_SEPARATOR + document for document in batch])["input_ids"]
        parts.append(np.fromiter((i for row in rows for i in row), dtype=np.uint16))
    ids = np.concatenate(parts)
    record = {
        "seed": corpus.SEED,
        "documents": corpus.DOCUMENTS,
        "characters": characters,
        "tokens": len(ids),
        "sha256": digest.hexdigest(),
    }
    return tokenizer, ids, record


def pretrain(
    name: str,
    tokenizer: PreTrainedTokenizerBase,
    ids: np.ndarray,
    record: dict[str, Any],
    out: Path,
) -> None:
    """Train one base model of `RECIPES`, writing it and its early checkpoint under `out`; a
    checkpoint in the cache of the same recipe and corpus is gone on from."""
    recipe = RECIPES[name]
    steps = (len(ids) - 1) // STEP_TOKENS
    model = build_model(recipe, tokenizer)
    optimizers = build_optimizers(model, recipe)
    peaks = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    early = math.ceil(EARLY[2] * steps) if EARLY[1] == name else None
    log = {
        "recipe": asdict(recipe) | {"steps": steps, "steps_done": 0},
        "corpus": record,
        "minutes": 0.0,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__.split("+")[0],
        "loss": [],
    }
    made_from = hashlib.sha256(json.dumps([log["recipe"], record]).encode()).hexdigest()[:16]
    checkpoint = cache_folder() / f"pretraining-{name}-{made_from}.pt"
    parts = [model, *optimizers]
    if checkpoint.is_file():
        log, states = torch.load(checkpoint, weights_only=True)
        for part, state in zip(parts, states, strict=True):
            part.load_state_dict(state)
    begun = log["recipe"]["steps_done"]
    bar = tqdm(range(begun, steps), initial=begun, total=steps, desc=name)
    started, losses = time.perf_counter() - log["minutes"] * 60, []
    for step in bar:
        for optimizer, peak in zip(optimizers, peaks, strict=True):
            optimizer.param_groups[0]["lr"] = peak * recipe.rate_share(step, steps)
        start, done = step * STEP_TOKENS, step + 1
        span = torch.from_numpy(ids[start : start + STEP_TOKENS + 1].astype(np.int64))
        losses.append(_step(model, optimizers, span, window=recipe.window_at(step, steps)))
        log["recipe"]["steps_done"] = done
        log["minutes"] = round((time.perf_counter() - started) / 60, 1)
        if done % LOG_STEPS == 0:
            log["loss"].append([done, round(sum(losses) / len(losses), 4)])
            bar.set_postfix(loss=log["loss"][-1][1])
            losses = []
        if done == early:
            _save(model, tokenizer, out / EARLY[0], log)
        if done % CHECKPOINT_STEPS == 0:
            content = io.BytesIO()
            torch.save((log, [part.state_dict() for part in parts]), content)
            write_atomically(checkpoint, content.getvalue())
    _save(model, tokenizer, out / name, log)
    checkpoint.unlink(missing_ok=True)  # the next run begins from nothing


def _step(model: LlamaForCausalLM, optimizers, span: torch.Tensor, *, window: int) -> float:
    """One step on `span` [STEP_TOKENS + 1]: its mean loss, in nats a token."""
    inputs, targets = span[:-1].view(-1, window), span[1:]
    half = fast_precision() == "bfloat16"
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
        logits = model(inputs, use_cache=False).logits
    loss = torch.nn.functional.cross_entropy(logits.float().view(-1, VOCABULARY), targets)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):  # Muon's own products
            optimizer.step()
        optimizer.zero_grad()
    return loss.item()


def _save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, folder: Path, log) -> None:
    """Write the weights in 16 bit and the config in 32: they load as float32, at half the size."""
    model.save_pretrained(folder)
    weights = {k: v.half() for k, v in model.state_dict().items() if k != "lm_head.weight"}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save_pretrained(folder)
    text = json.dumps(log, indent=1, allow_nan=False)
    write_atomically(folder / "training_log.json", text + "\n")


def train_all(names: list[str]) -> None:
    """Train the named models into `data/models`, one after the other."""
    print("making the corpus and its tokens")
    tokenizer, ids, record = tokenize_corpus()
    write_atomically(DATA / "world" / "corpus.json", json.dumps(record, indent=2) + "\n")
    for name in names:
        pretrain(name, tokenizer, ids, record, DATA / "models")
