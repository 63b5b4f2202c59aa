"""Where the command line starts, and how a mistake is reported."""

import errno
import os
import sys
import traceback

from sftlab.cli import chat, course, data, train  # noqa: F401 - their commands are registered
from sftlab.cli.app import WORDS, app

app.registered_commands.sort(key=lambda one: [*WORDS].index(one.callback.__name__))
_PLACES = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.ENOSPC)
_ROOM = (
    "; give a folder with room that you may write to: --out for the pages, the environment's "
    "SFTLAB_CACHE for the cache"
)


def main() -> None:
    """Run the command line; a learner's mistake is one line on stderr and exit code 2."""
    try:
        app(prog_name="sftlab")
    except (ValueError, OSError, RuntimeError) as mistake:
        said = _explain(mistake)
        if said is None or os.environ.get("SFTLAB_DEBUG"):
            raise
        print(f"sftlab: {said}", file=sys.stderr)
        sys.exit(2)


def _explain(mistake: Exception) -> str | None:
    """What to tell the learner; `None` for a defect, whose traceback is worth more."""
    if isinstance(mistake, RuntimeError):
        # Those that the course itself raises are written for the learner; torch's are not.
        *_, (frame, _) = traceback.walk_tb(mistake.__traceback__)
        ours = frame.f_globals.get("__name__", "").startswith("sftlab.")
        defect = isinstance(mistake, RecursionError | NotImplementedError) or not ours
        return None if defect else str(mistake)
    if not isinstance(mistake, OSError):
        return str(mistake)
    if mistake.errno is None or not mistake.strerror:
        return " ".join(str(mistake).split()) or type(mistake).__name__
    said = ": ".join(filter(None, [str(mistake.filename or ""), mistake.strerror]))
    return said + (_ROOM if mistake.errno in _PLACES else "")
