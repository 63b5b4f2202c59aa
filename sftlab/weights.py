"""What a model's folder holds, read from its config.json and the headers of its weights."""

import json
import math
from dataclasses import dataclass
from pathlib import Path


class BrokenWeightsError(ValueError):
    """A safetensors file that holds no weights, or not all of them."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The sizes that decide a decoder's memory."""

    layers: int
    """Number of decoder layers."""
    hidden: int
    """Width of the residual stream."""
    mlp: int
    """Width of the MLP's inner layer."""
    vocabulary: int
    """Rows of the embedding matrix."""


def shape_in(folder: Path) -> Shape | None:
    """The sizes that a folder's config.json states, `None` when it names them otherwise."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    names = ("num_hidden_layers", "hidden_size", "intermediate_size", "vocab_size")
    sizes = [config.get(name) for name in names]
    if not all(isinstance(size, int) for size in sizes):
        return None
    return Shape(layers=sizes[0], hidden=sizes[1], mlp=sizes[2], vocabulary=sizes[3])


def parameters_in(folder: Path) -> int | None:
    """Number of weights in a folder's safetensors, read from their headers; `None` when none.

    Raises:
        BrokenWeightsError: a file is cut short, or is git-lfs's pointer to the weights.
    """
    from safetensors import SafetensorError, safe_open

    total = 0
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118 - not a dict, it has no iterator
                    total += math.prod(tensors.get_slice(name).get_shape())
        except SafetensorError as error:
            with file.open("rb") as stream:
                pointer = stream.read(30).startswith(b"version https://git-lfs")
            raise BrokenWeightsError(
                f"{file} is a git-lfs pointer to the weights, not the weights themselves: run "
                "`git lfs pull` in the clone, or clone again with git-lfs installed"
                if pointer
                else f"{file} is cut short or damaged ({error}): delete it and fetch it again (in "
                "a clone, `git lfs pull` or clone again)"
            ) from error
    return total or None
