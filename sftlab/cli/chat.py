"""`sftlab chat`: a base model continues a text, a saved run answers."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from sftlab.cli.app import command

HELP = "/reset starts a new conversation, /quit or Ctrl-D ends it."
Messages = list[dict[str, str]]
THINK, END = "<think>", "</think>"


@command
def chat(
    model: str = "tiny",
    system: str | None = None,
    tools: Path | None = None,
    thinking: bool = False,
    max_new_tokens: int = 64,
    sample: bool = False,
    changed: bool = False,
) -> None:
    how = {"system": system, "sample": sample, "max_new_tokens": max_new_tokens}
    how |= {"verify": not changed}
    greeting, reply = open_model(model, tools=_tools(tools) if tools else None, **how)
    print(greeting, file=sys.stderr)
    talk(reply, lines=_typed() if sys.stdin.isatty() else sys.stdin, thinking=thinking)


def open_model(
    name: str,
    *,
    system: str | None = None,
    tools: list[dict[str, Any]] | None = None,
    sample: bool = False,
    max_new_tokens: int = 64,
    verify: bool = True,
) -> tuple[str, Callable[[Messages], str]]:
    """A greeting, and a function from the conversation so far to the reply.

    `name` is the folder of a saved run, which may have a system message and tools, and is verified;
    or a profile, a model folder, a hub id.
    """
    options = {"sample": sample, "max_new_tokens": max_new_tokens}
    if (Path(name) / "run.json").is_file():
        from sftlab.train import load_run

        run = load_run(name, verify=verify)
        first = [{"role": "system", "content": system}] if system else []
        separate = "reasoning_content" in run.tokenizer.chat_template

        def answer(turns: Messages) -> str:
            messages = first + [_remembered(turn) if separate else turn for turn in turns]
            prompt = run.tokenizer.decode(run.prompt_ids(messages, tools)[-8:])
            # The seed differs from turn to turn, or sampling would make the same draws again.
            said = run.chat(messages, tools=tools, seed=len(turns), **options)
            return said if not prompt.rstrip().endswith(THINK) else f"{THINK}\n{said}"

        if tools:  # or an error, before it greets
            run.chat([{"role": "user", "content": "Hi"}], tools=tools, max_new_tokens=1)
        return f"{name} is a fine-tuned model: it answers. {HELP}", answer
    for option, value in {"--system": system, "--tools": tools}.items():
        if value is not None:
            raise ValueError(f"{name} is a base model, which takes no {option}; open a saved run")
    from sftlab.measure import complete
    from sftlab.models import load
    from sftlab.profiles import find_profile

    model, tokenizer = load(find_profile(name, verify=verify))

    def continue_text(turns: Messages) -> str:
        # The space before a word belongs to the word: a text that ends in one is continued badly.
        text = turns[-1]["content"].rstrip()
        return text + complete(model, tokenizer, [text], seed=len(turns), **options)[0]

    greeting = f"{name} is a base model: it continues your text and was not trained to answer.\n"
    return f"{greeting}Try 'The capital of France is', then a question. {HELP}", continue_text


def _tools(file: Path) -> list[dict[str, Any]] | None:
    """The tools of a file, as a row has them."""
    from sftlab.data import read_row

    try:
        tools = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not JSON ({error}); write what a row has as `tools`") from None
    asked = [{"role": "user", "content": "Hi"}]
    found = read_row({"messages": asked, "tools": tools}, answered=False)
    if found.problems:
        raise ValueError(f"{file}: {found.problems[0]}")
    return found.tools


def split_thinking(text: str) -> tuple[str, str]:
    """The thinking that an answer begins with, and the answer; empty while it is not finished."""
    if not text.lstrip().startswith(THINK):
        return "", text
    thought, _, answer = text.partition(THINK)[2].partition(END)
    return thought.strip(), answer.strip()


def _remembered(turn: dict[str, str]) -> dict[str, str]:
    """An earlier turn for a template that takes thinking apart from the content."""
    thought, said = split_thinking(turn["content"])
    apart = thought and turn["role"] == "assistant"
    return {**turn, "content": said, "reasoning_content": thought} if apart else turn


def talk(reply: Callable[[Messages], str], *, lines: Iterable[str], thinking: bool = False) -> None:
    """Reply to each line until /quit or the end; of thinking the number of words is shown, or all
    with `thinking`. A turn that the model cannot take is explained on stderr, and the conversation
    goes on without it."""
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
            thought, said = split_thinking(answer)
            if thought and not thinking:
                ended = "" if END in answer else "not finished: --max-new-tokens gives more room; "
                line = f"(thinking, {len(thought.split()):,} words; {ended}--thinking shows it)"
                print(f"\x1b[2m{line}\x1b[0m" if sys.stdout.isatty() else line, flush=True)
            if thinking or said or not thought:
                print(answer if thinking else said, flush=True)
            # A template has no place for an empty answer: that turn is left out of the next.
            if said.strip():
                turns = [*asked, {"role": "assistant", "content": answer}]


def _typed() -> Iterator[str]:
    """Lines typed at a prompt, with the terminal's own editing; Ctrl-D and Ctrl-C end them."""
    while True:
        try:
            yield input("> ")
        except (EOFError, KeyboardInterrupt):
            return
