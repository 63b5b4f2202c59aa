"""Pictures of the forgetting meter: what was known before a fine-tune, and what is left of it."""

from collections.abc import Mapping
from textwrap import fill

import pandas as pd

from sftlab.measure import SKILLS, percent
from sftlab.show.plots import COLOURS, GREY, TITLE, Picture, _axes

SOFT = "#444444"
NAMES = {
    "facts": "facts (plain sentences)", "few-shot": "few-shot answers", "stories": "stories",
    "counting": "counting, sums", "nature": "animals, elements",
}  # fmt: skip


def plot_meter(
    readings: Mapping[str, pd.DataFrame], *, before: pd.DataFrame, title: str
) -> Picture:
    """A row a skill: a grey mark for the base, and for each run a dot with a line to it.

    On the right the loss on documents of the corpus, where the readings have them.

    Args:
        readings: by name, a frame of `Run.meter`; with a column `seed` the dot is the mean of the
            seeds, and each of them a small dot.
        before: the base's reading of the same items.
        title: above the picture.
    """
    skills = [one for one in SKILLS if one in NAMES and (before["skill"] == one).any()]
    documents = (before["skill"] == "corpus").any()
    figure, axes = _axes(7.2, 1.5 + len(skills) * (0.18 + 0.17 * len(readings)),
                         columns=1 + documents, widths=(3, 1) if documents else None)  # fmt: skip
    step = 0.7 / len(readings)
    was = {skill: _share(before, skill)[0] for skill in skills}
    told, losses = [f"before {skill} {percent(was[skill])}" for skill in skills], []
    for n, (name, frame) in enumerate(readings.items()):
        colour = COLOURS[n % len(COLOURS)]
        for y, skill in enumerate(skills):
            at = y + (n - (len(readings) - 1) / 2) * step
            share, seeds = _share(frame, skill)
            axes[0].plot([was[skill], share], [at, at], color=colour, linewidth=2, alpha=0.55)
            axes[0].scatter(seeds, [at] * len(seeds), s=9, color="white", edgecolor=colour,
                            linewidth=0.8, zorder=3)  # fmt: skip
            axes[0].plot(share, at, "o", color=colour, markersize=6, zorder=4,
                         label=name if y == 0 else None)  # fmt: skip
            told.append(f"{name} {skill} {percent(share)}")
        if documents:
            nats = float(frame.loc[frame["skill"] == "corpus", "nats"].mean())
            axes[1].barh(n, nats, color=colour, height=0.5)
            axes[1].text(nats, n, f" {nats:.2f}", va="center", fontsize=8)
            losses.append(f"{name} loss on the corpus {nats:.2f} nats")
    for y, skill in enumerate(skills):
        axes[0].plot([was[skill]] * 2, [y - 0.4, y + 0.4], color=GREY, linewidth=3,
                     label="before" if y == 0 else None)  # fmt: skip
    several = any("seed" in frame for frame in readings.values())
    _dress(axes[0], skills, label="right (small dots: seeds)" if several else "right")
    if documents:
        nats = float(before.loc[before["skill"] == "corpus", "nats"].mean())
        axes[1].axvline(nats, color=GREY, linewidth=3)
        axes[1].set_ylim(len(readings) - 0.5, -0.5)
        axes[1].set_yticks([])
        axes[1].set_xlim(0, 1.35 * axes[1].get_xlim()[1])
        axes[1].tick_params(labelsize=8)
        axes[1].set_xlabel("loss on the corpus,\nnats a token", fontsize=9, color=SOFT)
    axes[0].set_title(fill(title, TITLE), loc="left", fontsize=11, pad=24)
    legend = axes[0].legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, frameon=False,
                            fontsize=9, borderaxespad=0.1, handletextpad=0.4,
                            columnspacing=1.2)  # fmt: skip
    legend.set_in_layout(False)  # it may reach over the right panel, and must not squeeze this one
    return Picture(figure, alt=f"{title}: {'; '.join([*told, *losses])}.")


def _dress(ax, skills: list[str], *, label: str) -> None:
    ax.set_yticks(range(len(skills)), [NAMES[skill] for skill in skills], fontsize=9)
    ax.set_ylim(len(skills) - 0.5, -0.5)
    ax.set_xlim(-0.03, 1.04)
    ax.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0%", "25%", "50%", "75%", "100%"], fontsize=9)
    ax.set_xlabel(label, fontsize=9, color=SOFT)


def _share(frame: pd.DataFrame, skill: str) -> tuple[float, list[float]]:
    """Share of a skill's items that are right, and that of each seed where there are several."""
    rows = frame[frame["skill"] == skill]
    right = rows["right"].astype(float)
    seeds = right.groupby(rows["seed"]).mean().tolist() if "seed" in rows else []
    return float(right.mean()), seeds if len(seeds) > 1 else []
