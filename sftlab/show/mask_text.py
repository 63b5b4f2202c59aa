r"""A mask as text: one line for each run of tokens with the same role and the same fate.

template    <|im_start|>user⏎
user        Hi
template    <|im_end|>⏎
            <|im_start|>assistant⏎
assistant  [Ho<|im_end|>]
template    ⏎
"""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from sftlab.show.mask_tokens import Token

if TYPE_CHECKING:
    from sftlab.show.xray import Xray

SPACE, BREAK, PIECE = "·", "⏎", "▫"
KEY = f"[ ] supervised   {SPACE} space   {BREAK} line break"


@dataclass(frozen=True)
class Line:
    """One line of the picture."""

    role: str
    """Whose words these are; empty where the line before says it, or nobody knows."""
    before: str
    """`[` where a supervised run begins, else a space."""
    text: str
    """The characters, with white space made visible."""
    after: str
    """`]` where a supervised run ends, else nothing."""
    supervised: bool
    """Whether the loss counts this."""


def visible(text: str) -> str:
    """The text with marks for the characters that are not seen."""
    return "".join(map(_mark, text))


def _mark(character: str) -> str:
    if character in " \n\t":
        return {" ": SPACE, "\n": BREAK, "\t": "⇥"}[character]
    # A joiner within an emoji is left alone: tokens may still show a whole family.
    if character != "\u200d" and unicodedata.category(character) in ("Cc", "Cf", "Zs", "Zl", "Zp"):
        return f"⟨U+{ord(character):04X}⟩"
    return character


def lines(tokens: Sequence[Token]) -> Iterator[Line]:
    """The tokens in runs, each run cut behind its line breaks."""
    for (role, supervised), run in groupby(tokens, key=lambda t: (t.role, t.supervised)):
        parts = _cut("".join(token.text for token in run))
        for number, part in enumerate(parts):
            last = number == len(parts) - 1
            yield Line(
                "" if number else role or "",
                "[" if supervised and not number else " ",
                visible(part),
                "]" if supervised and last else "",
                supervised,
            )


def _cut(text: str) -> list[str]:
    """The lines of a text, each with its line feed."""
    cut = text.split("\n")
    return [f"{part}\n" for part in cut[:-1]] + ([cut[-1]] if cut[-1] or not cut[1:] else [])


def plain(xray: "Xray") -> str:
    """The whole picture: sentence, key, text in runs, losses, warnings."""
    rows = list(lines(xray.tokens))
    width = max((len(row.role) for row in rows), default=0)
    told = [xray.sentence, KEY, ""]
    told += [f"{row.role:{width}}  {row.before}{row.text}{row.after}" for row in rows]
    if xray.losses:
        told += ["", *loss_lines(xray)]
    told += [f"! {warning}" for warning in xray.warnings]
    return "\n".join(told)


def loss_lines(xray: "Xray") -> list[str]:
    """A table of the supervised tokens' losses."""
    head = "  ".join(f"{name:>6}" for name in xray.losses)
    told = ["loss of each supervised token, in nats", f"{head}  token"]
    for token in xray.tokens:
        if token.supervised:
            numbers = "  ".join(f"{'-' if n is None else f'{n:.2f}':>6}" for n in token.losses)
            told.append(f"{numbers}  {visible(token.text) or PIECE}")
    return told
