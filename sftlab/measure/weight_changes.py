"""How far a fine-tune moved the weights, and along how many directions.

The change of a matrix is what it is now minus what it was. Its singular values say how it is
spread: change = sum over directions of value x (left x right), the largest first, and the squared
values sum to the squared norm. A change of rank r has r of them. LoRA (arXiv 2106.09685) assumes
that few are enough; here it is measured.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

MOST = 0.9
"""The share of a change that `directions` counts up to."""


class Spread(NamedTuple):
    """A change taken apart: change = left x diag(values) x right."""

    left: "torch.Tensor"
    """(outputs, directions)"""
    values: "torch.Tensor"
    """(directions,), the largest first"""
    right: "torch.Tensor"
    """(directions, inputs)"""


class WeightChanges:
    """What a full fine-tune did to the matrices of the decoder's linear layers.

    Embeddings, norms and biases are left out: they are no matrices between two activations.

    Args:
        model: after training, with the weights in it (no adapters beside it).
        base: the same model before; it is only read.

    Raises:
        ValueError: the two have no linear layers of the same names and sizes, or not one of them
            has changed.
    """

    def __init__(self, model: "PreTrainedModel", base: "PreTrainedModel") -> None:
        import torch

        head = model.get_output_embeddings()
        before = dict(base.named_modules())
        self._layers = {
            name: module
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear) and module is not head
        }
        for name, module in self._layers.items():
            old = getattr(before.get(name), "weight", None)
            if old is None or old.shape != module.weight.shape:
                raise ValueError(
                    f"{name} is a matrix of {tuple(module.weight.shape)} in the trained model, and "
                    f"{'not in the base' if old is None else f'{tuple(old.shape)} in the base'}: "
                    "give the base that it was trained from, and a run of the method full"
                )
        self._before = {name: before[name].weight.detach().clone() for name in self._layers}
        if all(torch.equal(m.weight, self._before[n]) for n, m in self._layers.items()):
            raise ValueError(
                "no linear layer has changed: with adapters the change is beside the weights, so "
                "merge them first; an untrained model has none"
            )

    @cached_property
    def spreads(self) -> dict[str, Spread]:
        """By the matrix's name."""
        import torch

        return {
            name: Spread(*torch.linalg.svd(
                (module.weight.detach() - self._before[name]).float(), full_matrices=False
            ))
            for name, module in self._layers.items()
        }  # fmt: skip

    def frame(self, *, rank: int = 16) -> pd.DataFrame:
        """One row a matrix.

        Columns: matrix (its name), layer (counted from 0), kind (such as q_proj), moved (norm of
        the change over the norm of the matrix before), held (share of the change's squared norm in
        its `rank` largest directions; of a matrix that did not change it is 1), directions (how
        many hold 90% of it).
        """
        rows = []
        for name, spread in self.spreads.items():
            shares = _shares(spread.values)
            rows.append({
                "matrix": name,
                "layer": _layer(name),
                "kind": name.rsplit(".", 1)[-1],
                "moved": float(spread.values.norm() / self._before[name].float().norm()),
                "held": float(shares[:rank].sum()) if shares.sum() else 1.0,
                "directions": int((shares.cumsum(0) < MOST).sum()) + 1 if shares.sum() else 0,
            })  # fmt: skip
        return pd.DataFrame(rows)

    def spectrum(self) -> pd.DataFrame:
        """How much of the change the largest directions hold together, the mean of all matrices.

        One row for each number of directions from 1 on, with the columns directions, held (of the
        change), random (of a matrix of the same size with independent normal entries).
        """
        import torch

        draw = torch.Generator().manual_seed(0)
        held, random = [], []
        least = min(len(spread.values) for spread in self.spreads.values())
        for spread in self.spreads.values():
            held.append(_shares(spread.values).cumsum(0)[:least])
            noise = torch.randn(len(spread.left), spread.right.shape[1], generator=draw)
            random.append(_shares(torch.linalg.svdvals(noise)).cumsum(0)[:least])
        held, random = (torch.stack(one).mean(0).tolist() for one in (held, random))
        return pd.DataFrame({"directions": range(1, least + 1), "held": held, "random": random})

    @contextmanager
    def kept(self, rank: int) -> Iterator[None]:
        """Within it each matrix has only the `rank` largest directions of its change.

        What is no linear layer stays as it was trained, so with `rank` 0 that alone is left.

        Raises:
            ValueError: `rank` is below zero.
        """
        import torch

        if rank < 0:
            raise ValueError(f"rank is {rank}; give 0 or more directions")
        after = {name: module.weight.detach().clone() for name, module in self._layers.items()}
        try:
            with torch.no_grad():
                for name, module in self._layers.items():
                    left, values, right = self.spreads[name]
                    change = (left[:, :rank] * values[:rank]) @ right[:rank]
                    module.weight.copy_(self._before[name] + change)
            yield
        finally:
            with torch.no_grad():
                for name, module in self._layers.items():
                    module.weight.copy_(after[name])


def _shares(values: "torch.Tensor") -> "torch.Tensor":
    """Of the squared norm, for each direction; zeros where there is nothing to share."""
    squared = values.double() ** 2
    return squared / squared.sum() if squared.sum() else squared


def _layer(name: str) -> int:
    """`model.layers.3.mlp.up_proj` is in layer 3; the first number of a name is its layer."""
    found = re.search(r"\.(\d+)\.", name)
    return int(found[1]) if found else -1
