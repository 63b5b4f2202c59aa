"""Widgets: the decision guide, a walk along the map of forgetting, blind rating.

Each of them needs a running kernel, and shows a static twin where there is none: its output holds
both. They work with ipywidgets 7.7 (which Colab has) and 8.
"""

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import pandas as pd
from markupsafe import Markup

from sftlab.course import CHOICES, TASKS, Advice, Limits, Situation, decide
from sftlab.measure import Pair, PairError, percent, shuffled_sides, summary, win_rate
from sftlab.show.cards import Card, render, table
from sftlab.show.run_plots import METER, Points, plot_pareto

WHOLE = {"width": "auto", "max_width": "100%"}  # shrinks with a narrow screen
WIDE = {"layout": WHOLE, "style": {"description_width": "initial"}}


class TwinBox(widgets.VBox):
    """A column of widgets whose output also holds a static twin, for pages without a kernel."""

    _ipython_display_ = None  # ipywidgets 7 would display the view alone

    def twin(self) -> tuple[str, str]:
        """What to show without a kernel, as HTML and as plain text."""
        raise NotImplementedError

    def _repr_mimebundle_(self, include=None, exclude=None, **options) -> dict[str, Any]:
        html, text = self.twin()
        view = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
        bundle = {"text/html": html, "text/plain": text}
        return bundle | {"application/vnd.jupyter.widget-view+json": view}


# A field's name stands in the reasons of an advice, so the form shows it too.
_LABELS = {
    "task": "What must the answers show? (task)",
    "examples": "Clean, checked examples; for reasoning, with every step (examples)",
    "needed_score": "Score that the task needs (needed_score)",
    "prompt_score": "Score of the best prompt so far (prompt_score)",
    "prompt_fits": "Is that prompt short enough for latency and price? (prompt_fits)",
    "stable_weeks": "How often does the task change? (stable_weeks)",
    "base_knows": "Does the base complete the facts that answers need? (base_knows)",
    "model_billions": "Base to train, billions of parameters (model_billions)",
    "memory_gb": "GPU memory for training (memory_gb)",
}
_OPEN = "open"  # a menu can't show a choice whose value is None: it looks empty
_YES_NO = {True: "yes", False: "no"}
_CHOICES: dict[str, dict[Any, str]] = {
    "task": TASKS,
    "examples": {n: f"{n:,}" for n in (0, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 50_000)},
    "prompt_fits": _YES_NO,
    "stable_weeks": {1: "every week", 4: "every 4 weeks", 13: "every 13 weeks", 52: "once a year"},
    "base_knows": {_OPEN: "not measured", **_YES_NO},
    "model_billions": {0.0037: "0.0037 (tiny)", 0.0057: "0.0057 (small)", 0.135: "0.135",
                       0.6: "0.6", 1: "1", 3: "3", 8: "8", 13: "13", 70: "70"},
    "memory_gb": {0: "none: CPU only"} | {n: f"{n} GB" for n in (6, 12, 16, 24, 48, 80)},
}  # fmt: skip
_MEASURED = {"prompt_score": ("measured", 0.5), "needed_score": ("decided", 0.9)}


def decision_card(advice: Advice) -> Card:
    """An advice: choice, reasons, next steps, and what would change it."""
    flips = [str(change) for change in advice.would_change]
    lists = (
        ("Why", "ul", advice.reasons),
        ("Next steps", "ol", advice.next_steps),
        ("What would change this", "ul", flips or ["No single answer changes it."]),
    )
    lines = [f"{_title(advice)}: {CHOICES[advice.choice]} (rule {advice.rule})"]
    for title, _, items in lists:
        lines += [f"{title}:", *(f"  {item}" for item in items)]
    return Card("advice.html", text="\n".join(lines), advice=advice, CHOICES=CHOICES, lists=lists)


def _title(advice: Advice) -> str:
    return advice.choice[0].upper() + advice.choice[1:]


