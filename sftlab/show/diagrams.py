"""Diagrams of the course: SVG that follows the theme, with the same in words.

    diagram("shift")            a notebook shows the picture, `print` the words
    diagram("lora").svg         to put it on a page of your own

A picture is a file of `templates/diagrams/`, with its title and description in it; its colours are
classes of `templates/diagram.css`. All are 520 units wide, so that their text can be read on a
phone. Blue is what the loss counts or what is trained, orange what a user writes, red what goes
wrong.
"""

from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from sftlab.show.cards import render

_FOLDER = Path(__file__).with_name("templates") / "diagrams"
_FILES = {file.stem: file for file in sorted(_FOLDER.glob("*.svg"))}


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
    title, words = [one.text for one in ElementTree.fromstring(svg)[:2]]
    return Diagram(title, words, svg.replace("<style/>", f"<style>{render('diagram.css')}</style>"))
