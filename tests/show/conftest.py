"""What the tests of several files of the room read pages and make estimates with."""

from html.parser import HTMLParser

import pandas as pd
import pytest

from sftlab.measure import mean


class Page(HTMLParser):
    """The tags of a page and what they point to; fails where one is not closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.sources = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href")]
        if tag not in ("br", "img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture
def page():
    return Page


@pytest.fixture
def share():
    """An estimate with one seed for each number of right items of twenty."""

    def made(*hits):
        rows = [(f"c{c}", seed, c < n) for seed, n in enumerate(hits) for c in range(20)]
        return mean(pd.DataFrame(rows, columns=["country", "seed", "right"]))

    return made