def decision_table(situations: Mapping[str, Situation], *, limits: Limits | None = None) -> Card:
    """Named situations and their advice in a static table.

    Each row has the reason that decided and the first two answers that would change it.
    """
    rows = []
    for name, situation in situations.items():
        advice = decide(situation, limits=limits)
        changes = Markup("; <br>").join(map(str, advice.would_change[:2]))
        choice = Markup("<b>{}</b>").format(_title(advice))
        rows.append([name, choice, advice.reasons[0], changes or "no single answer"])
    head = ["Situation", "Advice", "What decided", "What would change it"]
    return table(head, rows, label="Advice for each situation")


class _DecisionGuide(TwinBox):
    """A form whose answers update the card below it.

    `controls` maps a field of `Situation` to its control; `situation` and `advice` follow them.
    The tick of a score in `measured` says whether it is known: without it the score is `None`.
    """

    def __init__(self, situation: Situation, *, limits: Limits | None = None) -> None:
        self.limits = limits
        self.controls = {name: _control(name, getattr(situation, name)) for name in _LABELS}
        self.measured = {
            name: widgets.Checkbox(
                value=getattr(situation, name) is not None,
                description=f"{name} is {word}",
                indent=False,
                **WIDE,
            )
            for name, (word, _) in _MEASURED.items()
        }
        self.card = widgets.HTML(layout=WHOLE)
        rows = []
        for name, control in self.controls.items():
            label = widgets.HTML(f"<strong>{escape(_LABELS[name])}</strong>", layout=WHOLE)
            tick = [self.measured[name]] if name in self.measured else []
            rows.append(widgets.VBox([label, *tick, control], layout=WHOLE))
        for control in (*self.controls.values(), *self.measured.values()):
            control.observe(self._update, names="value")
        super().__init__([*rows, self.card], layout=WHOLE | {"max_width": "46em"})
        self._update()

    @property
    def situation(self) -> Situation:
        """The situation that the controls describe."""
        values = {name: control.value for name, control in self.controls.items()}
        unknown = {name for name, tick in self.measured.items() if not tick.value}
        unknown |= {name for name, value in values.items() if value == _OPEN}
        return Situation(**values | dict.fromkeys(unknown))

    @property
    def advice(self) -> Advice:
        """The advice for it."""
        return decide(self.situation, limits=self.limits)

    def twin(self) -> tuple[str, str]:
        card = decision_card(self.advice)
        return card.html, card.text

    def _update(self, change: Any = None) -> None:
        for name, tick in self.measured.items():
            self.controls[name].disabled = not tick.value
        self.card.value = decision_card(self.advice).html


def _control(name: str, value: Any) -> Any:
    if name in _MEASURED:
        start = _MEASURED[name][1] if value is None else value
        # two digits are shown, and a finer value is kept
        return widgets.FloatSlider(start, min=0, max=1, step=0.01, readout_format=".2f", **WIDE)
    words, value = _CHOICES[name], _OPEN if value is None else value
    if value not in words:
        words = dict(sorted({**words, value: f"{value:,g}"}.items()))
    kind = widgets.SelectionSlider if name == "examples" else widgets.Dropdown
    return kind(options=[(word, one) for one, word in words.items()], value=value, **WIDE)


def decision_guide(
    situation: Situation | None = None, *, limits: Limits | None = None
) -> _DecisionGuide:
    """The decision guide as a form that answers at once; `decision_table` needs no kernel.

    It starts with the answers of `situation`; by default nothing is measured yet.
    """
    start = situation or Situation(task="format", examples=200, needed_score=0.9)
    return _DecisionGuide(start, limits=limits)


