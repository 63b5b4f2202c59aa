"""Talk to a model line by line: a base model continues a text, a saved run answers."""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol, TextIO

HELP = "/reset begins anew, /quit or Ctrl-D ends."


class Speaker(Protocol):
    """Someone to talk to."""

    greeting: str
    """What to know before the first line."""

    def say(self, text: str) -> str:
        """The reply to one line."""

    def reset(self) -> None:
        """Forget what was said."""


class BaseSpeaker:
    """A base model: it knows no turns, so each line is continued for itself."""

    def __init__(self, name: str, continue_text: Callable[[str, int], str]) -> None:
        self.greeting = (
            f"{name} is a base model: it continues your text and was never taught to answer.\n"
            f"Try 'The capital of France is', then a question. {HELP}"
        )
        self._continue = continue_text
        self._turn = 0

    def say(self, text: str) -> str:
        self._turn += 1
        # The space before a word belongs to the word: a text that ends in one is continued badly.
        return text.rstrip() + self._continue(text.rstrip(), self._turn)

    def reset(self) -> None:
        self._turn = 0


class RunSpeaker:
    """A fine-tuned model: it is told the whole conversation at each turn."""

    def __init__(
        self, name: str, chat: Callable[[list[dict[str, str]], int], str], *, system: str | None
    ) -> None:
        self.greeting = f"{name} is a fine-tuned model: it answers. {HELP}"
        self._chat = chat
        self._system = [{"role": "system", "content": system}] if system else []
        self._said: list[dict[str, str]] = []

    def say(self, text: str) -> str:
        asked = [*self._said, {"role": "user", "content": text}]
        # The seed differs from turn to turn, or sampling would make the same draws again.
        answer = self._chat(self._system + asked, len(asked))
        # An empty answer has no place in a conversation, so that turn is left out of the next.
        if answer.strip():
            self._said = [*asked, {"role": "assistant", "content": answer}]
        return answer

    def reset(self) -> None:
        self._said = []


def open_model(
    name: str, *, system: str | None = None, sample: bool = False, max_new_tokens: int = 64
) -> Speaker:
    """Load a saved run (a folder with run.json) or else a profile, as a base model.

    Raises ValueError when it is neither, or when a base model is given a system message.
    """
    if (Path(name) / "run.json").is_file():
        from sftlab.train import load_run

        run = load_run(name)
        return RunSpeaker(
            Path(name).resolve().name,
            lambda messages, seed: run.chat(
                messages, sample=sample, max_new_tokens=max_new_tokens, seed=seed
            ),
            system=system,
        )
    from sftlab.profiles import PROFILES, find_profile

    profile = find_profile(name)
    if system is not None:
        raise ValueError(f"{name} is a base model, which takes no --system; open a saved run")
    from sftlab.measure import complete
    from sftlab.models import ModelNotAvailableError, load

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

    def continue_text(text: str, seed: int) -> str:
        return complete(
            model, tokenizer, [text], max_new_tokens=max_new_tokens, sample=sample, seed=seed
        )[0]

    return BaseSpeaker(profile.name, continue_text)


def talk(speaker: Speaker, *, lines: TextIO | Iterable[str], out: TextIO | None = None) -> None:
    """Answer each line until /quit or the end; at a terminal, prompt for them.

    Without a terminal only the replies are printed to `out` (stdout), one after another. A turn
    that the model can't take is explained on stderr, and the conversation goes on without it.
    """
    out = out or sys.stdout
    at_terminal = bool(getattr(lines, "isatty", bool)())
    if at_terminal:
        print(speaker.greeting, file=out)
    else:
        print(speaker.greeting, file=sys.stderr)
    for text in _typed() if at_terminal else lines:
        text = text.strip()
        if text == "/quit":
            return
        if text == "/reset":
            speaker.reset()
            print("(a new conversation)", file=out)
        elif text.startswith("/"):
            print(HELP, file=sys.stderr)
        elif text:
            try:
                print(speaker.say(text), file=out, flush=True)
            except ValueError as mistake:
                print(f"{mistake} (or /reset)", file=sys.stderr)


def _typed() -> Iterable[str]:
    """Lines typed at a prompt, with the terminal's own editing; Ctrl-D and Ctrl-C end them."""
    while True:
        try:
            yield input("> ")
        except (EOFError, KeyboardInterrupt):
            print()
            return
