"""How far a fine-tune moved the weights, and along how many directions.

The change of a matrix is what it is now minus what it was. Its singular value decomposition,
change = left x diag(values) x right with the largest value first, shows how it is spread: the
squared values sum to the squared norm, and a change of rank r has r of them. LoRA (arXiv
2106.09685) assumes that few are enough; here it is measured.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property

import pandas as pd


class WeightChanges:
    """What a full fine-tune did to the matrices of the decoder's linear layers.

    Embeddings, norms and biases are left out. `model` is after training, with the weights in it
    (adapters merged); `base` is the same model before, and only read.

    Raises:
        ValueError: the two have no linear layers of the same names and sizes, or not one of them
            has changed.
    """

    def __init__(self, model, base) -> None:
        import torch

        head, before = model.get_output_embeddings(), dict(base.named_modules())
        self._layers, self._before = {}, {}
        for name, module in model.named_modules():
            if not isinstance(module, torch.nn.Linear) or module is head:
                continue
            old = getattr(before.get(name), "weight", None)
            if old is None or old.shape != module.weight.shape:
                raise ValueError(
                    f"{name} is a matrix of {tuple(module.weight.shape)} in the trained model, and "
                    f"{'not in the base' if old is None else f'{tuple(old.shape)} in the base'}: "
                    "give the base that it was trained from, and a run of the method full"
                )
            self._layers[name], self._before[name] = module, old.detach().clone()
        if all(torch.equal(m.weight, self._before[n]) for n, m in self._layers.items()):
            raise ValueError(
                "no linear layer has changed: merge adapters into the weights first, and give the "
                "model after training"
            )

    @cached_property
    def decompositions(self) -> dict:
        """Matrix's name -> (left, values, right): torch's (U, S, Vh) of its change."""
        import torch

        return {
            name: torch.linalg.svd(
                (module.weight.detach() - self._before[name]).float(), full_matrices=False
            )
            for name, module in self._layers.items()
        }

    def frame(self, *, rank: int = 16) -> pd.DataFrame:
        """One row a matrix.

        Columns: matrix (its name), layer (counted from 0), kind (such as q_proj), moved (norm of
        the change over the norm of the matrix before), held (share of the change's squared norm in
        its `rank` largest directions; of a matrix that did not change it is 1), directions (how
        many hold 90% of it).
        """
        rows = []
        for name, (_, values, _) in self.decompositions.items():
            shares = _shares(values)
            number = re.search(r"\.(\d+)\.", name)  # as in model.layers.3.mlp.up_proj
            row = {"matrix": name, "layer": int(number[1]) if number else -1}
            row["kind"] = name.rsplit(".", 1)[-1]
            row["moved"] = float(values.norm() / self._before[name].float().norm())
            row["held"] = float(shares[:rank].sum()) if shares.sum() else 1.0
            row["directions"] = int((shares.cumsum(0) < 0.9).sum()) + 1 if shares.sum() else 0
            rows.append(row)
        return pd.DataFrame(rows)

    def spectrum(self) -> pd.DataFrame:
        """How much of the change the largest directions hold together, the mean of all matrices.

        One row for each number of directions from 1 on, with the columns directions, held (of the
        change), random (of a matrix of the same size with independent normal entries).
        """
        import torch

        draw = torch.Generator().manual_seed(0)
        held, random = [], []
        least = min(len(values) for _, values, _ in self.decompositions.values())
        for left, values, right in self.decompositions.values():
            noise = torch.randn(len(left), right.shape[1], generator=draw)
            for found, of in ((held, values), (random, torch.linalg.svdvals(noise))):
                found.append(_shares(of).cumsum(0)[:least])
        held, random = (torch.stack(one).mean(0).tolist() for one in (held, random))
        return pd.DataFrame({"directions": range(1, least + 1), "held": held, "random": random})

    @contextmanager
    def kept(self, rank: int) -> Iterator[None]:
        """Within it each matrix has only the `rank` largest directions of its change.

        All else stays as it was trained, so with `rank` 0 that alone is left.
        """
        after = {name: module.weight.detach().clone() for name, module in self._layers.items()}
        try:
            for name, module in self._layers.items():
                left, values, right = self.decompositions[name]
                change = (left[:, :rank] * values[:rank]) @ right[:rank]
                module.weight.data.copy_(self._before[name] + change)
            yield
        finally:
            for name, module in self._layers.items():
                module.weight.data.copy_(after[name])


def _shares(values):
    """Of the squared norm, for each direction; zeros where there is nothing to share."""
    squared = values.double() ** 2
    return squared / squared.sum() if squared.sum() else squared