class _MapWalker(TwinBox):
    """Two sliders above the map and a table. `controls` has curve and label by name."""

    def __init__(
        self,
        points: Points,
        readings: Mapping[tuple[str, str], pd.DataFrame],
        before: pd.DataFrame,
        names: tuple[str, str],
    ) -> None:
        self._points, self._before = points, before
        self._readings = {at: summary(frame) for at, frame in readings.items()}
        choices = list(points), list(next(iter(points.values())))
        self.controls = {
            key: widgets.SelectionSlider(description=name, options=options, **WIDE)
            for key, name, options in zip(("curve", "label"), names, choices, strict=True)
        }
        self.map, self.table = widgets.HTML(layout=WHOLE), widgets.HTML(layout=WHOLE)
        for control in self.controls.values():
            control.observe(self._update, names="value")
        row = widgets.Box(list(self.controls.values()), layout={"flex_flow": "row wrap"})
        super().__init__([row, self.map, self.table], layout=WHOLE | {"max_width": "740px"})
        self._update()

    @property
    def chosen(self) -> tuple[str, str]:
        """Curve and label of the controls."""
        return self.controls["curve"].value, self.controls["label"].value

    def picture(self, chosen: tuple[str, str] | None = None):
        """The map, with a ring around the chosen setting."""
        before = float(self._before["right"].dropna().astype(float).mean())
        title = f"{', '.join(chosen)}" if chosen else "What was gained, and what was kept"
        return plot_pareto(self._points, before=before, title=title, chosen=chosen)

    def twin(self) -> tuple[str, str]:
        picture = self.picture()
        return picture.html, picture.alt

    def _update(self, change: object = None) -> None:
        curve, label = self.chosen
        self.map.value = self.picture(self.chosen).html
        point, after = self._points[curve][label], self._readings[curve, label]
        before = summary(self._before)
        rows = [["task", "", str(point.task)], ["old skills", "", str(point.kept)]]
        for skill, name in METER.items():
            if skill in after.index:
                shares = (frame.loc[skill, "right"] for frame in (before, after))
                rows.append([name, *(percent(float(share)) for share in shares)])
        head = [f"{curve}, {label}", "before", "after"]
        self.table.value = table(head, rows, label="The chosen setting").html


def map_walker(
    points: Points,
    *,
    readings: Mapping[tuple[str, str], pd.DataFrame],
    before: pd.DataFrame,
    names: tuple[str, str] = ("learning rate", "general examples"),
) -> _MapWalker:
    """The map to walk on: two sliders choose a setting, and its seeds and its meter are shown.

    Nothing is computed on the way. `readings` maps each (curve, label) of `points` to the meter's
    frame of all seeds, `before` is the base's frame, `names` are those of the sliders.

    Raises:
        ValueError: a setting has no reading.
    """
    for at in ((name, label) for name, row in points.items() for label in row):
        if at not in readings:
            raise ValueError(f"readings has no entry for {at}; give one for each setting")
    return _MapWalker(points, readings, before, names)


_VOTES = {"left is better": 1.0, "no difference": 0.5, "right is better": 0.0}


def read_votes(path: str | Path, pairs: Sequence[Pair]) -> pd.DataFrame:
    """The votes in a file that belong to these pairs, the last of each; a row a vote.

    Columns: pair (its index), country (the entity), question, order, won (by the pair's first
    answer: 1, 0.5 or 0), shown_first. Ready for `win_rate`; empty when nobody rated.

    Raises:
        PairError: a line is not a vote.
    """
    path, index = Path(path), {_key(pair): n for n, pair in enumerate(pairs)}
    votes: dict[int, dict[str, Any]] = {}
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    for number, line in enumerate(lines, start=1):
        try:
            vote = json.loads(line)
            place = index.get((vote["question"], vote["first"], vote["second"]))
            won, swapped = float(vote["won"]), bool(vote["swapped"])
            if won not in (0, 0.5, 1):
                raise ValueError(f"won is {won}, not 1, 0.5 or 0")
        except (ValueError, KeyError, TypeError) as error:
            said = f"{path}, line {number} is not a vote ({error}): remove the line"
            raise PairError(said) from error
        if place is not None:
            votes[place] = {
                "pair": place,
                "country": pairs[place].entity or str(place),
                "question": vote["question"],
                "order": "backward" if swapped else "forward",
                "won": won,
                "shown_first": 1 - won if swapped else won,
            }
    columns = ["pair", "country", "question", "order", "won", "shown_first"]
    return pd.DataFrame([votes[place] for place in sorted(votes)], columns=columns)


