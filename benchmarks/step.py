"""How fast a step is: TRL's defaults, the lab's, a loop written by hand, and the limit.

    python benchmarks/step.py [--threads 2] [--rounds 3] [--examples 600] [--json FILE]

All arms fine-tune the same copy of `tiny` on the same examples, side by side in one run, round by
round, each in a process of its own that the others' settings do not reach. The best round of each
counts, so that what else the machine does falls out. Ratios are of supervised tokens a second. The
held-out loss shows that no arm bought its speed with quality.
"""

import argparse
import json
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch.nn.functional import cross_entropy

from sftlab.chat import setup_chat_template
from sftlab.machine import fast_precision, keep_freed_memory
from sftlab.models import load
from sftlab.profiles import find_profile
from sftlab.quiet import quiet_libraries
from sftlab.train import finetune
from sftlab.world import countries, country_examples

LAB = find_profile("tiny")
BATCH = LAB.per_device_train_batch_size
TRL_BATCH = 8  # SFTConfig's default
TRL_RATE = 5e-4  # SFTConfig's own 2e-5 teaches so small a model next to nothing
BARS = {"lab / TRL": 2.0, "lab / hand-written": 0.9}


def fresh():
    """Model and tokenizer as `finetune` prepares them."""
    model, tokenizer = load("tiny")
    setup_chat_template(model, tokenizer, template="chatml")
    return model, tokenizer


def tokenised(tokenizer, examples):
    """(ids, labels) of each example; labels are unshifted, -100 outside the answer."""
    rows = []
    for example in examples:
        out = tokenizer.apply_chat_template(
            example["messages"], return_dict=True, return_assistant_tokens_mask=True
        )
        ids, mask = out["input_ids"], out["assistant_masks"]
        rows.append((ids, [i if m else -100 for i, m in zip(ids, mask, strict=True)]))
    return rows


def padded(rows):
    """One batch: ids, attention mask, labels, each (batch, longest)."""
    width = max(len(ids) for ids, _ in rows)
    ids, labels = (
        torch.zeros(len(rows), width, dtype=torch.long),
        torch.full((len(rows), width), -100),
    )
    mask = torch.zeros_like(ids)
    for row, (tokens, targets) in enumerate(rows):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        labels[row, : len(tokens)] = torch.tensor(targets)
        mask[row, : len(tokens)] = 1
    return ids, mask, labels


def trl(examples, epochs, precision):
    """TRL's defaults, batches of 8 among them, made to run on a CPU and to learn."""
    with quiet_libraries():
        from datasets import Dataset
        from transformers import PrinterCallback
        from trl import SFTConfig, SFTTrainer

    model, tokenizer = fresh()
    with TemporaryDirectory() as scratch, quiet_libraries():
        options = SFTConfig(
            output_dir=scratch, use_cpu=True, bf16=precision == "bfloat16",
            activation_checkpointing=False, assistant_only_loss=True, learning_rate=TRL_RATE,
            num_train_epochs=epochs, eos_token=tokenizer.eos_token, report_to="none",
            save_strategy="no", disable_tqdm=True, dataloader_pin_memory=False,
        )  # fmt: skip
        trainer = SFTTrainer(
            model=model,
            args=options,
            train_dataset=Dataset.from_list(examples),
            processing_class=tokenizer,
        )
        trainer.remove_callback(PrinterCallback)
        start = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - start
    for name in ("forward", "_original_forward"):
        model.__dict__.pop(name, None)
    return model, tokenizer, seconds


def lab(examples, epochs, precision):
    """`finetune` as the lessons call it."""
    bf16 = precision == "bfloat16"
    run = finetune("tiny", examples, num_train_epochs=epochs, bf16=bf16, progress=False)
    return run.model, run.tokenizer, run.seconds


