"""A mask as HTML: a card that needs no script, reads in light and dark, and not by colour alone.

supervised      a box with a thick line below it (`<mark>`)
ignored         pale, without either
special token   a thin frame around it
role            a word in front of the first token; what the template writes has no ground
loss            a number on a shade, and words in the title that shows on hover

Pages tell their theme in different ways. JupyterLab and what nbconvert makes of it say so on the
body; elsewhere the card follows the page's `color-scheme`. Where a page drops styles, as GitHub
does, browsers still paint `<mark>`.
"""

from html import escape
from itertools import groupby
from math import exp
from typing import TYPE_CHECKING

from sftlab.show.mask_text import BREAK, PIECE, SPACE, visible
from sftlab.show.mask_tokens import TEMPLATE, Token

if TYPE_CHECKING:
    from sftlab.show.xray import Xray

SHADES = ((0.9, "over 90%"), (0.5, "over 50%"), (0.1, "over 10%"), (0.01, "over 1%"), (0, "less"))
"""The chance that the model gave a token, from which its shade follows, and what it is called."""

STYLE = """
.sl-mask{--ink:light-dark(#1f2328,#e8eaed);--soft:light-dark(#5c6670,#a3abb4);
--ground:light-dark(#fff,#15181c);--line:light-dark(#c9d1d9,#4a525b);
--token:light-dark(#f3f5f7,#22272d);--tint:light-dark(#d5eaf9,#0f3d5e);
--edge:light-dark(#0072b2,#56b4e9);
box-sizing:border-box;max-width:720px;margin:.5em 0;padding:.7em .9em;border:1px solid var(--line);
border-radius:6px;background:var(--ground);color:var(--ink);
font:13px/1.5 var(--jp-ui-font-family,system-ui,sans-serif)}
[data-jp-theme-light=true] .sl-mask{color-scheme:light}
[data-jp-theme-light=false] .sl-mask{color-scheme:dark}
.sl-mask p,.sl-mask ul{margin:0 0 .45em;padding:0;color:var(--ink);font-size:13px}
.sl-mask ul{margin:.6em 0 0;padding-left:1.2em}
.sl-mask .key{color:var(--soft);font-size:12px}
.sl-mask .key .t{margin-right:3px}
.sl-mask .w{white-space:nowrap}
.sl-mask .row{font-family:var(--jp-code-font-family,ui-monospace,monospace);font-size:13px;
line-height:1.9;overflow-wrap:anywhere}
.sl-mask .row.n{line-height:1.35}
.sl-mask .t{display:inline-block;vertical-align:top;margin:0 1px 2px 0;padding:0 1px;
border-bottom:3px solid transparent;border-radius:2px;background:var(--token);color:var(--soft);
font-family:var(--jp-code-font-family,ui-monospace,monospace);line-height:1.45;white-space:pre-wrap}
.sl-mask .key .t{font-size:12px}
.sl-mask .p{background:none}
.sl-mask .row.n .t{text-align:center}
.sl-mask .s{box-shadow:inset 0 0 0 1px var(--line);padding:0 3px}
.sl-mask mark.t{background:var(--tint);color:var(--ink);border-bottom-color:var(--edge);
font-weight:600}
.sl-mask .t i{opacity:.55;font-style:normal;font-weight:400}
.sl-mask .r{display:inline-block;vertical-align:top;margin:1px 3px 0 0;padding:0 5px;
border-radius:8px;background:#5c6670;color:#fff;
font:600 10.5px/1.6 var(--jp-ui-font-family,system-ui,sans-serif)}
.sl-mask .r.user{background:#8f4f00}.sl-mask .r.assistant{background:#005f96}
.sl-mask .r.tool{background:#8a3f77}
.sl-mask small{display:block;min-width:2.5em;height:1.35em;padding:0 2px;font:10.5px/1.35 inherit;
font-weight:400;text-align:center}
.sl-mask .key small{display:inline-block;width:auto;padding:0 5px;font-size:11px}
.sl-mask small.q{min-width:0;height:4px;margin-bottom:1px;font-size:0}
.sl-mask .l0{background:light-dark(#fff1dc,#2c2319);color:light-dark(#4a2c00,#e9d9c3)}
.sl-mask .l1{background:light-dark(#ffd9a3,#4d3514);color:light-dark(#4a2c00,#f4e3cb)}
.sl-mask .l2{background:light-dark(#f3a64c,#7d5216);color:light-dark(#2b1900,#fff3e2)}
.sl-mask .l3{background:light-dark(#b45309,#d18a24);color:light-dark(#fff,#1f1200)}
.sl-mask .l4{background:light-dark(#6b2600,#ffd08a);color:light-dark(#fff,#1f1200)}
""".replace("\n", "")


