"""A report as headings, paragraphs, tables, pictures and transcripts, written as Markdown or HTML.

The HTML is one file: it needs no script, no style and no picture from elsewhere.
"""

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

from sftlab.show.plots import Picture

_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1c2128; background: #fff; margin: 0 auto;
       max-width: 56rem; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.6rem; margin: 0 0 .3rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
table { border-collapse: collapse; width: 100%; font-size: .93rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem .9rem .3rem 0;
         border-bottom: 1px solid #d8dee4; overflow-wrap: anywhere; }
th { font-weight: 600; color: #57606a; }
img { max-width: 100%; height: auto; }
code, .said { font-family: ui-monospace, monospace; font-size: .9rem; }
.sample { border-left: 4px solid #d8dee4; padding: .2rem .9rem; margin: 1rem 0; }
.who { color: #57606a; font-size: .82rem; margin-top: .45rem; }
.said { white-space: pre-wrap; overflow-wrap: anywhere; }
.same { background: #d5ead9; }
"""


class Document:
    """Collects parts in their order; `markdown` and `html` write them."""

    def __init__(self, title: str) -> None:
        self.title = title
        self._markdown = [f"# {title}"]
        self._html = [f"<h1>{escape(title)}</h1>"]
        self.pictures: dict[str, Picture] = {}

    def heading(self, text: str) -> None:
        """A section begins."""
        self._markdown.append(f"## {text}")
        self._html.append(f"<h2>{escape(text)}</h2>")

    def paragraph(self, text: str) -> None:
        """Plain text."""
        self._markdown.append(_plain(text))
        self._html.append(f"<p>{escape(text)}</p>")

    def code(self, text: str) -> None:
        """A command, or anything else to be copied."""
        self._markdown.append(f"```\n{text}\n```")
        self._html.append(f"<pre><code>{escape(text)}</code></pre>")

    def table(self, rows: Sequence[Sequence[str]], *, head: Sequence[str]) -> None:
        """A table; each row as long as its head."""
        lines = [head, ["---"] * len(head), *[[_cell(value) for value in row] for row in rows]]
        self._markdown.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
        self._html.append(
            f"<table><thead><tr>{_cells('th', head)}</tr></thead><tbody>"
            + "".join(f"<tr>{_cells('td', row)}</tr>" for row in rows)
            + "</tbody></table>"
        )

    def picture(self, name: str, picture: Picture) -> None:
        """A picture, which Markdown finds in the file `name` beside it."""
        self.pictures[name] = picture
        data = picture._repr_mimebundle_()[0]["image/png"]
        self._markdown.append(f"![{_plain(picture.alt)}]({name})")
        self._html.append(
            f'<img alt="{escape(picture.alt)}" '
            f'src="data:image/png;base64,{base64.b64encode(data).decode()}">'
        )

    def sample(self, parts: Sequence[tuple[str, str, int]]) -> None:
        """Who said what, and how many characters of it to mark: (who, text, marked)."""
        fence = "`" * max(3, 1 + max(_backticks(text) for _, text, _ in parts))
        self._markdown.append(
            "\n\n".join(f"{_plain(who)}\n\n{fence}\n{text}\n{fence}" for who, text, _ in parts)
        )
        said = [
            f'<div class="who">{escape(who)}</div><div class="said">'
            f'<span class="same">{escape(text[:marked])}</span>{escape(text[marked:])}</div>'
            for who, text, marked in parts
        ]
        self._html.append(f'<div class="sample">{"".join(said)}</div>')

    @property
    def markdown(self) -> str:
        """The report as Markdown."""
        return "\n\n".join(self._markdown) + "\n"

    @property
    def html(self) -> str:
        """The report as one page."""
        return (
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{escape(self.title)}</title><style>{_STYLE}</style></head><body>\n"
            + "\n".join(self._html)
            + "\n</body></html>\n"
        )

    def save(self, folder: Path) -> None:
        """Write report.md, its pictures, and at last report.html, which is there whole or not."""
        for name, picture in self.pictures.items():
            picture.save(folder / name)
        (folder / "report.md").write_text(self.markdown, encoding="utf-8")
        new = folder / "report.new"
        new.write_text(self.html, encoding="utf-8")
        new.replace(folder / "report.html")


def _cells(kind: str, values: Sequence[str]) -> str:
    return "".join(f"<{kind}>{escape(str(value))}</{kind}>" for value in values)


def _cell(value: str) -> str:
    return _plain(str(value)).replace("|", "\\|").replace("\n", " ")


def _plain(text: str) -> str:
    """A text in which Markdown finds no tag: `<|im_end|>` stays what it is."""
    return text.replace("<", "\\<")


def _backticks(text: str) -> int:
    longest = run = 0
    for character in text:
        run = run + 1 if character == "`" else 0
        longest = max(longest, run)
    return longest
