"""What the mask X-ray shows: tokens, counts and losses, as HTML, text or plain values."""

from dataclasses import asdict, dataclass
from typing import Any

from sftlab.chat import Span
from sftlab.show.mask_html import page
from sftlab.show.mask_text import plain
from sftlab.show.mask_tokens import Token


@dataclass(frozen=True, kw_only=True)
class Xray:
    """A picture of a mask; a notebook shows it as HTML, `print` as text."""

    tokens: tuple[Token, ...]
    """The tokens with all that is known of each."""
    template: str = ""
    """The template's name; empty for bare ids."""
    text: str = ""
    """The text that the tokens are of."""
    spans: tuple[Span, ...] = ()
    """Which characters of it are answers to learn, by the template."""
    end_of_turn: str | None = None
    """What ends an answer, None where nothing does or nobody knows."""
    losses: tuple[str, ...] = ()
    """What the columns of losses are called."""
    warnings: tuple[str, ...] = ()
    """What one should know before training on this."""

    @property
    def total(self) -> int:
        """How many tokens there are."""
        return len(self.tokens)

    @property
    def supervised(self) -> int:
        """How many of them the loss counts."""
        return sum(token.supervised for token in self.tokens)

    @property
    def mean_losses(self) -> tuple[float | None, ...]:
        """The mean loss of the supervised tokens, a number for each model: what training lowers."""
        means: list[float | None] = []
        for column in range(len(self.losses)):
            found = [token.losses[column] for token in self.tokens if token.supervised]
            found = [loss for loss in found if loss is not None]
            means.append(sum(found) / len(found) if found else None)
        return tuple(means)

    @property
    def sentence(self) -> str:
        """One sentence that reads the picture."""
        if all(token.label is None for token in self.tokens):
            return f"{self.total:,} tokens, without labels."
        share = f" ({self.supervised / self.total:.0%})" if self.total else ""
        said = f"{self.supervised:,} of {self.total:,} tokens are supervised{share}"
        means = zip(self.mean_losses, self.losses, strict=True)
        told = [f"{mean:.2f} nats {name}" for mean, name in means if mean is not None]
        if self.losses == ("loss",) and told:
            told = [told[0].removesuffix(" loss")]
        return f"{said}; their mean loss is {' and '.join(told)}." if told else f"{said}."

    @property
    def html(self) -> str:
        """The picture as HTML, which needs no script and no other file."""
        return page(self)

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values with stable names, for JSON."""
        return {
            "template": self.template,
            "text": self.text,
            "spans": [asdict(span) for span in self.spans],
            "end_of_turn": self.end_of_turn,
            "warnings": list(self.warnings),
            "tokens": [
                {"id": t.id, "text": t.text, "label": t.label, "role": t.role,
                 "supervised": t.supervised}
                for t in self.tokens
            ],
            "supervised": self.supervised,
            "total": self.total,
        }  # fmt: skip

    def __str__(self) -> str:
        return plain(self)

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        return {"text/html": self.html, "text/plain": str(self)}
