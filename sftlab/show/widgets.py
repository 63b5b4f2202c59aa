"""Widgets: the decision guide, the mask explorer, a walk along the map of forgetting, blind rating.

Each of them needs a running kernel, and shows a static twin where there is none: its output holds
both. They work with ipywidgets 7.7 (which Colab has) and 8.
"""

import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import pandas as pd
from markupsafe import Markup

from sftlab.chat import FAMILIES, IGNORED, Messages, TemplateError
from sftlab.course import CHOICES, TASKS, Advice, Limits, Situation, decide
from sftlab.measure import Pair, PairError, percent, shuffled_sides, summary, win_rate
from sftlab.show.cards import Card, render, table
from sftlab.show.mask import Token, Xray, show_mask
from sftlab.show.run_plots import METER, Points, plot_pareto

WHOLE = {"width": "auto", "max_width": "100%"}  # shrinks with a narrow screen
WIDE = {"layout": WHOLE, "style": {"description_width": "initial"}}


class TwinBox(widgets.VBox):
    """Controls above a panel, and a static twin of the panel for pages without a kernel.

    `show` gives the panel's HTML and the same as plain text, at once and again at each change of a
    control. What stands around the panel are `rows` above it and rows `below` it.
    """

    _ipython_display_ = None  # ipywidgets 7 would display the view alone

    def __init__(
        self,
        rows: Sequence[Any],
        *,
        show: Callable[[], tuple[str, str]],
        controls: Mapping[str, Any],
        below: Sequence[Any] = (),
    ) -> None:
        self.panel, self._show, self.controls = widgets.HTML(layout=WHOLE), show, controls
        super().__init__([*rows, self.panel, *below], layout=WHOLE | {"max_width": "740px"})
        for control in controls.values():
            control.observe(self.update, names="value")
        self.update()

    def update(self, change: Any = None) -> None:
        """Show what is chosen now."""
        self.panel.value, self.text = self._show()

    def _repr_mimebundle_(self, include=None, exclude=None, **options) -> dict[str, Any]:
        view = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
        bundle = {"text/html": self.panel.value, "text/plain": self.text}
        return bundle | {"application/vnd.jupyter.widget-view+json": view}


WORDS = tomllib.loads(Path(__file__).with_name("widgets.toml").read_text(encoding="utf-8"))
_OPEN = -1  # for None, with which a menu looks empty
_YES_NO = {True: "yes", False: "no"}
_SCORES = {n / 100: f"{n / 100:.2f}" for n in range(101)}
_CHOICES: dict[str, dict[Any, str]] = {
    "task": TASKS,
    "examples": {n: f"{n:,}" for n in (0, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 50_000)},
    "prompt_score": {_OPEN: "not measured", **_SCORES},
    "needed_score": {_OPEN: "not decided", **_SCORES},
    "prompt_fits": _YES_NO,
    "stable_weeks": {1: "every week", 4: "every 4 weeks", 13: "every 13 weeks", 52: "once a year"},
    "base_knows": {_OPEN: "not measured", **_YES_NO},
    "model_billions": {0.0037: "0.0037 (tiny)", 0.0057: "0.0057 (small)"}
    | {n: f"{n}" for n in (0.135, 0.6, 1, 3, 8, 13, 70)},
    "memory_gb": {0: "none: CPU only"} | {n: f"{n} GB" for n in (6, 12, 16, 24, 48, 80)},
}


def decision_card(advice: Advice) -> Card:
    """An advice: choice, reasons, next steps, and what would change it."""
    flips = [str(change) for change in advice.would_change]
    lists = (
        ("Why", "ul", advice.reasons),
        ("Next steps", "ol", advice.next_steps),
        ("What would change this", "ul", flips or ["No single answer changes it."]),
    )
    return Card("advice.html", text=str(advice), advice=advice, CHOICES=CHOICES, lists=lists)


def decision_table(situations: Mapping[str, Situation]) -> Card:
    """Named situations in a static table: advice, what decided, what else would change it."""
    rows = []
    for name, situation in situations.items():
        advice = decide(situation)
        changes = Markup("; <br>").join(map(str, advice.would_change[:2]))
        choice = Markup("<b>{}</b>").format(advice.choice[0].upper() + advice.choice[1:])
        rows.append([name, choice, advice.reasons[0], changes or "no single answer"])
    head = ["Situation", "Advice", "What decided", "What would change it"]
    return table(head, rows, label="Advice for each situation")


