"""A run as a Python script in plain TRL, PEFT and bitsandbytes: `recipe.jinja` is its text."""

from pathlib import Path
from pprint import pformat
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from sftlab.models import ADAPTED, find_profile
from sftlab.train.methods import LORA_CONFIG
from sftlab.train.settings import SFT_CONFIG

if TYPE_CHECKING:
    from sftlab.train.run import Run


class RecipeError(ValueError):
    """A run that plain TRL and PEFT can't do."""


def recipe_text(run: "Run") -> str:
    """The script; `Run.recipe` says how to use it.

    Raises:
        RecipeError: the run used what the libraries do not have, such as gradual unfreezing.
    """
    settings, profile = run.settings, run.provenance["profile"]
    lacking = {
        "method='gradual'": settings.method == "gradual",
        "dropout": settings.dropout,
        "train_control_tokens=False": not settings.train_control_tokens,
    }
    if named := [name for name, used in lacking.items() if used]:
        raise RecipeError(f"TRL and PEFT have no {', '.join(named)}: train a run without")
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["repr"] = repr
    return environment.get_template("recipe.jinja").render(
        settings=settings,
        tokenizer=run.tokenizer,
        model=find_profile(profile["name"]).source if profile["embedded"] else profile["source"],
        revision=profile["revision"],
        added=pformat(run.provenance["added_tokens"], width=90),
        config=run.model.config.get_text_config(),
        peft=run.model.peft_config["default"] if settings.method in ADAPTED else None,
        same=SFT_CONFIG,
        lora=LORA_CONFIG,
    )
