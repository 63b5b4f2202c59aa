"""Blind rating by a person: two answers side by side, nobody knows whose; each vote is kept.

    question
    [ left ]   [ right ]
    (left is better)  (no difference)  (right is better)          4 of 20

A vote is a line of JSON. Who comes back goes on where the votes end. A run without a person leaves
the file as it is, and says that nobody rated.
"""

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path

import ipywidgets as widgets
import pandas as pd

from sftlab.measure import Pair, PairError, percent, shuffled_sides, win_rate

_BOX = (
    "border:1px solid var(--jp-border-color2, #bdbdbd);border-radius:4px;padding:.5em .8em;"
    "white-space:pre-wrap;overflow-wrap:anywhere;line-height:1.45;min-height:3em;"
    "color:var(--jp-ui-font-color1, #222);background:var(--jp-layout-color1, #fff)"
)
_VOTES = {"left is better": 1.0, "no difference": 0.5, "right is better": 0.0}


def read_votes(path: str | Path, pairs: Sequence[Pair]) -> pd.DataFrame:
    """The votes in a file that belong to these pairs, the last of each; a row a vote.

    Columns: pair (its index), country (the entity), question, order, won (of the pair's first
    answer: 1, 0.5 or 0), shown_first. Ready for `win_rate`; empty when nobody rated.

    Raises:
        PairError: a line is no vote.
    """
    path, index = Path(path), {_key(pair): n for n, pair in enumerate(pairs)}
    votes: dict[int, dict] = {}
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    for number, line in enumerate(lines, start=1):
        try:
            vote = json.loads(line)
            place = index.get((vote["question"], vote["first"], vote["second"]))
            won, swapped = float(vote["won"]), bool(vote["swapped"])
        except (ValueError, KeyError, TypeError) as error:
            raise PairError(
                f"{path}, line {number} is no vote ({error}): remove the line"
            ) from error
        if won not in (0, 0.5, 1):
            raise PairError(f"{path}, line {number}: won is {won}; it is 1, 0.5 or 0")
        if place is not None:
            votes[place] = {
                "pair": place, "country": pairs[place].entity or str(place),
                "question": vote["question"], "order": "backward" if swapped else "forward",
                "won": won, "shown_first": 1 - won if swapped else won,
            }  # fmt: skip
    columns = ["pair", "country", "question", "order", "won", "shown_first"]
    return pd.DataFrame([votes[place] for place in sorted(votes)], columns=columns)


def votes_sentence(path: str | Path, pairs: Sequence[Pair], *, ours: str = "the first") -> str:
    """What the votes say: how many there are, and the win rate with its interval."""
    votes = read_votes(path, pairs)
    if votes.empty:
        return f"Nobody rated: 0 of {len(pairs)} pairs have a vote, so there is no win rate."
    told = f"{len(votes)} of {len(pairs)} pairs are rated"
    if len(votes) < 2:
        return f"{told}: too few for a win rate."
    rate = win_rate(votes)
    return (
        f"{told}: {ours} wins {percent(rate.value)} of them, a tie counted half "
        f"(95% interval {percent(rate.low)} to {percent(rate.high)})."
    )


class Rating(widgets.VBox):
    """Buttons for one pair after the other; needs a running kernel. See the module.

    Args:
        pairs: what to rate, the system of interest first in each; sides are shuffled.
        votes: the file to which each vote is added.
        seed: of the order and the sides.
        ours: what the sentence calls the first answers.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        *,
        votes: str | Path,
        seed: int = 0,
        ours: str = "the first",
    ) -> None:
        if not pairs:
            raise PairError("there is no pair to rate")
        self.pairs, self.path, self.ours = list(pairs), Path(votes), ours
        self._sides = shuffled_sides(len(self.pairs), seed=seed)
        self._order = pd.Series(range(len(self.pairs))).sample(frac=1, random_state=seed).tolist()
        self._question = widgets.HTML()
        self._left, self._right = (
            widgets.HTML(layout=widgets.Layout(width="50%", margin="0 .3em 0 0")) for _ in range(2)
        )
        self._said = widgets.HTML()
        self.buttons = {
            name: widgets.Button(description=name, layout=widgets.Layout(width="auto"))
            for name in _VOTES
        }
        for name, button in self.buttons.items():
            button.on_click(lambda _, won=_VOTES[name]: self.vote(won))
        super().__init__(
            [self._question, widgets.HBox([self._left, self._right]),
             widgets.HBox(list(self.buttons.values())), self._said]
        )  # fmt: skip
        self._show()

    @property
    def place(self) -> int | None:
        """Index of the pair that is shown; None when all are rated."""
        rated = set(read_votes(self.path, self.pairs)["pair"])
        return next((n for n in self._order if n not in rated), None)

    def vote(self, left: float) -> None:
        """Keep a vote for the pair that is shown: 1 the left one is better, 0 the right, 0.5 tie.

        Raises:
            PairError: it is none of these, or all pairs are rated.
        """
        if left not in (0, 0.5, 1):
            raise PairError(f"a vote is 1, 0.5 or 0, not {left!r}")
        if (place := self.place) is None:
            raise PairError("all pairs are rated; remove the file of votes to begin again")
        pair, swapped = self.pairs[place], self._sides[place]
        vote = {
            "question": pair.question, "first": pair.first, "second": pair.second,
            "swapped": swapped, "won": 1 - left if swapped else left,
        }  # fmt: skip
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(vote, ensure_ascii=False) + "\n")
        self._show()

    def _show(self) -> None:
        place = self.place
        done = len(read_votes(self.path, self.pairs))
        for button in self.buttons.values():
            button.disabled = place is None
        if place is None:
            self._question.value = "<strong>All pairs are rated.</strong>"
            self._left.value = self._right.value = ""
            self._said.value = escape(votes_sentence(self.path, self.pairs, ours=self.ours))
            return
        pair = self.pairs[place]
        pair = pair.swapped() if self._sides[place] else pair
        self._question.value = f"<strong>{escape(pair.question)}</strong>"
        for box, text in ((self._left, pair.first), (self._right, pair.second)):
            box.value = f'<div style="{_BOX}">{escape(text) or "[nothing]"}</div>'
        # No win rate before the end: it would tell the person how the others fell.
        self._said.value = f"{done} of {len(self.pairs)} rated"


def _key(pair: Pair) -> tuple[str, str, str]:
    return pair.question, pair.first, pair.second
