"""One JupyterLab for all tests of this folder."""

import re
import shutil
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# The tests are imported one by one, not as a package: their helpers have to be found.
sys.path.insert(0, str(Path(__file__).parent))

from browser_reader import Reader, complaints
from lab_server import ROOT, start_lab


@pytest.fixture(scope="session")
def reader(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """Someone with JupyterLab open over a copy of the notebooks; nothing is written into ours."""
    folder = tmp_path_factory.mktemp("lab")
    shutil.copytree(ROOT / "notebooks", folder / "work", ignore=shutil.ignore_patterns(".*"))
    for path in (folder / "work").glob("*.ipynb"):
        # With the seeds of tests/notebooks; and unfolded, since what is folded can't be seen.
        few = ROOT / "tests/notebooks/expected" / f"{path.stem}.toml"
        seeds = tomllib.loads(few.read_text("utf-8")).get("seeds", 1) if few.is_file() else 1
        text = re.sub(r'"seeds = \d', f'"seeds = {seeds}', path.read_text(encoding="utf-8"))
        text = text.replace("jp-MarkdownHeadingCollapsed", "unfolded")
        path.write_text(text, encoding="utf-8")
    lab = start_lab(folder)
    reader = Reader(lab, browser)
    yield reader
    reader.close()
    reader.context.close()
    lab.stop()


@pytest.fixture
def assert_nothing_wrong(
    reader: Reader, tmp_path: Path, from_browser: Path
) -> Callable[[str], None]:
    """Run a notebook and fail with every complaint, and with files that show what was there.

    Without one it is put where tests/notebooks looks for it.
    """

    def check(name: str) -> None:
        seen = reader.run(name)
        if found := complaints(seen):
            kept = reader.keep(seen, folder=tmp_path)
            pytest.fail("\n".join([f"{name} in JupyterLab (see {kept}):", *found]), pytrace=False)
        reader.lab.records.mkdir(exist_ok=True)
        done = shutil.copytree(reader.lab.records, from_browser / Path(name).stem / "records")
        shutil.copy(reader.lab.folder / name, done.parent)

    return check
