"""`sftlab chat`: a base model continues a text, a saved run answers."""

import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TextIO

from sftlab.cli.app import command

HELP = "/reset starts a new conversation, /quit or Ctrl-D ends it."
Messages = list[dict[str, str]]


@command
def chat(model: str = "tiny", system: str | None = None, sample: bool = False) -> None:
    greeting, reply = open_model(model, system=system, sample=sample)
    talk(greeting, reply, lines=sys.stdin)


def open_model(
    name: str, *, system: str | None = None, sample: bool = False, max_new_tokens: int = 64
) -> tuple[str, Callable[[Messages], str]]:
    """A greeting, and a function from the conversation so far to the reply.

    Args:
        name: the folder of a saved run (it has a run.json), or a profile, a model folder, a hub id.
        system: the system message of a saved run; ValueError for a base model.
    """
    options = {"sample": sample, "max_new_tokens": max_new_tokens}
    if (Path(name) / "run.json").is_file():
        from sftlab.train import load_run

        run = load_run(name)
        first = [{"role": "system", "content": system}] if system else []
        greeting = f"{Path(name).resolve().name} is a fine-tuned model: it answers. {HELP}"
        # The seed differs from turn to turn, or sampling would make the same draws again.
        return greeting, lambda turns: run.chat(first + turns, seed=len(turns), **options)
    if system is not None:
        raise ValueError(f"{name} is a base model, which takes no --system; open a saved run")
    from sftlab.measure import complete
    from sftlab.models import PROFILES, ModelNotAvailableError, find_profile, load

    profile = find_profile(name)
    try:
        model, tokenizer = load(profile)
    except ModelNotAvailableError as error:
        if not profile.on_hub or profile.name in PROFILES:
            raise
        # `runs/mine` may be a run or a model of the hub; nothing in the name tells which was meant.
        raise ValueError(
            f"there is no folder {name} in {Path.cwd()}, so {name} was taken for a model of the "
            f"hub. If a saved run is meant, give its folder. As a model of the hub: {error}"
        ) from error

    def continue_text(turns: Messages) -> str:
        # The space before a word belongs to the word: a text that ends in one is continued badly.
        text = turns[-1]["content"].rstrip()
        return text + complete(model, tokenizer, [text], seed=len(turns), **options)[0]

    greeting = f"{name} is a base model: it continues your text and was not trained to answer.\n"
    return f"{greeting}Try 'The capital of France is', then a question. {HELP}", continue_text


def talk(greeting: str, reply: Callable[[Messages], str], *, lines: TextIO | Iterable[str]) -> None:
    """Reply to each line until /quit or the end; at a terminal, prompt for them.

    Without a terminal only the replies are printed to stdout. A turn that the model cannot take is
    explained on stderr, and the conversation goes on without it.
    """
    at_terminal = bool(getattr(lines, "isatty", bool)())
    print(greeting, file=sys.stdout if at_terminal else sys.stderr)
    turns: Messages = []
    for text in map(str.strip, _typed() if at_terminal else lines):
        if text == "/quit":
            return
        if text == "/reset":
            turns = []
            print("(a new conversation)")
        elif text.startswith("/"):
            print(HELP, file=sys.stderr)
        elif text:
            asked = [*turns, {"role": "user", "content": text}]
            try:
                answer = reply(asked)
            except ValueError as mistake:
                print(f"{mistake} (or /reset)", file=sys.stderr)
                continue
            print(answer, flush=True)
            # A template has no place for an empty answer: that turn is left out of the next.
            if answer.strip():
                turns = [*asked, {"role": "assistant", "content": answer}]


def _typed() -> Iterator[str]:
    """Lines typed at a prompt, with the terminal's own editing; Ctrl-D and Ctrl-C end them."""
    while True:
        try:
            yield input("> ")
        except (EOFError, KeyboardInterrupt):
            print()
            return
