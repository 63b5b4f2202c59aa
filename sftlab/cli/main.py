"""Where the command line starts: the commands, and how a mistake is reported.

Imports stay inside the commands, so that `--help` answers at once.
"""

import errno
import os
import sys
import traceback

import typer

from sftlab.cli import chat, course, data, models, plan, train

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Learn supervised fine-tuning by measuring it, offline, on this machine.

    A mistake is answered with one line; SFTLAB_DEBUG=1 in the environment shows the traceback.
    """,
)
COMMANDS = (
    course.run, course.lab, course.claims, course.cache, data.corpus, data.seen, data.validate,
    data.doctor, data.mask, train.train, chat.chat, models.base, models.preflight, plan.plan,
)  # fmt: skip
"""In the order in which `--help` lists them."""
for command in COMMANDS:
    app.command()(command)


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


_PLACES = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.ENOSPC)


def _explain(mistake: Exception) -> str | None:
    """What to tell the learner; `None` for a defect, whose traceback is worth more."""
    if isinstance(mistake, OSError):
        said = " ".join(str(mistake).split()) or type(mistake).__name__
        if mistake.errno is None or not mistake.strerror:
            return said
        said = ": ".join(filter(None, [str(mistake.filename or ""), mistake.strerror]))
        if mistake.errno in _PLACES:
            said += (
                "; give a folder with room that you may write to: --out for the pages, the "
                "environment's SFTLAB_CACHE for the cache"
            )
        return said
    if isinstance(mistake, RecursionError | NotImplementedError):
        return None
    if isinstance(mistake, RuntimeError):
        # Those that the course itself raises are written for the learner; torch's are not.
        steps = list(traceback.walk_tb(mistake.__traceback__))
        module = steps[-1][0].f_globals.get("__name__", "") if steps else ""
        return str(mistake) if module.split(".")[0] == "sftlab" else None
    return str(mistake)
