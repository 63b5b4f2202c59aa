"""What libraries say while they work: warnings, and lines that they log."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def overheard() -> Iterator[list[str]]:
    """Collect the warnings of any module and what any logger tells at WARNING or above.

    What is collected is shown nowhere else. Yields a list that fills while the block runs.
    """
    said: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    ear = Ear(level=logging.WARNING)
    loggers = [logging.getLogger()]
    # A library that handles its own lines, as transformers does, passes none on to the root.
    loggers += [
        one
        for one in logging.Logger.manager.loggerDict.values()
        if isinstance(one, logging.Logger) and not one.propagate
    ]
    kept = [(one, one.handlers) for one in loggers]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for one in loggers:
            one.handlers = [ear]
        try:
            yield said
        finally:
            for one, handlers in kept:
                one.handlers = handlers
            said += [str(warning.message) for warning in caught]
