"""One server for the lessons that are executed here; in tests/browser each kernel begins alone."""

import pytest

from sftlab.course import ADDRESS, server


@pytest.fixture(scope="session")
def forks():
    """Its address. For the session: with xdist these tests and the browser's take turns."""
    with server() as address:
        yield address


@pytest.fixture(scope="module", autouse=True)
def _lessons_are_forks(forks):
    with pytest.MonkeyPatch.context() as patch:
        if forks:
            patch.setenv(ADDRESS, forks)
        yield
