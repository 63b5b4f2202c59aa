"""`sftlab base` and `preflight`: the models of the course, and what a machine can do."""

from typing import Annotated

import typer


def base(
    names: Annotated[
        list[str] | None, typer.Argument(help="tiny, small, or both when none is named.")
    ] = None,
    card_only: Annotated[
        bool, typer.Option("--card-only", help="Measure the models that are there; train none.")
    ] = False,
) -> None:
    """Train the base models again from nothing, and measure them.

    \b
    For example:
      sftlab base                 an hour or two on two cores
      sftlab base --card-only     the model cards and pictures again, some minutes a model

    Interrupted, it goes on from its last checkpoint in build/base when it is run again.
    """
    import json

    from sftlab.course import write_card
    from sftlab.paths import DATA
    from sftlab.show import plot_card, plot_pretraining
    from sftlab.world import EARLY, RECIPES, train_all

    unknown = set(names or []) - set(RECIPES)
    if unknown:
        raise ValueError(f"no recipe for {', '.join(unknown)}; there are: {', '.join(RECIPES)}")
    chosen = names or list(RECIPES)
    if not card_only:
        train_all(chosen)
    for name in [*chosen, *([EARLY[0]] if EARLY[1] in chosen else [])]:
        folder = DATA / "models" / name
        typer.echo(f"measuring {name}")
        measures = write_card(name, folder)
        missed = [f"{m.what} ({m.part})" for m in measures if m.met is False]
        typer.echo(f"{name}: " + (f"bars missed: {'; '.join(missed)}" if missed else "bars met"))
        card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
        plot_card(card).save(folder / "journey.png")
        log = json.loads((folder / "training_log.json").read_text(encoding="utf-8"))
        plot_pretraining(log, name=name).save(folder / "training.png")


def preflight(
    profile: Annotated[
        str, typer.Argument(help="A profile, a model folder, or a hub id.")
    ] = "tiny",
    method: Annotated[
        str | None, typer.Option(help="How to train; by default as the profile says.")
    ] = None,
) -> None:
    """Tell whether this machine can fine-tune a model.

    \b
    For example:
      sftlab preflight tiny
      sftlab preflight llama-3.1-8b-qlora
    """
    from sftlab.planner import preflight as check

    found = check(profile, method=method)
    typer.echo(str(found))
    if not found.ok:
        raise typer.Exit(1)
