"""Diagrams of the course: SVG made by code, which follows the theme, with the same in words.

    diagram("shift")            a notebook shows the picture, `print` the words
    diagram("lora").svg         to put it on a page of your own

All are 520 units wide, so that their text can be read on a phone. Blue is what the loss counts or
what is trained, orange what a user writes, red what goes wrong.
"""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import atan2, cos, sin
from pathlib import Path

from markupsafe import escape

from sftlab.show.cards import render

WIDTH = 520
_WORDS = tomllib.loads(Path(__file__).with_name("diagrams.toml").read_text(encoding="utf-8"))


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


class _Sheet:
    """Shapes in the order in which they are drawn; y grows downwards."""

    def __init__(self) -> None:
        self.shapes: list[str] = []
        self.bottom = 0.0

    def text(self, x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> None:
        """One line; `y` is its baseline, `kind` holds classes of `diagram.css`."""
        self.bottom = max(self.bottom, y + 5)
        place = f'x="{x:g}" y="{y:g}" text-anchor="{anchor}"'
        self.shapes.append(f'<text {place} class="{kind}">{escape(words)}</text>')

    def box(
        self, x: float, y: float, w: float, h: float, kind: str = "", *lines: str, font: str = ""
    ) -> None:
        """A rectangle with centred lines; of several, the first is bold."""
        self.bottom = max(self.bottom, y + h)
        place = f'x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" rx="4"'
        self.shapes.append(f'<rect {place} class="{kind}"/>')
        for number, line in enumerate(lines):
            bold = "b " if len(lines) > 1 and not number else ""
            middle = y + h / 2 + 5 + 20 * (number - (len(lines) - 1) / 2)
            if line:
                self.text(x + w / 2, middle, line, bold + font, "middle")

    def row(
        self, x: float, y: float, cells: Sequence[tuple[str, str]], *, w: float | Sequence[float],
        h: float = 28, gap: float = 3, font: str = "",
    ) -> None:  # fmt: skip
        """Boxes side by side, each (text, kind); `w` is the width of each, or one for all."""
        for number, (words, kind) in enumerate(cells):
            width = w[number] if isinstance(w, Sequence) else w
            self.box(x, y, width, h, kind, words, font=font)
            x += width + gap

    def arrow(self, *points: tuple[float, float], kind: str = "", head: float = 9) -> None:
        """A line through the points, with a head at the last one; `head` 0 leaves it away."""
        (x, y), (a, b) = points[-1], points[-2]
        angle = atan2(y - b, x - a)
        # The line ends inside the head, so that its end doesn't stand out at the tip.
        stop = (x - 0.7 * head * cos(angle), y - 0.7 * head * sin(angle))
        way = " ".join(f"L{p:.1f} {q:.1f}" for p, q in (*points[1:-1], stop))
        self.shapes.append(f'<path d="M{points[0][0]:g} {points[0][1]:g} {way}" class="{kind}"/>')
        if head:
            turns = (angle + 0.45, angle - 0.45)
            wings = [(x - head * cos(turn), y - head * sin(turn)) for turn in turns]
            corners = " L".join(f"{p:.1f} {q:.1f}" for p, q in [(x, y), *wings])
            self.shapes.append(f'<path d="M{corners}Z" class="{kind} head"/>')


def _journey(sheet: _Sheet) -> None:
    stages = (
        ("1  Pretraining", "loss on every token", "given",
         ("Raw text", "web pages, books, code", "trillions of tokens"),
         ("Base model", "continues a text,", "questions included")),
        ("2  Supervised fine-tuning", "loss on the answers", "learned",
         ("Conversations", "prompts with answers", "thousands to millions"),
         ("Instruction model", "answers, in the form", "of the examples")),
        ("3  Preference tuning", "rewards the preferred answer: DPO, RLHF", "given",
         ("Preferences", "two answers to a prompt,", "one of them preferred"),
         ("Preference-tuned model", "gives the preferred", "kind of answer")),
    )  # fmt: skip
    for number, (name, loss, kind, data, model) in enumerate(stages):
        y = 12 + 152 * number
        sheet.text(10, y + 14, name, "b big learned" if kind == "learned" else "b big")
        sheet.text(10, y + 34, loss, "soft")
        sheet.box(10, y + 44, 210, 76, kind, *data)
        sheet.box(296, y + 44, 214, 76, kind, *model)
        sheet.arrow((224, y + 82), (292, y + 82), kind=kind)
        sheet.text(258, y + 74, "train", "soft", "middle")
        if number < 2:
            sheet.arrow((403, y + 124), (403, y + 192))
            sheet.text(394, y + 163, "initial weights", "soft", "end")


def _shift(sheet: _Sheet) -> None:
    tokens = "The capital of France is Paris".split()
    width, gap, left = 76, 8, 10
    centres = [left + n * (width + gap) + width / 2 for n in range(6)]
    sheet.text(left, 22, "input_ids", "m b")
    sheet.text(510, 22, "what the model reads", "soft", "end")
    sheet.row(left, 30, [(token, "given") for token in tokens], w=width, gap=gap)
    for x in centres:
        sheet.arrow((x, 60), (x, 88))
    sheet.row(left, 90, [(f"logits {n}", "") for n in range(6)], w=width, gap=gap)
    for here, there in pairwise(centres):
        sheet.arrow((here, 120), (there - 4, 188), kind="learned")
    sheet.text(centres[0], 181, "not a target", "soft", "middle")
    sheet.text(centres[5], 140, "no target", "soft", "middle")
    kinds = ["empty"] + ["learned"] * 5
    sheet.row(left, 190, list(zip(tokens, kinds, strict=True)), w=width, gap=gap)
    sheet.text(left, 238, "labels", "m b")
    sheet.text(70, 238, "the same list in the same order", "soft")
    sheet.text(left, 262, "The loss shifts:")
    sheet.text(144, 262, "logits[:, :-1] against labels[:, 1:]", "m learned")
    sheet.text(left, 292, "Shift the labels yourself, and they are shifted twice:", "no")
    sheet.text(left, 313, "the model then learns the token after the next.", "no")


def _causal_mask(sheet: _Sheet) -> None:
    tokens, size = ["We", "like", "old", "maps", "."], 39
    for left, name, models, causal in (
        (52, "Causal", "GPT, Llama, Qwen", True),
        (315, "Bidirectional", "BERT", False),
    ):
        sheet.text(left, 20, name, "b big")
        sheet.text(left, 40, models, "soft")
        for n, token in enumerate(tokens):
            sheet.text(left + (n + 0.5) * size - 1, 64, token, "", "middle")
            sheet.text(left - 7, 72 + (n + 0.5) * size + 4, token, "", "end")
            cells = [("●", "learned") if m <= n or not causal else ("", "empty") for m in range(5)]
            sheet.row(left, 72 + n * size, cells, w=size - 3, h=size - 3)
    sheet.text(10, 292, "Row: the position that attends.  Column: the position that it reads.")
    sheet.text(10, 313, "Causal: a changed token changes nothing before it.", "learned")


def _labels(sheet: _Sheet) -> None:
    sheet.text(10, 20, "messages", "b")
    sheet.box(10, 28, 245, 30, "user", "user: Hi!", font="m")
    sheet.box(265, 28, 245, 30, "learned", "assistant: Hello!", font="m")
    sheet.arrow((24, 63), (24, 97))
    sheet.text(38, 85, "chat template", "soft")
    sheet.text(510, 85, "text", "b", "end")
    sheet.box(10, 99, 500, 52, "given")
    sheet.text(22, 120, "<|im_start|>user⏎Hi!<|im_end|>⏎", "m")
    sheet.text(22, 141, "<|im_start|>assistant⏎Hello!<|im_end|>⏎", "m")
    sheet.arrow((24, 156), (24, 190))
    sheet.text(38, 178, "tokenizer gives ids, mask gives labels", "soft")
    start, end, line = ("<|im_start|>", 1), ("<|im_end|>", 2), ("⏎", 10)
    turns = (
        [start, ("user", 320), line, ("Hi", 871), ("!", 5), end, line],
        [start, ("assistant", 455), line, ("Hello", 730), ("!", 5), end, line],
    )
    for turn, cells in enumerate(turns):
        x, y = 66.0, 194 + 84 * turn
        for below, (words, kind) in enumerate((("ids", ""), ("labels", "b"))):
            sheet.text(10, y + 44 + 21 * below, words, kind)
        for n, (token, number) in enumerate(cells):
            supervised = turn == 1 and 3 <= n <= 5
            width = max(8.4 * len(token) + 5, 38)
            sheet.box(x, y, width, 26, "learned" if supervised else "given", token, font="m")
            sheet.text(x + width / 2, y + 44, str(number), "m", "middle")
            label, kind = (str(number), "m learned") if supervised else ("-100", "m soft")
            sheet.text(x + width / 2, y + 65, label, kind, "middle")
            x += width + 2
    sheet.text(10, 376, "The loss ignores -100.", "soft")
    sheet.text(10, 397, "The <|im_end|> of the answer is learned: it ends the turn.", "learned")


def _generation_prompt(sheet: _Sheet) -> None:
    parts = (
        ("<|im_start|>user⏎", "given", "template", "template"),
        ("Hi!", "user", "your data", "the user"),
        ("<|im_end|>⏎", "given", "template", "template"),
        ("<|im_start|>assistant⏎", "given", "template", "generation prompt"),
        ("Hello!", "learned", "your data: learned", "the model"),
        ("<|im_end|>", "learned", "template: learned", "the model, then stop"),
    )
    sheet.text(115, 20, "Training", "b big", "middle")
    sheet.text(405, 20, "Inference", "b big", "middle")
    for number, (text, kind, training, inference) in enumerate(parts):
        y = 32 + 46 * number + (8 if number > 3 else 0)
        for x, who in ((10, training), (300, inference)):
            added = who == "generation prompt"
            sheet.box(x, y, 210, 24, "given marked" if added else kind, text, font="m")
            said = "learned" if kind == "learned" else "b" if added else "soft"
            sheet.text(x + 105, y + 39, who, said, "middle")
    sheet.arrow((236, 36), (236, 212), head=0)
    sheet.arrow((284, 36), (284, 212), head=0)
    sheet.text(260, 118, "must", "", "middle")
    sheet.text(260, 138, "be", "", "middle")
    sheet.text(260, 158, "equal", "", "middle")


def _padding(sheet: _Sheet) -> None:
    rows = (("Capital of Peru ? It is Lima eos", 4), ("2 + 2 ? 4 eos pad pad", 4),
            ("Hi ! Hello ! eos pad pad pad", 2))  # fmt: skip
    panels = ("input_ids", "labels", "labels, if pad is eos")
    notes = ("pad: attention_mask 0", "-100: ignored", "each eos is masked too")
    for panel, (name, note) in enumerate(zip(panels, notes, strict=True)):
        y = 8 + 122 * panel
        sheet.text(10, y + 14, name, "b")
        sheet.text(508, y + 14, note, "no" if panel == 2 else "soft", "end")
        for n, (tokens, prompt) in enumerate(rows):
            cells = []
            for place, token in enumerate(tokens.split()):
                kind = "empty" if token == "pad" else "given" if place < prompt else "learned"
                if panel and kind != "learned":
                    token, kind = "-100", "empty" if kind == "empty" else "given"
                elif panel == 2 and token == "eos":
                    token, kind = "-100", "no"
                cells.append((token, kind))
            sheet.row(10, y + 22 + 30 * n, cells, w=60, h=27)
    sheet.text(10, 383, "No eos in any label: the model never learns to stop.", "no")


def _packing(sheet: _Sheet) -> None:
    def example(name, prompt, answer, pad=0):
        cells = [(name, "given")] * prompt + [(name, "learned")] * answer
        return [*cells, ("eos", "learned"), *[("", "empty")] * pad]

    a, b, c = ("A", 2, 1), ("B", 1, 1), ("C", 2, 2)
    sheet.text(10, 20, "Separate rows, padded", "b")
    for n, (one, pad) in enumerate(((a, 1), (b, 2), (c, 0))):
        sheet.row(10, 30 + 30 * n, example(*one, pad), w=38, h=26)
    sheet.text(235, 48, "12 of 15 positions are used,", "soft")
    sheet.text(235, 70, "the rest is computed for nothing", "soft")
    sheet.text(10, 152, "Truncated at max_length = 5", "b")
    sheet.row(10, 162, [("D", "given")] * 3 + [("D", "learned")] * 2, w=38, h=26)
    sheet.row(215, 162, [("D", "no"), ("eos", "no")], w=38, h=26)
    sheet.arrow((211, 156), (211, 194), kind="no", head=0)
    sheet.text(306, 180, "cut: no end to learn", "no")
    sheet.text(10, 226, "Packed, with boundaries", "b")
    at, places = 10.0, []
    for one in (a, b, c):
        cells = example(*one)
        sheet.row(at, 236, cells, w=38, h=26)
        width = 41 * len(cells) - 3
        sheet.row(at, 268, [(str(n), "") for n in range(len(cells))], w=38, h=24, font="m")
        places.append((at, width))
        at += width + 7
    sheet.text(10, 312, "position_ids restart, and attention stays inside an example", "soft")
    for (right, before), (left, width) in pairwise(places):
        start, end = left + width / 2 + 12, right + before / 2 - 12
        sheet.arrow((start, 322), (start, 346), (end, 346), (end, 324), kind="no")
    sheet.text(10, 372, "Without boundaries", "no")
    sheet.text(10, 393, "B reads A, and C reads both: a text that nobody wrote.")


def _group_split(sheet: _Sheet) -> None:
    entities = "France Kenya Peru Japan".split()
    splits = (
        ("Row split", "each row is drawn by itself",
         [(0, 0, 1, 0), (0, 0, 0, 1), (1, 0, 0, 0)], (1, 0, 1, 1)),
        ("Group split", "all rows of an entity stay together", [(0, 0, 0, 1)] * 3, (0, 0, 0, 0)),
    )  # fmt: skip
    for number, (name, how, rows, leaks) in enumerate(splits):
        y = 8 + 186 * number
        sheet.text(10, y + 16, name, "b big")
        sheet.text(508, y + 16, how, "soft", "end")
        for n, entity in enumerate(entities):
            sheet.text(148 + 105 * n, y + 44, entity, "b", "middle")
        for n, (question, row) in enumerate(
            zip(("capital", "currency", "language"), rows, strict=True)
        ):
            sheet.text(10, y + 71 + 32 * n, question)
            cells = [("test", "user") if one else ("train", "learned") for one in row]
            sheet.row(98, y + 52 + 32 * n, cells, w=100, h=29, gap=5)
        for n, leak in enumerate(leaks):
            words, kind = ("leaks", "no") if leak else ("✓", "soft")
            sheet.text(148 + 105 * n, y + 166, words, kind, "middle")


def _lora(sheet: _Sheet) -> None:
    sheet.text(260, 26, "y = W x + (alpha / r) · B A x", "m b", "middle")
    top = 84
    sheet.box(62, top, 144, 130, "given", "W")
    sheet.text(134, top - 12, "d_in", "m soft", "middle")
    sheet.text(54, top + 70, "d_out", "m soft", "end")
    sheet.text(236, top + 72, "+", "b big", "middle")
    sheet.box(318, top, 26, 130, "learned", "B")
    sheet.text(331, top - 12, "r", "m soft", "middle")
    sheet.text(310, top + 70, "d_out", "m soft", "end")
    sheet.text(355, top + 72, "·", "b big", "middle")
    sheet.box(366, top + 52, 144, 26, "learned", "A")
    sheet.text(438, top + 40, "d_in", "m soft", "middle")
    sheet.text(438, top + 98, "r rows", "m soft", "middle")
    sheet.text(134, 238, "d_out × d_in", "m", "middle")
    sheet.text(331, 238, "d_out × r", "m", "middle")
    sheet.text(438, 238, "r × d_in", "m", "middle")
    sheet.text(134, 262, "frozen", "soft", "middle")
    sheet.text(385, 262, "trained", "learned", "middle")
    sheet.text(10, 298, "With d_out = d_in = 4096 and r = 16:", "soft")
    sheet.text(10, 320, "16,777,216 frozen weights,", "b")
    sheet.text(262, 320, "131,072 trained (0.78%)", "learned")
    sheet.text(10, 350, "At the start B is zero, so the model is the base; A is random.")
    sheet.text(10, 372, "Gradients and optimizer states exist for A and B only.")
    sheet.text(10, 394, "After training W + (alpha / r) · B A can be merged into one matrix.")


_DRAW = {
    "journey": _journey,
    "shift": _shift,
    "causal_mask": _causal_mask,
    "labels": _labels,
    "generation_prompt": _generation_prompt,
    "padding": _padding,
    "packing": _packing,
    "group_split": _group_split,
    "lora": _lora,
}


def diagram(name: str) -> Diagram:
    """The diagram called `name`: causal_mask, generation_prompt, group_split, journey, labels,
    lora, packing, padding or shift. Another name is a ValueError."""
    if name not in _DRAW:
        raise ValueError(f"there is no diagram {name!r}; choose one of {', '.join(sorted(_DRAW))}")
    _DRAW[name](sheet := _Sheet())
    title, words = _WORDS[name]["title"], " ".join(_WORDS[name]["words"].split())
    view = f'viewBox="0 0 {WIDTH} {sheet.bottom + 8:g}" class="sl-diagram"'
    label = f'role="img" aria-labelledby="sl-{name}-title sl-{name}-words"'
    text = f'<title id="sl-{name}-title">{escape(title)}</title>'
    text += f'<desc id="sl-{name}-words">{escape(words)}</desc>'
    inside = f"{text}<style>{render('diagram.css')}</style>{''.join(sheet.shapes)}"
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" {view} {label}>{inside}</svg>'
    return Diagram(title, words, svg)
