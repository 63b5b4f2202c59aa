"""Diagrams of the course: SVG files, which follow the theme, with the same in words.

    diagram("shift")            a notebook shows the picture, `print` the words
    diagram("lora").svg         to put it on a page of your own

Each file of `pictures/` has a title and a description; `diagram.css` has the classes. All are 520
units wide, so that their text can be read on a phone. Blue is what the loss counts or what is
trained, orange what a user writes, red what goes wrong.
"""

from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from sftlab.show.cards import render

_FILES = {file.stem: file for file in sorted(Path(__file__).with_name("pictures").glob("*.svg"))}
_END = "</desc>"  # behind which the style comes


@dataclass(frozen=True)
class Diagram:
    """A picture with its title and a description that says the same in words."""

    title: str
    description: str
    svg: str

    def __str__(self) -> str:
        return f"{self.title}. {self.description}"

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        return {"text/html": self.svg, "text/plain": str(self)}


def diagram(name: str) -> Diagram:
    """The diagram called `name`: causal_mask, generation_prompt, group_split, journey, labels,
    lora, packing, padding or shift. Another name is a ValueError."""
    if name not in _FILES:
        raise ValueError(f"there is no diagram {name!r}; choose one of {', '.join(_FILES)}")
    svg = _FILES[name].read_text(encoding="utf-8")
    title, words = (" ".join(part.text.split()) for part in ElementTree.fromstring(svg)[:2])
    return Diagram(title, words, svg.replace(_END, f"{_END}<style>{render('diagram.css')}</style>"))
