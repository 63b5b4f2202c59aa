"""The site of lessons as they are committed, built once in a process."""

import sys
from pathlib import Path

import pytest

# The tests are imported one by one, not as a package: their helper has to be found.
sys.path.insert(0, str(Path(__file__).parent))

from sftlab.site.building import run_sphinx
from sftlab.site.sources import write_sources


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Path:
    """Its folder; the source is in `source` beside it. Without the API, whose rooms load long."""
    folder = tmp_path_factory.mktemp("site")
    write_sources(folder / "source", out=folder, api=False)
    assert run_sphinx(folder / "source", folder / "site") == []
    return folder / "site"
