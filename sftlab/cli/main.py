"""Where the command line starts, and how a mistake is reported."""

import io
import os
import sys

from sftlab.cli import chat, course, data, train  # noqa: F401 - their commands are registered
from sftlab.cli.app import WORDS, app

app.registered_commands.sort(key=lambda one: [*WORDS].index(one.callback.__name__))


def main() -> None:
    """Run the command line; a learner's mistake is one line on stderr and exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # rows have characters that a terminal may lack
            stream.reconfigure(errors="backslashreplace")
    try:
        app(prog_name="sftlab")
    except (ValueError, OSError) as mistake:
        if os.environ.get("SFTLAB_DEBUG"):
            raise
        print(f"sftlab: {mistake}", file=sys.stderr)
        sys.exit(2)
