"""`sftlab corpus` and `sftlab seen`: the training text of the base models."""

import itertools
from typing import Annotated

import typer


def corpus(
    count: Annotated[int, typer.Option(min=1, help="How many documents.")] = 5,
    seed: Annotated[int, typer.Option(help="0 is the corpus of the base models.")] = 0,
    kind: Annotated[str | None, typer.Option(help="Only documents of this kind.")] = None,
    stats: Annotated[bool, typer.Option(help="Print counts instead of the documents.")] = False,
) -> None:
    """Print documents of the base models' training text.

    \b
    For example:
      sftlab corpus                          the first five documents
      sftlab corpus --count 3 --kind story   three stories
      sftlab corpus --count 10000 --stats    how long ten thousand of them are
    """
    from sftlab.world import documents

    chosen = itertools.islice(documents(seed=seed, kind=kind), count)
    if not stats:
        for number, document in enumerate(chosen, start=1):
            typer.echo(f"--- document {number} ---\n{document.rstrip()}\n")
        return
    lengths = sorted(len(document) for document in chosen)
    typer.echo(f"documents   {count:>12,}")
    typer.echo(f"characters  {sum(lengths):>12,}")
    typer.echo(f"median      {lengths[count // 2]:>12,} characters a document")
    typer.echo(f"longest     {lengths[-1]:>12,} characters")


def seen(text: Annotated[str, typer.Argument(help="The exact text to look for.")]) -> None:
    """Count how often that training text holds a text.

    \b
    For example:
      sftlab seen "The capital of France is Paris"

    Capitals, spaces and full stops count. The first time takes half a minute, while the corpus is
    made again from its seed.
    """
    from sftlab.world import seen as count_in_corpus

    times = count_in_corpus(text)
    typer.echo("never seen" if times == 0 else f"seen {times:,} time{'s' * (times > 1)}")
