import logging
import warnings

import pytest

from sftlab.measure.words import overheard


@pytest.fixture
def aloof():
    """A logger that passes nothing on, as transformers' does."""
    logger = logging.getLogger("tests.aloof")
    logger.propagate = False
    yield logger
    logger.propagate = True


def test_warnings_and_lines_of_any_logger_are_collected_and_not_shown(aloof, capsys):
    handlers = list(aloof.handlers)
    with overheard() as said:
        aloof.warning("one of %d", 3)
        logging.getLogger("tests.other").error("two")
        warnings.warn("three", stacklevel=1)
    assert said == ["one of 3", "two", "three"]
    assert capsys.readouterr().err == ""
    assert aloof.handlers == handlers


def test_lines_of_no_weight_are_not():
    with overheard() as said:
        logging.getLogger("tests.other").info("nothing")
    assert said == []


def test_a_repeated_warning_counts_each_time():
    with overheard() as said:
        for _ in range(2):
            warnings.warn("again", stacklevel=1)
    assert said == ["again", "again"]


def test_all_is_put_back_when_the_block_fails(aloof):
    root, own = list(logging.getLogger().handlers), list(aloof.handlers)
    with pytest.raises(ZeroDivisionError), overheard():
        1 / 0  # noqa: B018
    assert (logging.getLogger().handlers, aloof.handlers) == (root, own)