def decision_guide(situation: Situation | None = None, *, limits: Limits | None = None) -> TwinBox:
    """The decision guide as a form that answers at once; `decision_table` needs no kernel.

    It starts with the answers of `situation`; `controls` has one for each field of it.
    """
    start = situation or Situation(task="format", examples=200, needed_score=0.9)
    controls, rows = {}, []
    for name, label in WORDS["labels"].items():
        value, words = getattr(start, name), _CHOICES[name]
        value = _OPEN if value is None else value
        if value not in words:
            words = dict(sorted({**words, value: f"{value:,g}"}.items()))
        slides = name == "examples" or name.endswith("score")
        kind = widgets.SelectionSlider if slides else widgets.Dropdown
        options = [(word, one) for one, word in words.items()]
        controls[name] = kind(options=options, value=value, **WIDE)
        rows.append(widgets.HTML(f"<strong>{escape(label)}</strong>", layout=WHOLE))
        rows.append(controls[name])

    def show() -> tuple[str, str]:
        answers = {name: control.value for name, control in controls.items()}
        answers |= {name: None for name, answer in answers.items() if answer == _OPEN}
        card = decision_card(decide(Situation(**answers), limits=limits))
        return card.html, card.text

    return TwinBox(rows, show=show, controls=controls)


PADS = 3
"""Tokens of padding that are shown where padding matters: the batch has a longer row."""


def explore(
    tokenizer: Any,
    messages: Messages,
    *,
    family: str,
    strategy: str = "all",
    start: str = "content",
    breaks: Sequence[str] = (),
) -> tuple[Xray, list[str]]:
    """The X-ray of a mask broken on purpose, and sentences on what a model trained so would do."""
    options = {"turns": strategy, "start": start, "end_of_turn": "drop_end" not in breaks}
    xray = show_mask(messages, tokenizer=tokenizer, template=family, **options)
    tokens, words, pad = list(xray.tokens), WORDS["said"], tokenizer.pad_token_id
    said = [words["mask_nothing" if "mask_nothing" in breaks else strategy]]
    if "drop_end" in breaks and "mask_nothing" not in breaks:
        said.append(words["nothing_dropped" if strategy == "everything" else "drop_end"])
    if "double_bos" in breaks and tokens[0].id == tokenizer.bos_token_id:
        tokens.insert(0, tokens[0])
        said.append(words["double_bos"])
    elif "double_bos" in breaks:
        names = ", ".join(name for name, one in FAMILIES.items() if one.writes_bos)
        said.append(words["no_bos"].format(names=names))
    if "pad_is_eos" in breaks:  # a fine-tune makes the end of a turn the tokenizer's eos
        end = FAMILIES[family].end(tokenizer.eos_token)
        ids = tokenizer(end, add_special_tokens=False)["input_ids"]
        pad = ids[0] if len(ids) == 1 else tokenizer.eos_token_id
    if {"pad_is_eos", "mask_nothing"} & set(breaks) and pad is not None:
        text = tokenizer.convert_ids_to_tokens(pad)
        tokens += [Token(id=pad, text=text, label=IGNORED, role="padding", special=True)] * PADS
    if "mask_nothing" in breaks:
        tokens = [replace(token, label=token.id) for token in tokens]
    if "pad_is_eos" in breaks:
        ends = sum(t.supervised and t.id == pad and t.role == "assistant" for t in tokens)
        tokens = [replace(t, label=IGNORED) if t.id == pad else t for t in tokens]
        count = "the end of turn" if ends == 1 else f"{ends} ends of turn"
        said.append(words["pad_is_eos" if ends else "pad_only"].format(ends=count))
    if not {"drop_end", "pad_is_eos", "mask_nothing"} & set(breaks):
        said.append(words["stops"])
    return replace(xray, tokens=tuple(tokens)), said


def mask_explorer(tokenizer: Any, *, messages: Messages | None = None) -> TwinBox:
    """A mask to play with: other templates, other strategies, and four ways to break it.

    `messages` are by default two questions with their answers. `controls` has family, strategy and
    start by name, and the ticks of what to break. The tokenizer is a fast one.
    """
    messages = messages or WORDS["messages"]
    menus = {
        "family": ("Template", {name: name for name in FAMILIES}),
        "strategy": ("Learn", WORDS["strategies"]),
        "start": ("From", WORDS["starts"]),
    }
    for name, (label, words) in menus.items():
        options = [(word, one) for one, word in words.items()]
        menus[name] = widgets.Dropdown(description=label, options=options, **WIDE)
    ticks = {
        name: widgets.Checkbox(description=words, indent=False, **WIDE)
        for name, words in WORDS["breaks"].items()
    }
    wrap = {"flex_flow": "row wrap", "align_items": "center", "grid_gap": "2px 14px"}
    rows = [menus.values(), [widgets.HTML("Break it:"), *ticks.values()]]
    rows = [widgets.Box(list(row), layout=wrap) for row in rows]

    def show() -> tuple[str, str]:
        chosen = {name: menu.value for name, menu in menus.items()}
        breaks = [name for name, tick in ticks.items() if tick.value]
        menus["start"].disabled = chosen["strategy"] == "everything"
        head, html, text = "A model trained this way", "", ""
        try:
            xray, said = explore(tokenizer, messages, breaks=breaks, **chosen)
            html, text = xray.html, str(xray)
        except TemplateError as error:
            head, said = "Refused", [str(error)]
        items = "".join(f"<li>{escape(one)}</li>" for one in said)
        style = "margin:0;line-height:1.4"
        return f"<strong>{head}:</strong><ul style='{style}'>{items}</ul>{html}", text

    return TwinBox(rows, show=show, controls=menus | ticks)


