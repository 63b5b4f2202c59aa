"""The base's own reading of the forgetting meter, which every run of it is compared with.

It is taken once for a version of the base and of the meter, and kept in the cache as Parquet.
"""

import os
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from sftlab.models import Profile, find_profile
from sftlab.paths import cache_folder
from sftlab.sweeps import base_hash, code_hash

if TYPE_CHECKING:
    import pandas as pd


def base_meter(profile: str | Path | Profile) -> "pd.DataFrame":
    """What `Run.meter` gives for the profile's model before any training.

    Raises:
        UnknownProfileError, ModelNotAvailableError: no such model, or it can't be loaded.
    """
    import pandas as pd

    from sftlab.train.finetuning import untrained

    profile = find_profile(profile)
    made_of = base_hash(profile) + code_hash(["sftlab.measure.forgetting"])
    file = cache_folder() / "meters" / f"{sha256(made_of.encode()).hexdigest()[:16]}.parquet"
    try:
        return pd.read_parquet(file)
    except (OSError, ValueError):  # none yet, or one that is broken
        found = untrained(profile).meter()
    file.parent.mkdir(exist_ok=True)
    beside = file.with_suffix(f".{os.getpid()}")
    found.to_parquet(beside)
    beside.replace(file)
    return found
