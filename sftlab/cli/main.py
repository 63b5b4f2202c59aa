"""Where the command line starts, and how a mistake is reported."""

import io
import os
import re
import sys
from contextlib import suppress

from sftlab.cli import chat, course, data, train  # noqa: F401 - their commands are registered
from sftlab.cli.app import WORDS, app

app.registered_commands.sort(key=lambda one: [*WORDS].index(one.callback.__name__))


def main() -> None:
    """Run the command line: a learner's mistake is one line on stderr and exit code 2, an error
    that no command foresees is one line and 1, Ctrl-C is 130; a closed pipe ends it quietly."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # rows have characters that a terminal may lack
            stream.reconfigure(errors="backslashreplace")
    try:
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
    """An error in words; one that is not the lab's own with its kind and how to see where."""
    if type(error).__module__.startswith("sftlab") or type(error) is ValueError:
        return str(error)
    text = " ".join(str(error).split())[:500]
    if isinstance(error, OSError) and error.errno:
        return text
    if isinstance(error, MemoryError) or re.search("(out of|enough|allocate) memory", text):
        text += "; memory ran out: close other programs, or take smaller batches (--set "
        text += "per_device_train_batch_size=1) or shorter rows (--set max_length=128)"
    debug = "SFTLAB_DEBUG=1 in the environment shows where; if it is a defect, please report it"
    return f"{type(error).__name__}: {text} ({debug})"
