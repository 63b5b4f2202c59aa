"""The base model that a run begins with, as a hash."""

import hashlib
import json
from contextlib import suppress
from functools import cache
from pathlib import Path

from sftlab.models import Profile, local_folder, weights_hash
from sftlab.sweeps.notes import note, noted
from sftlab.sweeps.sources import Stamped, file_hash, stamped

LARGE = 50_000_000
"""Bytes of weights from which their hash is noted: about 0.1 s of reading."""
WEIGHTS = "weights"
"""Name of the notes about large weights."""

_BESIDE_WEIGHTS = ("config.json", "generation_config.json", "token*", "special_tokens*", "vocab*",
                   "merges*", "added_tokens*", "chat_template*", "*.model")  # fmt: skip


def base_hash(profile: Profile) -> str:
    """SHA-256 over a profile's weights, its configuration and its tokenizer.

    The first use of a hub profile downloads it.

    Raises:
        ModelNotAvailableError: the weights can't be had.
    """
    folder = local_folder(profile)
    if folder is None:
        from sftlab.models import load

        load(profile)  # downloads, or says why it can't
        folder = local_folder(profile)
    parts = {"weights": _weights_hash(folder), "embedded": profile.embedded}
    for pattern in _BESIDE_WEIGHTS:
        parts |= {file.name: file_hash(*stamped(file)) for file in folder.glob(pattern)}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@cache
def _small_weights_hash(folder: Path, *files: Stamped) -> str:
    """Computed anew in each process, and when one of the files has changed."""
    return weights_hash(folder)


def _weights_hash(folder: Path) -> str:
    files = [stamped(file) for file in sorted(folder.glob("*.safetensors"))]
    if sum(file.size for file in files) < LARGE:
        return _small_weights_hash(folder, *files)
    stamps = [[Path(file.path).name, file.size, file.time] for file in files]
    with suppress(KeyError, TypeError, ValueError):
        told, digest = noted(WEIGHTS)[str(folder)]
        if told == stamps:
            return digest
    digest = weights_hash(folder)
    note(WEIGHTS, {str(folder): [stamps, digest]})
    return digest
