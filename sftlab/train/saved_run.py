"""A saved fine-tune, opened again."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from sftlab.machine import pick_device
from sftlab.models import ADAPTED, Profile, find_profile, local_folder, weights_hash
from sftlab.quiet import quiet_libraries
from sftlab.train import adapters
from sftlab.train.run import LATER, METER, Run, RunError
from sftlab.train.settings import Settings
from sftlab.train.speech import grow_embeddings


def load_run(folder: str | Path) -> Run:
    """Open a run that `Run.save` wrote; the network is used only for a hub base not in the cache.

    Raises:
        RunError: there is no run in the folder, it can't be read, or the base below its adapters
            is no longer the one it was trained on.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = Path(folder)
    try:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        settings = Settings(**record["settings"])
        fields = {name: record[name] for name in ("seconds", "tokens", "provenance", "history")}
        fields |= {name: record[name] for name in LATER if name in record}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{folder} can't be opened as a run: {error}; give the folder that Run.save wrote"
        ) from error
    with quiet_libraries():
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
            if settings.method not in ADAPTED:
                model = AutoModelForCausalLM.from_pretrained(
                    folder,
                    local_files_only=True,
                    trust_remote_code=False,
                    use_safetensors=True,
                    dtype=torch.float32,
                )
                if not fields["provenance"]["profile"]["embedded"]:  # as `load` places its base
                    model.to(pick_device())
            else:
                model = _with_adapters(folder, tokenizer, settings, fields["provenance"])
        except OSError as error:
            raise RunError(f"{folder} is incomplete: {error}") from error
    meter = pd.read_parquet(folder / METER) if (folder / METER).is_file() else None
    return Run(model=model.eval(), tokenizer=tokenizer, settings=settings, _meter=meter, **fields)


def _with_adapters(folder: Path, tokenizer, settings: Settings, provenance: dict[str, Any]):
    from peft import PeftModel
    from transformers import GenerationConfig

    profile = Profile(**provenance["profile"])
    if profile.embedded:
        profile = Profile(**{**vars(find_profile(profile.name)), "method": profile.method})
    elif not profile.on_hub and local_folder(profile) is None:
        raise RunError(
            f"{folder} holds adapters, and the model below them is no longer in {profile.source}; "
            "put it back there, or fine-tune again"
        )
    model, _ = adapters.load_base(profile, settings)
    if weights_hash(local_folder(profile)) != provenance["base_weights"]:
        raise RunError(
            f"{folder} holds adapters for another version of {profile.name}: the hash of the base's"
            " weights differs; get that version, or fine-tune again"
        )
    if provenance["added_tokens"]:
        grow_embeddings(model, len(tokenizer))
    model.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
    found = PeftModel.from_pretrained(model, str(folder), local_files_only=True)
    adapters.cast(found, settings.adapter_dtype)
    return found
