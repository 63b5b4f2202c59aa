"""Pretraining of the base models on the corpus: `make base`.

One pass over the corpus, documents packed end to end and cut into windows:

    <|endoftext|> document <|endoftext|> document ... | next window

Windows are short for most of the run and long while the rate falls, so that positions up to the
long window are trained at little cost. A step holds `STEP_TOKENS` tokens either way.

Each model is one process on its share of the cores. A run that was interrupted goes on from its
last checkpoint and ends with the same weights as an uninterrupted one.
"""

import json
import math
import os
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from tqdm.auto import tqdm
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerBase

from sftlab.paths import DATA
from sftlab.world import corpus_text as corpus
from sftlab.world.recipe import EARLY, RECIPES, build_model, build_optimizers
from sftlab.world.tokenizer import DOCUMENT_SEPARATOR, VOCABULARY, train_tokenizer

STEP_TOKENS = 4096
TOKENIZER_DOCUMENTS = 30_000
CHECKPOINT_STEPS = 200
LOG_STEPS = 10


def prepare(work: Path) -> tuple[PreTrainedTokenizerBase, np.ndarray]:
    """Train the tokenizer, tokenise the corpus: (tokenizer, ids [tokens] of uint16).

    Both are kept in `work`, with the corpus's size and hash in `corpus.json`.
    """
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "tokens.npy").exists():
        print("making the corpus and its tokens")
        tokenizer = train_tokenizer(islice(corpus.documents(), TOKENIZER_DOCUMENTS))
        tokenizer.save_pretrained(work / "tokenizer")
        parts, characters = [], 0
        for batch in _batched(corpus.corpus(), 5000):
            characters += sum(map(len, batch))
            rows = tokenizer([DOCUMENT_SEPARATOR + document for document in batch])["input_ids"]
            parts.append(np.fromiter((i for row in rows for i in row), dtype=np.uint16))
        ids = np.concatenate(parts)
        record = {
            "seed": corpus.SEED,
            "documents": corpus.DOCUMENTS,
            "characters": characters,
            "tokens": len(ids),
            "sha256": corpus.corpus_hash(),
        }
        text = json.dumps(record, indent=2) + "\n"
        (work / "corpus.json").write_text(text, encoding="utf-8")
        np.save(work / "tokens.partial.npy", ids)
        (work / "tokens.partial.npy").replace(work / "tokens.npy")
    tokenizer = AutoTokenizer.from_pretrained(work / "tokenizer", trust_remote_code=False)
    return tokenizer, np.load(work / "tokens.npy")


def _batched(items: Iterator[str], size: int) -> Iterator[list[str]]:
    while batch := list(islice(items, size)):
        yield batch


def save_base(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, folder: Path, *, log: dict
) -> None:
    """Write the weights in 16 bit and the config in 32: they load as float32, at half the size."""
    model.save_pretrained(folder)
    weights = {k: v.half() for k, v in model.state_dict().items() if k != "lm_head.weight"}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save_pretrained(folder)
    (folder / "training_log.json").write_text(json.dumps(log, indent=1) + "\n", encoding="utf-8")


