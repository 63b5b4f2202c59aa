"""`sftlab site`: the course as a site with slides, opened from disk without a network."""

import io
import re
from pathlib import Path

from sftlab.machine import import_extra
from sftlab.paths import cache_folder, check_writable, write_atomically
from sftlab.site.decks import write_deck
from sftlab.site.living import tuned_model, write_assets
from sftlab.site.sources import write_sources

LIBRARIES = "nbconvert sphinx myst_nb pydata_sphinx_theme sphinx_copybutton sphinx_revealjs".split()
ANSI = re.compile(r"\x1b\[[\d;]*m")


class SiteError(ValueError):
    """The course was not run, or Sphinx found something wrong with a page."""


def build_site(out: Path) -> Path:
    """Build the site from what `sftlab run --all --out OUT` left in `out`; returns its first page.

    The source is kept in `out/site-source`, so a second build makes only what has changed.

    Raises:
        SiteError: no lesson was executed there, or a page has a fault, such as a link to nowhere.
    """
    if not list((out / "executed").glob("*.ipynb")):
        raise SiteError(
            f"{out / 'executed'} holds no executed lesson; run `make course` first, or "
            f"`sftlab run --all --out {out}` (one lesson, as in `sftlab run 00`, is enough to try)"
        )
    check_writable(out)
    out = out.resolve()  # Sphinx takes a relative path from its settings' folder
    for library in LIBRARIES:
        import_extra(library, extra="site")
    source, site, log = out / "site-source", out / "site", out / "site-faults.txt"
    for lesson in sorted((out / "executed").glob("*.ipynb")):
        write_deck(lesson, site / "slides")
    write_sources(source, out=out)
    write_assets(source / "_extra/_static", tuned=tuned_model(cache_folder()))
    log.unlink(missing_ok=True)
    if faults := run_sphinx(source, site):
        write_atomically(log, "\n".join(faults) + "\n")
        raise SiteError(
            f"the site is built, but with {len(faults)} faults, all in {log}; mend them and build "
            f"again. The first: {faults[0]}"
        )
    return site / "index.html"


def run_sphinx(source: Path, site: Path) -> list[str]:
    """Build the pages of `source` into `site`; returns Sphinx's warnings."""
    from sphinx.application import Sphinx
    from sphinx.util.docutils import docutils_namespace, patch_docutils

    warnings = io.StringIO()
    extra = {"html_extra_path": [str(source / "_extra")]}
    places = (source, Path(__file__).parent, site, source / ".doctrees")
    # As sphinx-build does, so that a second build in this process finds docutils as it was.
    with patch_docutils(places[1]), docutils_namespace():
        app = Sphinx(*places, "html", confoverrides=extra, status=None, warning=warnings)
        app.build()
    return [ANSI.sub("", line) for line in warnings.getvalue().splitlines() if line.strip()]