def votes_sentence(path: str | Path, pairs: Sequence[Pair], *, ours: str = "the first") -> str:
    """What the votes say: how many there are, and the win rate with its interval."""
    votes = read_votes(path, pairs)
    if votes.empty:
        return f"Nobody rated: 0 of {len(pairs)} pairs have a vote, so there is no win rate."
    rated = f"{len(votes)} of {len(pairs)} pairs are rated"
    if len(votes) < 2:
        return f"{rated}: too few for a win rate."
    rate = win_rate(votes)
    return (
        f"{rated}: {ours} wins {percent(rate.value)} of them, a tie counted half "
        f"(95% interval {percent(rate.low)} to {percent(rate.high)})."
    )


class Rating(TwinBox):
    """Blind rating: two answers side by side, the sides shuffled, and a button for each vote.

    A vote is a line of JSON. Whoever comes back continues where the votes end; a run without a
    person leaves the file as it is.

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
            raise PairError("pairs is empty: give at least one pair to rate")
        self.pairs, self.path, self.ours = list(pairs), Path(votes), ours
        self._sides = shuffled_sides(len(self.pairs), seed=seed)
        self._order = pd.Series(range(len(self.pairs))).sample(frac=1, random_state=seed).tolist()
        self.question, self.said = widgets.HTML(), widgets.HTML()
        half = {"width": "50%", "margin": "0 .3em 0 0"}
        self.left, self.right = widgets.HTML(layout=half), widgets.HTML(layout=half)
        self.buttons = {
            name: widgets.Button(description=name, layout={"width": "auto"}) for name in _VOTES
        }
        for name, button in self.buttons.items():
            button.on_click(lambda _, won=_VOTES[name]: self.vote(won))
        answers, buttons = [self.left, self.right], list(self.buttons.values())
        rows = [self.question, widgets.HBox(answers), widgets.HBox(buttons), self.said]
        super().__init__(rows)
        self._show()

    @property
    def place(self) -> int | None:
        """Index of the pair that is shown; None when all are rated."""
        rated = set(read_votes(self.path, self.pairs)["pair"])
        return next((n for n in self._order if n not in rated), None)

    def vote(self, left: float) -> None:
        """Keep a vote for the pair that is shown: 1 the left one is better, 0 the right, 0.5 tie.

        Raises:
            PairError: another number, or all pairs are rated.
        """
        if left not in (0, 0.5, 1):
            raise PairError(f"a vote must be 1, 0.5 or 0, got {left!r}")
        if (place := self.place) is None:
            raise PairError("all pairs are rated; remove the file of votes to begin again")
        swapped = self._sides[place]
        vote = dict(zip(("question", "first", "second"), _key(self.pairs[place]), strict=True))
        vote |= {"swapped": swapped, "won": 1 - left if swapped else left}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(vote, ensure_ascii=False) + "\n")
        self._show()

    def twin(self) -> tuple[str, str]:
        said = votes_sentence(self.path, self.pairs, ours=self.ours)
        return f"<p>{escape(said)}</p>", said

    def _show(self) -> None:
        place = self.place
        for button in self.buttons.values():
            button.disabled = place is None
        if place is None:
            self.question.value = "<strong>All pairs are rated.</strong>"
            self.left.value = self.right.value = ""
            self.said.value = escape(votes_sentence(self.path, self.pairs, ours=self.ours))
            return
        pair = self.pairs[place]
        pair = pair.swapped() if self._sides[place] else pair
        self.question.value = f"<strong>{escape(pair.question)}</strong>"
        self.left.value = render("rating.html", text=pair.first)
        self.right.value = render("rating.html", text=pair.second)
        # No win rate before the end: it would reveal how the earlier votes fell.
        rated = len(read_votes(self.path, self.pairs))
        self.said.value = f"{rated} of {len(self.pairs)} rated"


def _key(pair: Pair) -> tuple[str, str, str]:
    return pair.question, pair.first, pair.second
