"""Where the command line starts, and how a mistake is reported."""

import io
import os
import sys
from contextlib import suppress

from sftlab.cli import chat, course, data, ship, train  # noqa: F401 - their commands are registered
from sftlab.cli.app import WORDS, app

app.registered_commands.sort(key=lambda one: [*WORDS].index(one.name))


def main() -> None:
    """Run the command line: a learner's mistake is one line on stderr and exit code 2, any other
    error is one line and 1, Ctrl-C is 130; a closed pipe ends it quietly."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # rows have characters that a terminal may lack
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        if "" in sys.argv:  # as a path it would be this folder
            raise ValueError("an argument is empty: leave it out, or look at the variable it is")
        try:
            app(prog_name="sftlab")
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # `sftlab claims | head`
        with suppress(OSError):  # or Python would flush again when it ends, and complain
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if os.environ.get("SFTLAB_DEBUG"):
            raise
        print(f"sftlab: {_told(error)}", file=sys.stderr)
        sys.exit(2 if isinstance(error, ValueError | OSError) else 1)


def _told(error: Exception) -> str:
    """An error in words; one that no command foresees with its kind and how to see where."""
    ours = type(error).__module__.startswith("sftlab") or type(error) is ValueError
    if ours:
        return str(error)
    text = " ".join(str(error).split())[:500]
    if isinstance(error, OSError):
        return text
    text = f"{type(error).__name__}: {text}"
    if isinstance(error, MemoryError) or "memory" in text:
        return f"{text}; close other programs, or take smaller batches or a shorter max_length"
    return f"{text} (SFTLAB_DEBUG=1 in the environment shows where; please report a defect)"
