"""How far a fine-tune moved the weights, and along how many directions.

The change of a matrix is what it is now minus what it was. Its singular value decomposition,
change = left x diag(values) x right with the largest value first, shows how it is spread: the
squared values sum to the squared norm, and a change of rank r has r of them. LoRA (arXiv
2106.09685) assumes that few are enough; here it is measured.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

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
        self._layers = {}  # name: module, weight before, (left, values, right)
        for name, module in model.named_modules():
            if not isinstance(module, torch.nn.Linear) or module is head:
                continue
            new, old = module.weight.detach(), getattr(before.get(name), "weight", None)
            if old is None or old.shape != new.shape:
                raise ValueError(
                    f"{name} is a matrix of {tuple(new.shape)} in the trained model, and "
                    f"{'not in the base' if old is None else f'{tuple(old.shape)} in the base'}: "
                    "give the base that it was trained from, and a run of the method full"
                )
            old = old.detach()
            parts = torch.linalg.svd((new - old).float(), full_matrices=False)
            self._layers[name] = module, old, parts
        if not any(values.any() for _, _, (_, values, _) in self._layers.values()):
            raise ValueError(
                "no linear layer has changed: merge adapters into the weights first, and give the "
                "model after training"
            )

    def frame(self, *, rank: int = 16) -> pd.DataFrame:
        """One row a matrix.

        Columns: matrix (its name), layer (counted from 0), kind (such as q_proj), moved (norm of
        the change over the norm of the matrix before), held (share of the change's squared norm in
        its `rank` largest directions; of a matrix that did not change it is 1), directions (how
        many hold 90% of it).
        """
        rows = []
        for name, (_, old, (_, values, _)) in self._layers.items():
            shares, changed = _shares(values), bool(values.any())
            number = re.search(r"\.(\d+)\.", name)  # as in model.layers.3.mlp.up_proj
            rows.append(
                {
                    "matrix": name,
                    "layer": int(number[1]) if number else -1,
                    "kind": name.rsplit(".", 1)[-1],
                    "moved": float(values.norm() / old.float().norm()),
                    "held": float(shares[:rank].sum()) if changed else 1.0,
                    "directions": int((shares.cumsum(0) < 0.9).sum()) + 1 if changed else 0,
                }
            )
        return pd.DataFrame(rows)

    def spectrum(self) -> pd.DataFrame:
        """How much of the change the largest directions hold together, the mean of all matrices.

        One row for each number of directions from 1 on, with the columns directions, held (of the
        change), random (of a matrix of the same size with independent normal entries).
        """
        import torch

        draw = torch.Generator().manual_seed(0)
        held, random = [], []
        least = min(len(values) for *_, (_, values, _) in self._layers.values())
        for *_, (left, values, right) in self._layers.values():
            noise = torch.randn(len(left), right.shape[1], generator=draw)
            held.append(_shares(values).cumsum(0)[:least])
            random.append(_shares(torch.linalg.svdvals(noise)).cumsum(0)[:least])
        held, random = (torch.stack(one).mean(0).tolist() for one in (held, random))
        return pd.DataFrame({"directions": range(1, least + 1), "held": held, "random": random})

    @contextmanager
    def kept(self, rank: int) -> Iterator[None]:
        """Within it each matrix has only the `rank` largest directions of its change.

        All else stays as it was trained, so with `rank` 0 that alone is left.
        """
        after = {}
        try:
            for name, (module, old, (left, values, right)) in self._layers.items():
                after[name] = module.weight.data
                change = (left[:, :rank] * values[:rank]) @ right[:rank]
                module.weight.data = (old + change).to(old.dtype)
            yield
        finally:
            for name, weight in after.items():
                self._layers[name][0].weight.data = weight


def _shares(values):
    """Of the squared norm, for each direction; zeros where there is nothing to share."""
    squared = values.double() ** 2
    return squared / squared.sum() if squared.sum() else squared
