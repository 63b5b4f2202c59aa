"""`sftlab chat`: a base model continues a text, a saved run answers."""

import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from sftlab.cli.app import command

HELP = "/reset starts a new conversation, /quit or Ctrl-D ends it."
Messages = list[dict[str, str]]


@command
def chat(model: str = "tiny", system: str | None = None, sample: bool = False) -> None:
    greeting, reply = open_model(model, system=system, sample=sample)
    print(greeting, file=sys.stderr)
    talk(reply, lines=_typed() if sys.stdin.isatty() else sys.stdin)


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
        # The seed differs from turn to turn, or sampling would make the same draws again.
        return (
            f"{name} is a fine-tuned model: it answers. {HELP}",
            lambda turns: run.chat(first + turns, seed=len(turns), **options),
        )
    if system is not None:
        raise ValueError(f"{name} is a base model, which takes no --system; open a saved run")
    from sftlab.measure import complete
    from sftlab.models import load

    model, tokenizer = load(name)

    def continue_text(turns: Messages) -> str:
        # The space before a word belongs to the word: a text that ends in one is continued badly.
        text = turns[-1]["content"].rstrip()
        return text + complete(model, tokenizer, [text], seed=len(turns), **options)[0]

    greeting = f"{name} is a base model: it continues your text and was not trained to answer.\n"
    return f"{greeting}Try 'The capital of France is', then a question. {HELP}", continue_text


def talk(reply: Callable[[Messages], str], *, lines: Iterable[str]) -> None:
    """Reply to each line until /quit or the end. A turn that the model cannot take is explained on
    stderr, and the conversation goes on without it."""
    turns: Messages = []
    for text in map(str.strip, lines):
        if text == "/quit":
            return
        if text == "/reset":
            turns = []
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
            return