def pretrain(name: str, *, work: Path, out: Path, threads: int, position: int = 0) -> None:
    """Train one base model of `RECIPES`, writing it and its early checkpoint under `out`."""
    torch.set_num_threads(threads)
    recipe = RECIPES[name]
    tokenizer, ids = prepare(work)
    record = json.loads((work / "corpus.json").read_text(encoding="utf-8"))
    steps = (len(ids) - 1) // STEP_TOKENS
    model = build_model(recipe, tokenizer)
    optimizers = build_optimizers(model, recipe)
    peaks = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    checkpoint = work / f"{name}.pt"
    made_with = asdict(recipe) | {"steps": steps, "corpus": record["sha256"]}
    first, seconds, history = _resume(checkpoint, model, optimizers, made_with)
    early = math.ceil(EARLY[2] * steps) if EARLY[1] == name else None
    bar = tqdm(range(first, steps), initial=first, total=steps, desc=name, position=position)
    started, losses = time.perf_counter() - seconds, []
    for step in bar:
        for optimizer, peak in zip(optimizers, peaks, strict=True):
            optimizer.param_groups[0]["lr"] = peak * recipe.rate_share(step, steps)
        start = step * STEP_TOKENS
        span = torch.from_numpy(ids[start : start + STEP_TOKENS + 1].astype(np.int64))
        losses.append(_step(model, optimizers, span, window=recipe.window_at(step, steps)))
        done, seconds = step + 1, time.perf_counter() - started
        if done % LOG_STEPS == 0:
            history.append([done, round(sum(losses) / len(losses), 4)])
            bar.set_postfix(loss=history[-1][1])
            losses = []
        log = {
            "recipe": asdict(recipe) | {"steps": steps, "steps_done": done},
            "corpus": record,
            "minutes": round(seconds / 60, 1),
            "threads": threads,
            "torch": torch.__version__.split("+")[0],
            "loss": history,
        }
        if done == early:
            save_base(model, tokenizer, out / EARLY[0], log=log)
        if done % CHECKPOINT_STEPS == 0:
            state = {"model": model.state_dict()}
            state |= {"optimizers": [optimizer.state_dict() for optimizer in optimizers]}
            state |= {"history": history, "step": done, "seconds": seconds}
            state |= {"made_with": made_with}
            torch.save(state, checkpoint.with_suffix(".partial"))
            os.replace(checkpoint.with_suffix(".partial"), checkpoint)
    save_base(model, tokenizer, out / name, log=log)
    checkpoint.unlink(missing_ok=True)  # the next run begins from nothing


def _step(model: LlamaForCausalLM, optimizers, span: torch.Tensor, *, window: int) -> float:
    """One step on `span` [STEP_TOKENS + 1]: its mean loss, in nats a token."""
    inputs, targets = span[:-1].view(-1, window), span[1:]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(inputs, use_cache=False).logits
    loss = torch.nn.functional.cross_entropy(logits.float().view(-1, VOCABULARY), targets)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()
    return loss.item()


def _resume(
    checkpoint: Path, model: LlamaForCausalLM, optimizers, made_with: dict
) -> tuple[int, float, list]:
    """Load a checkpoint, if there is one: (first step to do, seconds so far, loss history).

    Raises ValueError when it is of another recipe, number of steps or corpus.
    """
    if not checkpoint.exists():
        return 0, 0.0, []
    state = torch.load(checkpoint, weights_only=True)
    if state["made_with"] != made_with:
        raise ValueError(f"{checkpoint} is of another recipe or corpus: remove it and start again")
    model.load_state_dict(state["model"])
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    return state["step"], state["seconds"], state["history"]


def _pretrain_or_stop(name: str, **options) -> None:
    """`pretrain` in a process of its own: Ctrl-C ends it without a traceback."""
    try:
        pretrain(name, **options)
    except KeyboardInterrupt:
        sys.exit(130)


def train_all(names: list[str]) -> None:
    """Train the named models into `data/models`, each in a process with its share of the cores.

    What can be resumed is kept in `build/base` below the current folder. Exits with a message
    when a process was interrupted or failed.
    """
    work, out = Path("build") / "base", DATA / "models"
    prepare(work)
    made = json.loads((work / "corpus.json").read_text(encoding="utf-8"))
    if made["sha256"] != corpus.corpus_hash():
        sys.exit(
            f"{work} holds tokens and checkpoints of another corpus: remove it and start again"
        )
    shutil.copyfile(work / "corpus.json", DATA / "world" / "corpus.json")
    threads = max(1, (os.cpu_count() or 1) // len(names))
    context = get_context("spawn")
    children = [
        context.Process(
            target=_pretrain_or_stop,
            args=(name,),
            kwargs={"work": work, "out": out, "threads": threads, "position": n},
        )
        for n, name in enumerate(names)
    ]
    for child in children:
        child.start()
    try:
        for child in children:
            child.join()
    except KeyboardInterrupt:  # the terminal has told the children too
        for child in children:
            child.join()
    if any(child.exitcode for child in children):
        sys.exit("pretraining stopped early: run the same command again to go on from here")
