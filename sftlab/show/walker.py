"""A walk along the measured map of forgetting: choose a setting, see where it stands.

Nothing is computed on the way: each setting was trained and measured before.
"""

from collections.abc import Mapping
from html import escape

import ipywidgets as widgets
import pandas as pd

from sftlab.measure import percent, summary
from sftlab.show.forgetting import NAMES
from sftlab.show.forgetting_map import Points
from sftlab.show.plots import COLOURS

SIZE, LEFT, BOTTOM = 300, 46, 34
"""Pixels of the drawing's square, and of the room for its axes."""


class MapWalker(widgets.VBox):
    """Two controls above a drawing and a table; needs a running kernel.

    `controls` has curve and label by name; `chosen` is what they say.
    """

    def __init__(
        self,
        points: Points,
        readings: Mapping[tuple[str, str], pd.DataFrame],
        before: pd.DataFrame,
        names: tuple[str, str],
    ) -> None:
        self._points, self._before = points, summary(before)
        self._told = {at: summary(frame) for at, frame in readings.items()}
        self.controls = {
            key: widgets.SelectionSlider(
                description=name, options=options, style={"description_width": "initial"},
                layout={"width": "340px", "max_width": "100%"},
            )
            for key, name, options in zip(
                ("curve", "label"), names, (list(points), list(next(iter(points.values())))),
                strict=True,
            )
        }  # fmt: skip
        self.card = widgets.HTML()
        for control in self.controls.values():
            control.observe(self._update, names="value")
        row = widgets.Box(
            list(self.controls.values()), layout={"flex_flow": "row wrap", "grid_gap": "2px 24px"}
        )
        super().__init__([row, self.card], layout=widgets.Layout(max_width="740px"))
        self._update()

    @property
    def chosen(self) -> tuple[str, str]:
        """Curve and label of the controls."""
        return self.controls["curve"].value, self.controls["label"].value

    def _update(self, change: object = None) -> None:
        self.card.value = (
            '<div style="display:flex;flex-wrap:wrap;gap:18px;align-items:center;line-height:1.5">'
            f"{self._drawing()}<div>{self._table()}</div></div>"
        )

    def _drawing(self) -> str:
        curve, label = self.chosen
        drawn = []
        for n, (name, row) in enumerate(self._points.items()):
            colour = COLOURS[n % len(COLOURS)]
            places = [_at(p.task.value, p.kept.value) for p in row.values()]
            line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
            drawn.append(f'<polyline points="{line}" fill="none" stroke="{colour}" '
                         f'stroke-width="{2 if name == curve else 1}" opacity="0.6"/>')  # fmt: skip
            drawn += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>'
                      for x, y in places]  # fmt: skip
        point = self._points[curve][label]
        seeds = [_at(*both) for both in zip(point.task.by_seed, point.kept.by_seed, strict=True)]
        drawn += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="#fff" stroke="#222"/>'
                  for x, y in seeds]  # fmt: skip
        x, y = _at(point.task.value, point.kept.value)
        drawn.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="9" fill="none" stroke="#222" '
                     'stroke-width="2"/>')  # fmt: skip
        (x0, y0), (x1, y1) = _at(0, 0), _at(1, 1)
        said = f"task {percent(point.task.value)}, kept {percent(point.kept.value)}"
        return (
            f'<svg role="img" aria-label="{escape(f"{curve}, {label}: {said}")}" '
            f'viewBox="0 0 {SIZE + LEFT + 10} {SIZE + BOTTOM + 10}" width="{SIZE + LEFT + 10}" '
            'style="background:#fff;max-width:100%" font-family="sans-serif" font-size="12" '
            f'fill="#444"><path d="M{x0} {y1}V{y0}H{x1}" fill="none" stroke="#888"/>'
            f"{''.join(drawn)}"
            f'<text x="{x0 - 6}" y="{y1 + 10}" text-anchor="end">100%</text>'
            f'<text x="{x0 - 6}" y="{y0}" text-anchor="end">0%</text>'
            f'<text x="{x1}" y="{y0 + 16}" text-anchor="end">100%</text>'
            f'<text x="{(x0 + x1) / 2}" y="{y0 + 28}" text-anchor="middle">task</text>'
            f'<text x="{x0 - 6}" y="{(y0 + y1) / 2}" text-anchor="end">kept</text></svg>'
        )

    def _table(self) -> str:
        curve, label = self.chosen
        point, told = self._points[curve][label], self._told[curve, label]
        rows = [("task", "", str(point.task)), ("old skills", "", str(point.kept))]
        for skill, name in NAMES.items():
            if skill in told.index:
                was, now = self._before.loc[skill, "right"], told.loc[skill, "right"]
                rows.append((name, percent(float(was)), percent(float(now))))
        cell = "padding:1px 12px 1px 0;text-align:left"
        body = "".join(
            f"<tr>{''.join(f'<td style={chr(34)}{cell}{chr(34)}>{escape(t)}</td>' for t in row)}"
            "</tr>"
            for row in rows
        )
        head = "".join(f'<th style="{cell}">{h}</th>' for h in ("", "before", "after"))
        return (
            f"<strong>{escape(curve)}, {escape(label)}</strong>"
            f'<table style="border-collapse:collapse;color:inherit"><tr>{head}</tr>{body}</table>'
        )


def _at(task: float, kept: float) -> tuple[float, float]:
    return LEFT + task * SIZE, 10 + (1 - kept) * SIZE


def map_walker(
    points: Points,
    *,
    readings: Mapping[tuple[str, str], pd.DataFrame],
    before: pd.DataFrame,
    names: tuple[str, str] = ("learning rate", "general examples"),
) -> MapWalker:
    """The map to walk on: two sliders choose a setting; its seeds and its meter are shown.

    A widget is lost without a kernel: show `plot_pareto` beside it.

    Args:
        points: the settings, every curve with the same labels.
        readings: by curve and label, the meter's frame of all seeds.
        before: the base's.
        names: of the two sliders.

    Raises:
        ValueError: a setting has no reading.
    """
    every = [(name, label) for name, row in points.items() for label in row]
    missing = [one for one in every if one not in readings]
    if missing:
        raise ValueError(f"the setting {missing[0]} has no reading of the meter; give one for each")
    return MapWalker(points, readings, before, names)
