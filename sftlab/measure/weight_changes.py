"""How far a fine-tune moved the weights, and along how many directions.

The singular value decomposition of a change, left x diag(values) x right with the largest value
first, shows how it is spread: the squared values sum to the squared norm, and a change of rank r
has r of them. LoRA (arXiv 2106.09685) assumes that few are enough; here it is measured.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pandas as pd


class WeightChanges:
    """What a full fine-tune did to the matrices of the decoder's linear layers.

    Embeddings, norms and biases are left out. `model` is after training, with the weights in it
    (adapters merged), each of which must have changed; `base` is the same model before, only read.
    """

    def __init__(self, model, base) -> None:
        import torch

        self._layers = {}  # name: module, weight before, (left, values, right)
        for name, module in model.named_modules():
            if isinstance(module, torch.nn.Linear) and module is not model.get_output_embeddings():
                old = base.get_submodule(name).weight.detach()
                change = (module.weight.detach() - old).float()
                if not change.any():
                    raise ValueError(f"{name} did not change: give a model of method='full'")
                parts = torch.linalg.svd(change, full_matrices=False)
                self._layers[name] = module, old, parts

    def frame(self, *, rank: int = 16) -> pd.DataFrame:
        """One row a matrix.

        Columns: matrix (its name), layer (counted from 0), kind (such as q_proj), moved (norm of
        the change over the norm of the matrix before), held (share of the change's squared norm in
        its `rank` largest directions), directions (how many hold 90% of it).
        """
        rows = []
        for name, (_, old, (_, values, _)) in self._layers.items():
            shares = _shares(values)
            rows.append(
                {
                    "matrix": name,
                    "layer": int(re.search(r"\.(\d+)\.", name)[1]),  # as in model.layers.3.mlp
                    "kind": name.rsplit(".", 1)[-1],
                    "moved": float(values.norm() / old.float().norm()),
                    "held": float(shares[:rank].sum()),
                    "directions": int((shares.cumsum(0) < 0.9).sum()) + 1,
                }
            )
        return pd.DataFrame(rows)

    def spectrum(self) -> pd.DataFrame:
        """How much of the change the largest directions hold together, the mean of all matrices.

        Columns: directions (from 1 on), held (share of the change), random (the same of a matrix of
        independent normal entries).
        """
        import torch

        draw, held, random = torch.Generator().manual_seed(0), [], []
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
        after = {module: module.weight.data for module, _, _ in self._layers.values()}
        try:
            for module, old, (left, values, right) in self._layers.values():
                change = (left[:, :rank] * values[:rank]) @ right[:rank]
                module.weight.data = (old + change).to(old.dtype)
            yield
        finally:
            for module, weight in after.items():
                module.weight.data = weight


def _shares(values):
    """Of the squared norm, for each direction."""
    squared = values.double() ** 2
    return squared / squared.sum()
