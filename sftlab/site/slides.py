"""What of a lesson is on its slides, and what in the speaker notes.

It follows from the executed notebook, so that there is no second source to keep:

    ## and ### headings         open a slide
    picture, card, table        on it, cut to what can be read; a sentence goes beside what it reads
    curves that were recorded   drawn as if the training ran again, at the presenter's key
    "Predict ...?", a quiz      a slide that asks the room
    code                        a training loop; up to three lines that print the lines below them
    prose, exercises            speaker notes, with the misconceptions that an exercise knows
    set-up, `deep` parts        left out
    tags overrule               `slide`: code or prose on a slide of its own; `notes`; `skip`
"""

import ast
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import accumulate
from typing import Any

from markupsafe import Markup

from sftlab.exercises import exercise, quiz_questions
from sftlab.show import CURVES

WORDS, LINES = 60, 12
"""Most words and lines of code on a slide; pictures, masks and the numbers of a table are not
counted."""
_PREDICT = re.compile(r"(.*)\bPredict[^:?]*: ([^?]*\?)")
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[\[\"`*A-Z0-9])")
_TABLE = re.compile(r"(?m)(?:^\|.*\n?)+")


@dataclass
class Block:
    """Something on a slide."""

    kind: str  # title, list, text, ask, code, print, table, card, claim, diagram, picture, replay
    html: str
    words: int = 0
    room: float = 0.7  # of the slide's height, about


@dataclass
class Slide:
    """A slide with its notes."""

    heading: str
    section: str  # the `## ` heading that it belongs to
    blocks: list[Block] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # markdown
    cell: int = -1  # the cell that its last block is of
    again: bool = False  # the slide before it has the same heading

    @property
    def above(self) -> str:
        """The section's name, where the heading is that of a part of it."""
        return self.section if self.section != self.heading else ""

    @property
    def most(self) -> int:
        """Words beside the headings."""
        return WORDS - count_words(f"{self.heading} {self.above}")

    @property
    def words(self) -> int:
        """Words left."""
        return self.most - sum(block.words for block in self.blocks)

    @property
    def room(self) -> float:
        """Height left."""
        return 1.01 - sum(block.room for block in self.blocks)

    @property
    def kind(self) -> str:
        return " ".join(dict.fromkeys(block.kind for block in self.blocks))


def count_words(text: str, *, numbers: bool = True) -> int:
    """Words of a text, and its numbers; marks alone are none."""
    counted = str.isalnum if numbers else str.isalpha
    return sum(any(map(counted, word)) for word in text.split())


def packed(items: Sequence[str], most: int) -> list[list[str]]:
    """Items on as few slides as can be, about as much on each; a line takes room as five words."""
    sizes = [max(count_words(item), 5) for item in items]
    packs: list[list[str]] = []
    for parts in range(1, len(items) + 1):
        packs, full = [[] for _ in range(parts)], [0] * parts
        for item, size, end in zip(items, sizes, accumulate(sizes), strict=True):
            part = int(parts * (end - size / 2) / sum(sizes))
            packs[part].append(item)
            full[part] += size
        if max(full) <= most:
            break
    return [pack for pack in packs if pack]


def markdown(text: str, *, inline: bool = False) -> Markup:
    """Markdown as HTML; of links only the words, since a deck leads nowhere."""
    from nbconvert.filters import markdown2html

    text = re.sub(r"^(\d+)\.", r"\1\\.", text) if inline else text  # "1. A heading" is no list
    html = re.sub(r"</?a\b[^>]*>|&para;", "", markdown2html(text)).replace(r"\|", "|")
    return Markup(re.sub(r"</?p>", "", html).strip() if inline else html)


def sentences(text: str, most: int) -> str:
    """The first sentences of a text that have at most so many words together."""
    found = ""
    for one in _SENTENCE.split(" ".join(text.split())):
        if count_words(f"{found} {one}") > most:
            break
        found = f"{found} {one}".strip()
    return found


def read_slides(notebook: Any, number: str) -> list[Slide]:
    """The slides of an executed lesson without its set-up cells; `number` is such as "08"."""
    title, *cells = notebook.cells
    deck = Deck()
    deck.title(title.source)
    for n, cell in enumerate(cells):
        tags = {*cell.metadata.get("tags", [])}
        if cell.cell_type == "markdown":
            deck.prose(cell.source, tags)
        elif deck.section and deck.deep == 7 and "skip" not in tags:
            deck.code(cell, tags, n)
    return deck.finished()


class Deck:
    """Slides that grow, cell by cell."""

    def __init__(self) -> None:
        self.slides: list[Slide] = []
        self.section = self.question = ""  # the `## ` heading here, what was to be predicted in it
        self.deep = 7  # level of the heading that opens a part to leave out; 7: there is none
        self.deeper: list[str] = []  # headings of what is left out
        self.fresh = False  # the next block needs a slide of its own

    def title(self, text: str) -> None:
        """The first cell: what the lesson is about, and what one can do after it."""
        title, promise, *_ = [line for line in text.splitlines() if line.strip()]
        heading = title.removeprefix("# ")
        slide = Slide(heading, heading, [Block("title", markdown(promise), count_words(promise))])
        slide.notes = [re.sub(r"(?s)^.*?(?=\*\*Needs)", "", text)]
        objectives = "After this lesson you can"
        self.slides = [slide, Slide(objectives, objectives)]
        self.listed(re.findall(r"^\d\. (.*)", text, flags=re.MULTILINE))

    def more(self) -> Slide:
        """A further slide under the same heading, unless there is nothing on this one."""
        last = self.slides[-1]
        if last.blocks:
            self.slides.append(Slide(last.heading, last.section, again=True))
        return self.slides[-1]

    def put(self, block: Block, cell: int = -1) -> None:
        """A block on this slide if it belongs to what is there and fits, else on another."""
        last = self.slides[-1]
        belongs = not last.blocks or cell == last.cell != -1 or block.kind == "text"
        belongs = belongs and "ask" not in last.kind and not self.fresh
        if not belongs or block.words > last.words or block.room > last.room:
            last = self.more()
        last.blocks.append(block)
        last.cell, self.fresh = cell, False

    def say(self, text: str) -> None:
        """Text for the notes of this slide."""
        self.slides[-1].notes += [text.strip()] if text.strip() else []

    def ask(self, question: str, notes: str, also: Sequence[str] = (), form: str = "") -> None:
        """A slide that asks the room, with options or what else helps if they are short enough."""
        slide, words = self.more(), count_words(" ".join([question, *also]))
        if words > slide.words:
            also, words = (), count_words(question)
        html = f"<p>{markdown(question, inline=True)}</p>"
        html += form.format("".join(f"<li>{markdown(one, inline=True)}</li>" for one in also))
        self.put(Block("ask", html, words))
        self.say(notes)

    def predict(self, found: re.Match) -> None:
        """What a lesson asks before a run; curves that follow ask it again and wait."""
        self.question = found[2][0].upper() + found[2][1:]
        before = _SENTENCE.split(re.sub(r"\s*\([^()]*\)", "", found[1]).strip())[-1]
        notes = "Everybody writes an answer down. Ask two who differ for reasons."
        self.ask(self.question, notes, [before] if before else [], "<ul>{}</ul>")

    def listed(self, items: Sequence[str]) -> None:
        """A list, on as many slides as it needs."""
        for pack in packed(items, self.slides[-1].most):
            html = "".join(f"<li>{markdown(one, inline=True)}</li>" for one in pack)
            self.more()
            self.put(Block("list", f"<ul>{html}</ul>", count_words(" ".join(pack)), 0.9))

    def prose(self, source: str, tags: set[str]) -> None:
        """A cell of text, heading by heading."""
        text = re.sub(r"(?ms)^```.*?^```$", "", source)
        if "exercise" in tags:
            if self.section and self.deep == 7:
                self.task(text)
            return
        for piece in re.split(r"(?m)^(?=#{2,3} )", text):
            if head := re.match(r"(#{2,3}) +(.+)\n*", piece):
                level, words = len(head[1]), head[2].strip()
                if level <= self.deep:
                    self.deep = level if tags & {"deep", "skip"} else 7
                if self.deep == 7:
                    if level == 2:
                        self.section, self.question = words, ""
                    self.slides.append(Slide(words, self.section))
                self.deeper += [words.removeprefix("Deeper: ")] if level == self.deep else []
            if self.section and self.deep == 7 and "skip" not in tags:
                self.text(piece[head.end() :] if head else piece, tags)

    def text(self, text: str, tags: set[str]) -> None:
        """Text below a heading: notes, and what of it is to be seen or asked."""
        if self.section == "Recall":
            answers = re.findall(r"(?s)<li>(.*?)</li>", text)
            for asked, answer in zip(re.findall(r"(?m)^\d+\. (.*)", text), answers, strict=False):
                self.ask(asked, answer)
            return
        if "slide" in tags:
            self.fresh = True
            self.sentence(text, kind="list")
        self.say(_TABLE.sub("", text))
        if "notes" in tags:
            return self.say("\n".join(_TABLE.findall(text)))
        if self.section == "Summary":
            self.listed(re.findall(r"(?m)^- (.*(?:\n  .*)*)", text))
        for table in _TABLE.findall(text):
            if re.search(r"\| why +\|", table):  # reasons are in the notes
                rows = [re.split(r"(?<!\\)\|", line.strip())[1:-1] for line in table.splitlines()]
                self.say("\n".join(f"- {row[0]}: {row[-1]}" for row in rows[2:]))
                table = re.sub(r"(?m)\|[^|\n]*\| *$", "|", table)
            head, line, *rows = table.strip().splitlines()
            for pack in packed(rows, self.slides[-1].most - count_words(head)):
                self.more()
                html, words = markdown("\n".join([head, line, *pack])), [head, *pack]
                self.put(Block("table", str(html), count_words(" ".join(words)), 0.95))
        if question := _PREDICT.search(text):
            self.predict(question)

    def task(self, text: str) -> None:
        """A cell of a prediction, or of an exercise."""
        if question := _PREDICT.search(text):
            self.say(text)
            self.predict(question)
        elif found := re.match(r"### Exercise ([\d.]+)", text):
            one = exercise(found[1])
            wrong = "\n".join(f"- {sentences(x, 40)}" for x in [*one.diagnoses.values()][:3])
            said = f"**Exercise {one.id}, about {one.minutes} minutes:** {one.title}."
            self.say(f"{said} What learners get wrong:\n\n{wrong}")

    def code(self, cell: Any, tags: set[str], n: int) -> None:
        """A cell of code: perhaps its code, and what it shows."""
        if "exercise" in tags:
            for one in (
                quiz_questions(q[1]) if (q := re.match(r'quiz\("(\w+)"', cell.source)) else ()
            ):
                right = next(option for option in one.option if option.right)
                wrong = "\n".join(f"- {x.text} {x.says}" for x in one.option if not x.right)
                notes = f"**{right.text}** {right.says}\n\nNot right:\n\n{wrong}"
                self.ask(one.ask, notes, [x.text for x in one.option], "<ol>{}</ol>")
            return
        outputs = [block for one in cell.outputs if (block := self.output(one))]
        printed = [cut(one.html, 40, 0.7, "print") for one in outputs if one.kind == "print"]
        self.fresh, lines = "slide" in tags, 3 * any(printed)
        code = "" if "notes" in tags else taught(cell.source, wanted=self.fresh, lines=lines)
        if code:
            from nbconvert.filters import Highlight2HTML

            html = Highlight2HTML()(code, language="python")
            self.put(Block("code", html, 0, 0.055 * len(code.splitlines()) + 0.06), n)
        for block in outputs:
            last = self.slides[-1]
            if "notes" in tags:
                self.say(block.html if block.kind == "text" else "")
            elif block.kind == "text":
                self.sentence(block.html)
            elif block.kind in ("table", "card", "print"):
                alone = not last.blocks or last.cell != n
                made = cut(block.html, last.most, 0.95 if alone else last.room, block.kind)
                if made:
                    self.put(made, n)
            else:
                self.put(block, n)

    def sentence(self, text: str, kind: str = "text") -> None:
        """A sentence of a result: as much of it as there is room for, the rest in the notes."""
        last = self.slides[-1]
        alone = self.fresh or not last.blocks or "ask" in last.kind
        most = last.most if alone else min(last.words, int(200 * last.room - 6))
        short = text if count_words(text) <= most else sentences(text, most)
        if short:
            words = count_words(short)
            self.put(Block(kind, markdown(short), words, 0.03 + 0.0045 * words))
        self.say(text if short != text else "")

    def output(self, output: Any) -> Block | None:
        """The richest form of an output that a slide can show."""
        data = output.get("data", {})
        if "image/png" in data:
            alt, png = escape(data["text/plain"]), data["image/png"].strip()
            html = f'<img alt="{alt}" src="data:image/png;base64,{png}">'
            if not (curves := data.get(CURVES)):
                return Block("picture", html)
            asked = self.question or "What will the curves look like?"
            self.question = ""
            curves = json.dumps(curves).replace("<", r"\u003c")
            html = (
                f'<div class="stage">{html}</div><script type="application/json">{curves}</script>'
            )
            asked_html = f'<p class="asked fragment custom">{markdown(asked, inline=True)}</p>'
            return Block("replay", asked_html + html, count_words(asked))
        if "text/html" in data:
            return card(data["text/html"])
        text = data.get("text/markdown", "")
        if text and "```" not in text:
            return Block("text", text)
        text = re.sub(r"(?m)^```.*\n?", "", text) or data.get("text/plain", "")
        text = text or output.get("text", "") * (output.get("name") == "stdout")
        if not text.strip() or text.startswith("<") or re.search(r"\d%\|", text):  # a progress bar
            return None
        lines = "".join(f"<li>{escape(line)}</li>" for line in text.strip("\n").splitlines())
        return Block("print", f"<ul>{lines}</ul>")

    def finished(self) -> list[Slide]:
        """The slides, none empty: one with a sentence at most is in the notes of the next under its
        heading, and the only one there says the first sentence."""
        kept: list[Slide] = []
        waiting: list[str] = []
        for slide, after in zip(self.slides, [*self.slides[1:], None], strict=True):
            opens = slide.kind in ("", "text") and after and after.heading == slide.heading
            if opens and not (slide.blocks and slide.again):
                waiting += [*slide.notes, *(block.html for block in slide.blocks)]
                after.again = slide.again
                continue
            if not slide.blocks:
                prose = re.sub(r"(?m)^(?:>|\||#|- |\d+\. ).*$", "", "\n".join(slide.notes))
                first = sentences(prose, 45)
                if slide.above or not first:
                    kept[-1].notes += slide.notes
                    continue
                slide.blocks = [Block("text", markdown(first), count_words(first))]
            slide.notes, waiting = waiting + slide.notes, []
            kept.append(slide)
        if self.deeper:
            kept[-1].notes.append(f"In the lesson, and not here: {'; '.join(self.deeper)}.")
        return kept


def taught(source: str, *, wanted: bool, lines: int) -> str:
    """What a slide shows of a cell's code without imports; empty if nothing.

    A training loop; of a cell that is tagged, all of it or its longest definition; any other code
    of at most `lines` lines.
    """
    try:
        parts = ast.parse(source).body
    except SyntaxError:  # a magic of IPython
        return ""
    parts = [part for part in parts if not isinstance(part, ast.Import | ast.ImportFrom)]
    every = source.splitlines()
    texts = {part: "\n".join(every[part.lineno - 1 : part.end_lineno]) for part in parts}
    whole = "\n".join(every[parts[0].lineno - 1 :]) if parts else ""
    if whole.count("\n") < (LINES if wanted else lines):
        return whole
    kinds = (ast.For, ast.FunctionDef, ast.ClassDef)
    found = [x for part, x in texts.items() if isinstance(part, kinds) and x.count("\n") < LINES]
    return max([x for x in found if wanted or "backward()" in x], key=len, default="")


def card(html: str) -> Block:
    """An HTML output: a claim in short form, a diagram, or a table or card to cut."""
    from bs4 import BeautifulSoup

    soup = BeautifulSoup(html, "html.parser")
    if soup.svg and soup.svg.parent is soup:
        return Block("diagram", html)
    for part in soup.find_all(["style", "details"]):
        part.decompose()
    if name := soup.select_one("strong.ledger"):
        claim, effect = soup.select_one(".pair").find_all("span", recursive=False)
        name.string = f"Claim {name.text}"
        words = count_words(f"{claim.text} {effect.text}")
        strip = soup.svg or ""
        return Block("claim", f'<div class="sl"><p>{claim}</p><p>{effect}</p>{strip}</div>', words)
    if frame := soup.select_one("table.dataframe, table[id^=T_]"):
        heads = frame.select("thead tr")
        if len(heads) == 2 and not heads[0].th.text:  # the index's name has a row of its own
            heads[0].th.string = heads[1].th.text
            heads[1].decompose()
        return Block("table", str(frame))
    return Block("card", str(soup))


def cut(html: str, words: int, room: float, kind: str) -> Block | None:
    """As many rows of a table, a card or a list as fit, and how many there are; None: none fit."""
    from bs4 import BeautifulSoup

    soup = BeautifulSoup(html, "html.parser")
    for legend in soup.select("p.soft") if soup.select(".row") else ():
        legend.decompose()  # of a mask, which says in a sentence what it shows
    rows = soup.select("tbody tr, .said, li:not(tr li)")
    size = {"table": 0.085, "print": 0.06}.get(kind, 0.16)
    total, most = len(rows), min(int(room / size - 0.9), LINES)

    def count() -> int:
        left = BeautifulSoup(str(soup), "html.parser")
        for picture in left.select(".row, svg"):
            picture.decompose()
        return count_words(left.get_text(" "), numbers=kind != "table")

    while rows and (count() > words - 8 or len(rows) > most):
        rows.pop()
        for part in rows[-1].find_all_next() if rows else ():
            if rows[-1] not in part.parents:
                part.extract()
    if (total and not rows) or count() > words:
        return None
    if len(rows) < total:
        unit = "lines" if kind == "print" else "rows"
        said = f"<p class=rows>{len(rows)} of {total} {unit}; the lesson has all</p>"
        soup.append(BeautifulSoup(said, "html.parser"))
    height = size * (len(rows) + 1) if rows else 0.5
    return Block(kind, str(soup), count(), min(height, room))
