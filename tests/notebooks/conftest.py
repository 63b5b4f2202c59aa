"""One server for the lessons that are executed here; in tests/browser each kernel begins alone."""

import pytest

from sftlab.course.forked.launch import ADDRESS
from sftlab.course.forked.server import server


@pytest.fixture(scope="session", autouse=True)
def _forks_of_one_server():
    # For the session: xdist has a lesson's tests here follow those in the browser, again and again.
    with server() as address, pytest.MonkeyPatch.context() as patch:
        if address:
            patch.setenv(ADDRESS, address)
        yield
