"""The site of lessons as they are committed, built once in a process."""

import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

# The tests are imported one by one, not as a package: their helpers have to be found.
sys.path.insert(0, str(Path(__file__).parent))

from sftlab.site.building import run_sphinx
from sftlab.site.sources import write_sources


@dataclass
class Site:
    out: Path

    @property
    def source(self) -> Path:
        return self.out / "site-source"

    @property
    def pages(self) -> Path:
        return self.out / "site"

    def read(self, name: str) -> str:
        return (self.pages / f"{name}.html").read_text(encoding="utf-8")

    def build(self) -> list[str]:
        return run_sphinx(self.source, self.pages)


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Site:
    """Without its API, whose rooms take long to import."""
    made = Site(tmp_path_factory.mktemp("site"))
    write_sources(made.source, out=made.out, api=False)
    assert made.build() == []
    return made
