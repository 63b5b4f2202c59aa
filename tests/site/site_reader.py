"""What can be wrong with a page of the site, read from its file and seen in a browser."""

import re
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from axe_playwright_python.sync_playwright import Axe


class Tags(HTMLParser):
    """(tag, attributes) of a page, in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.all: list[tuple[str, dict[str, str]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.all.append((tag, dict(attrs)))


def faults(page: Path) -> list[str]:
    """Links and anchors to nowhere, pictures without words, and whatever comes from elsewhere."""
    found = []
    for tag, attrs in Tags(page.read_text(encoding="utf-8")).all:
        for key in {"src", "href"} & set(attrs):
            address, _, anchor = attrs[key].partition("#")
            if re.match(r"https?:|//", address):
                found += [f"{tag} loads {address}"] * (tag != "a")
                continue
            if address.startswith(("data:", "mailto:")):
                continue
            target = (page.parent / unquote(address.partition("?")[0])) if address else page
            if not target.is_file():
                found.append(f"{attrs[key]} leads to no file")
            elif anchor and tag == "a":
                there = anchors(target, target.stat().st_mtime)
                found += [f"{attrs[key]} leads to no anchor"] * (unquote(anchor) not in there)
        if tag == "img" and not attrs.get("alt", "").strip():
            found.append(f"a picture without words: {attrs.get('src', '')[:80]}")
    return found


@cache
def anchors(page: Path, changed: float) -> set[str]:
    return {attrs["id"] for _, attrs in Tags(page.read_text("utf-8")).all if "id" in attrs}


# Preloading would fetch styles, which a page from disk may not. Describing what is right takes as
# long as looking for what is wrong.
AXE = {"light": {"preload": False, "resultTypes": ["violations"]}}
AXE["dark"] = AXE["light"] | {"runOnly": ["color-contrast"]}


def look(browser: Any, address: str, *, text="On this page", skip="none") -> list[str]:
    """Faults of a page that is opened from disk without a network: requests, errors of its scripts,
    what is wider than the window, what axe finds, in light and dark, with `text` there and all
    folds open. What `skip` selects is taken out before axe looks: it would read all of it first."""
    found: list[str] = []
    for theme in ("light", "dark"):
        context = browser.new_context(color_scheme=theme)
        context.set_offline(True)
        tab = context.new_page()
        tab.on("console", lambda said: found.extend([said.text] * (said.type == "error")))
        tab.on("pageerror", lambda error: found.append(str(error)))
        tab.on("request", lambda asked: found.extend(re.findall("^(?!file:|data:).*", asked.url)))
        tab.goto(address)
        tab.locator("main", has_text=text).wait_for()
        tab.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        ground = tab.evaluate("getComputedStyle(document.documentElement).colorScheme")
        found.extend([f"{theme} shows {ground}"] * (ground != theme))
        for width in (400, 1280):
            tab.set_viewport_size({"width": width, "height": 900})
            wide = tab.evaluate("document.documentElement.scrollWidth")
            found.extend([f"{width} wide, the page has {wide}"] * (wide > width))
        tab.evaluate("what => document.querySelectorAll(what).forEach(one => one.remove())", skip)
        for one in Axe().run(tab, None, AXE[theme]).response["violations"]:
            if one["impact"] in ("serious", "critical"):
                places = [node["html"][:200] for node in one["nodes"][:3]]
                found.append(f"{theme}: {one['id']}, {len(one['nodes'])} times: {places}")
        context.close()
    return found
