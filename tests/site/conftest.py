"""The site of lessons as they are committed, built once in a process."""

import shutil
import sys
from pathlib import Path

import pytest

# The tests are imported one by one, not as a package: their helper has to be found.
sys.path.insert(0, str(Path(__file__).parent))

from sftlab.chat import CHATML
from sftlab.site import write_assets
from sftlab.site.building import run_sphinx
from sftlab.site.sources import write_sources


@pytest.fixture(scope="session")
def site(tmp_path_factory, toy_base) -> Path:
    """Its folder; the source is in `source` beside it. Without the API, whose rooms load long, and
    with a random model in the boxes that answer."""
    folder = tmp_path_factory.mktemp("site")
    write_sources(folder / "source", out=folder, api=False)
    toy = folder / "toy"
    shutil.copytree(toy_base, toy)
    (toy / "chat_template.jinja").write_text(CHATML, encoding="utf-8")
    write_assets(folder / "source/_extra/_static", base=toy_base, tuned=toy)
    assert run_sphinx(folder / "source", folder / "site") == []
    return folder / "site"