def by_hand(examples, epochs, precision):
    """The same batches in a loop that does nothing else."""
    with quiet_libraries():  # of TRL's import
        from sftlab.train import POOL, Batches, quick_attention, supervised_loss

    keep_freed_memory()
    model, tokenizer = fresh()
    rows = tokenised(tokenizer, examples)
    order = Batches([len(ids) for ids, _ in rows], size=BATCH, pool=POOL, seed=0)
    steps = epochs * -(-len(rows) // BATCH)
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=LAB.rate_full, weight_decay=0.0, fused=True
    )
    warm = max(1, round(0.05 * steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min(step / warm, (steps - step) / (steps - warm))
    )
    model.train()
    start = time.perf_counter()
    for epoch in range(epochs):
        order.set_epoch(epoch)
        indices = list(order)
        for at in range(0, len(indices), BATCH):
            ids, mask, labels = padded([rows[i] for i in indices[at : at + BATCH]])
            batch = {"input_ids": ids, "attention_mask": mask}
            with quick_attention(labels):
                with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
                    loss = supervised_loss(model, batch, labels)
                loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            optimiser.zero_grad()
    return model.eval(), tokenizer, time.perf_counter() - start


def matrix_rate(model, tokens, precision):
    """Operations a second over the model's own products: forward, and both of the backward."""
    dtype = getattr(torch, precision)
    work, seconds = 0, 0.0
    for _, weight in model.model.layers[0].named_parameters():
        if weight.dim() != 2:
            continue
        out, width = weight.shape
        x, w = torch.randn(tokens, width, dtype=dtype), torch.randn(out, width, dtype=dtype)
        g = torch.randn(tokens, out, dtype=dtype)
        for product in (
            lambda x=x, w=w: x @ w.t(),
            lambda g=g, w=w: g @ w,
            lambda g=g, x=x: g.t() @ x,
        ):
            product()
            start = time.perf_counter()
            for _ in range(20):
                product()
            seconds += (time.perf_counter() - start) / 20
            work += 2 * tokens * out * width
    return work / seconds


def operations(model, rows):
    """Operations of the matrix products of one epoch: 6 for a weight and a token, the embedding
    only where a label is."""
    inner = sum(w.numel() for w in model.model.layers.parameters() if w.dim() == 2)
    tokens = sum(len(ids) for ids, _ in rows)
    supervised = sum(sum(label != -100 for label in labels) for _, labels in rows)
    return 6 * (inner * tokens + model.get_input_embeddings().weight.numel() * supervised)


@torch.inference_mode()
def held_out_loss(model, tokenizer, examples):
    """Loss of the answers about countries that no example names, nats a token, in float32."""
    total, count = 0.0, 0
    rows = tokenised(tokenizer, examples)
    for at in range(0, len(rows), 64):
        ids, mask, labels = padded(rows[at : at + 64])
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
        total += cross_entropy(
            logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100, reduction="sum"
        ).item()
        count += int((labels[:, 1:] != -100).sum())
    return total / count


ARMS = {"TRL": trl, "lab": lab, "hand-written": by_hand}


def measure(arm, precision, threads, examples, others, epochs):
    """Seconds of training and the loss on `others`."""
    torch.set_num_threads(threads)
    model, tokenizer, seconds = ARMS[arm](examples, epochs, precision)
    return seconds, held_out_loss(model, tokenizer, others)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--examples", type=int, default=600)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    examples = country_examples(options.examples, seed=0)
    others = country_examples(300, seed=1, among=countries(group="asked", split="held_out"))
    model, tokenizer = fresh()
    rows = tokenised(tokenizer, examples)
    supervised = sum(sum(label != -100 for label in labels) for _, labels in rows)
    width = sum(len(ids) for ids, _ in rows) * BATCH // len(rows)
    fast = fast_precision()
    arms = [
        (arm, precision)
        for arm in ARMS
        for precision in dict.fromkeys(["float32", fast])
        if arm == "TRL" or precision == fast
    ]
    processes = {arm: ProcessPoolExecutor(1, mp_context=get_context("spawn")) for arm in arms}
    seconds, losses, rates = {arm: [] for arm in arms}, {}, []
    for _ in range(options.rounds):
        for arm in arms:
            job = processes[arm].submit(
                measure, *arm, options.threads, examples, others, options.epochs
            )
            took, losses[arm] = job.result()
            seconds[arm].append(took)
        rates.append(matrix_rate(model, width, fast))
    best = {arm: min(took) for arm, took in seconds.items()}
    limit = options.epochs * operations(model, rows) / max(rates)
    trl_best = min(took for (arm, _), took in best.items() if arm == "TRL")
    ratios = {
        "lab / TRL": trl_best / best["lab", fast],
        "lab / hand-written": best["hand-written", fast] / best["lab", fast],
        "hand-written / limit": limit / best["hand-written", fast],
    }
    print(
        f"{len(examples)} examples x {options.epochs} epochs, {options.threads} threads, best of "
        f"{options.rounds} rounds; products in {fast} at {max(rates) / 1e9:.0f} GFLOP/s"
    )
    for arm, took in best.items():
        speed = options.epochs * supervised / took
        print(
            f"  {', '.join(arm):<24}{took:7.2f} s {speed:8.0f} supervised tokens/s"
            f"   held-out loss {losses[arm]:.3f}"
        )
    print(f"  {'limit, ' + fast:<24}{limit:7.2f} s")
    for name, ratio in ratios.items():
        bar = BARS.get(name)
        verdict = "" if bar is None else f"   bar {bar}: {'met' if ratio >= bar else 'MISSED'}"
        print(f"  {name:<24}{ratio:7.2f}{verdict}")
    if options.json:
        found = {
            "seconds": {", ".join(arm): took for arm, took in seconds.items()},
            "held-out loss": {", ".join(arm): loss for arm, loss in losses.items()},
            "ratios": ratios,
            "GFLOP/s": max(rates) / 1e9,
        }
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