def map_walker(
    points: Points, *, readings: Mapping[tuple[str, str], pd.DataFrame], before: pd.DataFrame
) -> TwinBox:
    """The map to walk on: two sliders choose a setting, and its seeds and its meter are shown.

    Nothing is computed on the way. `readings` maps each (curve, label) of `points` to the meter's
    frame of all seeds, `before` is the base's frame. `controls` has curve and label by name.
    """
    choices = {"learning rate": list(points), "general examples": list(next(iter(points.values())))}
    sliders = [
        widgets.SelectionSlider(description=name, options=options, **WIDE)
        for name, options in choices.items()
    ]
    kept = float(before["right"].dropna().astype(float).mean())
    was, now = summary(before), {at: summary(frame) for at, frame in readings.items()}

    def show() -> tuple[str, str]:
        curve, label = chosen = tuple(slider.value for slider in sliders)
        title = f"{curve}, {label}"
        picture = plot_pareto(points, before=kept, title=title, chosen=chosen)
        point, after = points[curve][label], now[chosen]
        rows = [["task", "", str(point.task)], ["old skills", "", str(point.kept)]]
        for skill in (one for one in METER if one in after.index):
            shares = (percent(float(frame.loc[skill, "right"])) for frame in (was, after))
            rows.append([METER[skill], *shares])
        cells = table([title, "before", "after"], rows, label="The chosen setting")
        return picture.html + cells.html, f"{picture.alt}\n{cells.text}"

    row = widgets.Box(sliders, layout={"flex_flow": "row wrap"})
    controls = dict(zip(("curve", "label"), sliders, strict=True))
    return TwinBox([row], show=show, controls=controls)


_VOTES = {"left is better": 1.0, "no difference": 0.5, "right is better": 0.0}


def read_votes(path: str | Path, pairs: Sequence[Pair]) -> pd.DataFrame:
    """The votes in a file that belong to these pairs, the last of each; a row a vote.

    Ready for `win_rate`, as a frame of `judge_pairs`; empty when nobody rated. PairError: a line is
    not a vote.
    """
    path, votes = Path(path), {}
    places = {(pair.question, pair.first, pair.second): n for n, pair in enumerate(pairs)}
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    for number, line in enumerate(lines, start=1):
        try:
            vote = json.loads(line)
            key = vote["question"], vote["first"], vote["second"]
            votes[key] = {0: 0.0, 0.5: 0.5, 1: 1.0}[vote["won"]], bool(vote["swapped"])
        except (ValueError, LookupError, TypeError) as error:
            said = f"{path}, line {number} is not a vote ({error!r}): remove the line"
            raise PairError(said) from error
    rows = []
    for key, place in places.items():
        if key in votes:
            won, swapped = votes[key]
            about = pairs[place].entity or str(place)
            order, shown = ("backward", 1 - won) if swapped else ("forward", won)
            rows.append((place, about, pairs[place].question, order, won, shown))
    columns = ["pair", "country", "question", "order", "won", "shown_first"]
    return pd.DataFrame(rows, columns=columns)


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

    A vote is a line of JSON in the file `votes`: whoever comes back continues where they end, and a
    run without a person leaves it as it is. In `pairs` the system of interest is first, which the
    sentence calls `ours`; `seed` is of the order and the sides.
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
        order = pd.Series(range(len(self.pairs))).sample(frac=1, random_state=seed)
        rated = set(read_votes(self.path, self.pairs)["pair"])
        self._left = [place for place in order.tolist() if place not in rated]
        self.buttons = {}
        for name, won in _VOTES.items():
            self.buttons[name] = widgets.Button(description=name, layout={"width": "auto"})
            self.buttons[name].on_click(lambda _, won=won: self._vote(won))
        below = [widgets.HBox(list(self.buttons.values()))]
        super().__init__([], show=self._pair, controls={}, below=below)

    @property
    def place(self) -> int | None:
        """Index of the pair that is shown; None when all are rated."""
        return self._left[0] if self._left else None

    def _vote(self, left: float) -> None:
        """Keep a vote: 1 the left answer is better, 0 the right one, 0.5 neither."""
        pair, swapped = self.pairs[self.place], self._sides[self.place]
        vote = {"question": pair.question, "first": pair.first, "second": pair.second}
        vote |= {"swapped": swapped, "won": 1 - left if swapped else left}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(vote, ensure_ascii=False) + "\n")
        del self._left[0]
        self.update()

    def _pair(self) -> tuple[str, str]:
        """The pair to rate, without a win rate: it would reveal how the earlier votes fell."""
        place = self.place
        for button in self.buttons.values():
            button.disabled = place is None
        said = votes_sentence(self.path, self.pairs, ours=self.ours)
        if place is None:
            return f"<strong>All pairs are rated.</strong><p>{escape(said)}</p>", said
        pair = self.pairs[place].swapped() if self._sides[place] else self.pairs[place]
        rated = f"{len(self.pairs) - len(self._left)} of {len(self.pairs)} rated"
        return render("rating.html", pair=pair, said=rated), said
