"""What test_many_processes.py lets two processes do: `torchrun two_ranks.py BASE FOLDER`."""

import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from toy_run import MIXED, Stopped, stop_at, train
from transformers import LlamaForCausalLM

from sftlab.chat import IGNORED
from sftlab.cli.main import main
from sftlab.machine import processes
from sftlab.train import supervised_loss

ROWS = MIXED[:21]  # two steps of 8, and one of 5: not all processes have a row for it
TWICE = {"num_train_epochs": 2}
PATIENT = {"num_train_epochs": 3, "learning_rate": 3e-3, "early_stopping_patience": 1}
PATIENT |= {"eval_dataset": ROWS[:4], "method": "lora"}


def seen(run):
    """The losses of all steps, and the weights."""
    weights = torch.cat([weight.detach().flatten() for weight in run.model.parameters()])
    losses = [row["loss"] for row in run.history + run.validation]
    return {"losses": losses, "weights": weights, "tokens": run.tokens}


def by_hand(base, rank=None):
    """Losses of three steps on four rows, and the weights that this process holds: all of them, or
    with a `rank` those that FSDP2 gives it, with two of the rows."""
    model = LlamaForCausalLM.from_pretrained(base)
    ids = torch.arange(300, 380).view(4, 20)
    labels = ids.masked_fill(torch.arange(20) < torch.tensor([[19], [18], [10], [1]]), IGNORED)
    count, mine = int((labels[:, 1:] != IGNORED).sum()), slice(None)
    if rank is not None:
        mesh, mine = init_device_mesh("cpu", (2,)), slice(2 * rank, 2 * rank + 2)
        for part in (*model.model.layers, model):
            fully_shard(part, mesh=mesh)
    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=1e-2), []
    for _ in range(3):
        loss = supervised_loss(model, {"input_ids": ids[mine]}, labels[mine], count)
        (loss if rank is None else 2 * loss).backward()  # FSDP averages the gradients
        optimizer.step()
        optimizer.zero_grad()
        if rank is not None:
            dist.all_reduce(loss := loss.detach())
        losses.append(loss.item())
    held = [one if rank is None else one.to_local() for one in model.parameters()]
    return {"losses": losses, "held": sum(one.numel() for one in held)}


if __name__ == "__main__":
    base, folder = sys.argv[1], Path(sys.argv[2])
    half = {"per_device_train_batch_size": 4}
    kept = {"output_dir": folder / "checkpoints", "save_steps": 2}
    plain = train(base, ROWS, **half, **TWICE)
    plain.save(folder / "saved")
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, 5)
        with pytest.raises(Stopped):
            train(base, ROWS, **half, **TWICE, **kept)
    found = {"plain": seen(plain), "resumed": seen(train(base, ROWS, **half, **TWICE, **kept))}
    found["patient"] = seen(train(base, ROWS, **half, **PATIENT))
    found["sharded"] = by_hand(base, processes().process_index)
    torch.save(found, folder / f"{processes().process_index}.pt")
    sys.argv = f"sftlab train {folder / 'my.jsonl'} --out {folder / 'cli'} --profile {base}".split()
    for setting in ("per_device_train_batch_size=4", "bf16=False", "learning_rate=0.01"):
        sys.argv += ["--set", setting]
    main()