def page(xray: "Xray") -> str:
    """The card."""
    numbers = " n" if xray.losses else ""
    warned = "".join(f"<li>{escape(_sentence(warning))}</li>" for warning in xray.warnings)
    name = f" <span>Template: {escape(xray.template)}.</span>" if xray.template else ""
    return (
        f'<div class="sl-mask" role="figure" aria-label="{escape(xray.sentence)}">'
        f"<style>{STYLE}</style><p><strong>{escape(xray.sentence)}</strong>{name}</p>"
        f'<p class="key">{_key(xray)}</p><div class="row{numbers}">{_row(xray)}</div>'
        + (f'<ul aria-label="Warnings">{warned}</ul>' if warned else "")
        + "</div>"
    )


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _key(xray: "Xray") -> str:
    """What the marks mean."""
    parts = []
    if any(token.label is not None for token in xray.tokens):
        parts = ['<mark class="t">boxed</mark>supervised: the loss counts it',
                 '<span class="t">pale</span>ignored: its label is −100']  # fmt: skip
    parts += ['<span class="t s">framed</span>special token', f"{SPACE} space", f"{BREAK} line end"]
    if any(not token.text for token in xray.tokens):
        parts.append(f"{PIECE} more of the character beside it")
    key = " &nbsp; ".join(f'<span class="w">{part}</span>' for part in parts)
    if not xray.losses:
        return key
    shades = "".join(f'<small class="l{n}">{word}</small>' for n, (_, word) in enumerate(SHADES))
    order = "loss in nats" if len(xray.losses) == 1 else "loss in nats, before and after"
    return (
        f'{key}<br>Below a supervised token: its {order}. <span class="w">Shade: the chance given '
        f"to the token: {shades}</span>"
    )


def _row(xray: "Xray") -> str:
    made = []
    for role, run in groupby(xray.tokens, key=lambda token: token.role):
        if role not in (None, TEMPLATE):
            made.append(f'<b class="r {_css_class(role)}">{escape(role)}</b>')
        made += [_token(token, xray.losses) for token in run]
    return "".join(made)


def _css_class(role: str) -> str:
    return role if role in ("user", "assistant", "tool") else "other"


def _token(token: Token, names: tuple[str, ...]) -> str:
    tag = "mark" if token.supervised else "span"
    text = escape(visible(token.text) or PIECE)
    for mark in (SPACE, BREAK):
        text = text.replace(mark, f"<i>{mark}</i>")
    losses = "".join(_loss(loss, token.supervised) for loss in token.losses)
    kind = " p" * (token.role == TEMPLATE) + " s" * token.special
    end = "<br>" if "\n" in token.text else ""
    title = escape(_title(token, names))
    return f'<{tag} class="t{kind}" title="{title}">{text}{losses}</{tag}>{end}'


def _loss(loss: float | None, supervised: bool) -> str:
    if loss is None:
        return '<small class="q"></small>' if not supervised else "<small>-</small>"
    shade = next(n for n, (least, _) in enumerate(SHADES) if exp(-loss) > least or not least)
    if not supervised:
        return f'<small class="q l{shade}"></small>'
    return f'<small class="l{shade}">{loss:.2f}</small>'


def _title(token: Token, names: tuple[str, ...]) -> str:
    """What shows on hover."""
    parts = [f"id {token.id}"]
    if token.label is not None:
        fate = "supervised" if token.supervised else "ignored"
        parts.append(f"label {token.label}, {fate}".replace("-", "−"))
    if token.role:
        parts.append(token.role)
    if not token.text:
        parts.append("a piece of the character beside it")
    for name, loss in zip(names, token.losses, strict=True):
        what = name if name == "loss" else f"loss {name}"
        parts.append(f"{what}: none, it is the first" if loss is None else f"{what} {loss:.3f}")
    return " · ".join(parts)
