"""Curves of the lessons: a score against the number of examples, losses against epochs."""

from collections.abc import Mapping
from textwrap import fill

import pandas as pd

from sftlab.measure import Estimate, percent
from sftlab.show.plots import COLOURS, GREY, TITLE, Picture, _axes


def plot_learning(
    points: Mapping[int, Estimate],
    *,
    title: str,
    line: tuple[str, Estimate] | None = None,
    axis: str = "answered rightly",
) -> Picture:
    """A share against a number of examples, on a logarithmic axis: mean, interval, dots of seeds.

    `line` is a name and an estimate that needs no examples, such as a prompt's: a dashed line.
    """
    figure, (ax,) = _axes(7.2, 3.2)
    counts = list(points)
    ax.plot(counts, [points[n].value for n in counts], color=COLOURS[0], linewidth=1.8)
    told = []
    for n, found in points.items():
        ax.plot([n, n], [found.low, found.high], color="#333333", linewidth=1.3)
        # Beside each other across the line: equal seeds would hide one another on it.
        spread = [n * 1.03 ** (k - (len(found.by_seed) - 1) / 2) for k in range(len(found.by_seed))]
        ax.scatter(spread, found.by_seed, s=12, color="white", edgecolor="#222222",
                   linewidth=0.7, zorder=3)  # fmt: skip
        below = found.value > 0.15  # lower, the axis would run through the number
        ax.annotate(percent(found.value), (n, found.value), xytext=(10, -14 if below else 6),
                    textcoords="offset points", fontsize=9)  # fmt: skip
        told.append(f"{n} examples {percent(found.value)}")
    if line:
        name, found = line
        ax.axhline(found.value, color=GREY, linewidth=1.3, linestyle="--")
        ax.text(counts[0], found.value + 0.02, f"{name} {percent(found.value)}", fontsize=9,
                color="#444444")  # fmt: skip
        told.append(f"{name} {percent(found.value)}")
    ax.set_xscale("log")
    ax.set_xticks(counts, [f"{n:,}" for n in counts], fontsize=9)
    ax.minorticks_off()
    ax.set_xlim(counts[0] / 1.3, counts[-1] * 1.4)
    ax.set_ylim(0, 1.09)
    ax.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0%", "25%", "50%", "75%", "100%"], fontsize=9)
    label = "examples, each step four times as many (line: 95% interval; dots: seeds)"
    ax.set_xlabel(label.replace("four", _step(counts)), fontsize=9, color="#444444")
    ax.set_ylabel(axis, fontsize=9, color="#444444")
    ax.set_title(fill(title, TITLE), loc="left", fontsize=11)
    return Picture(figure, alt=f"{title}: {'; '.join(told)}.")


def _step(counts: list[int]) -> str:
    words = {2: "two", 3: "three", 4: "four", 10: "ten"}
    step = counts[1] / counts[0] if len(counts) > 1 else 1
    return words.get(step, f"{step:g}")


def plot_losses(frame: pd.DataFrame, *, title: str) -> Picture:
    """Losses by epoch: a thin line for each seed, a thick one for their mean.

    `frame` has the columns seed, epoch, kind (such as training and validation) and loss, in nats
    a supervised token. Of two kinds a dotted line marks where the mean of the last is least. The
    first epoch may lie above the picture: it would press all the others together.
    """
    figure, (ax,) = _axes(7.2, 3.0)
    told = []
    for n, (kind, rows) in enumerate(frame.groupby("kind", sort=False)):
        for _, one in rows.groupby("seed"):
            ax.plot(one["epoch"], one["loss"], color=COLOURS[n], linewidth=0.7, alpha=0.45)
        mean = rows.groupby("epoch")["loss"].mean()
        ax.plot(mean.index, mean, color=COLOURS[n], linewidth=2.4, label=kind)
        told.append(
            f"{kind} {mean.iloc[0]:.2f} at the first epoch, least {mean.min():.2f} at epoch "
            f"{mean.idxmin():g}, {mean.iloc[-1]:.2f} at the last"
        )
    several = frame["kind"].nunique() > 2
    if not several:
        ax.axvline(mean.idxmin(), color=GREY, linewidth=1, linestyle=":")
    top = frame.loc[frame["epoch"] > frame["epoch"].min(), "loss"].max()
    ax.set_ylim(0, 1.15 * min(top, frame["loss"].max()))
    if several:  # inside, it would lie over the curves
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, frameon=False, fontsize=9,
                  borderaxespad=0.1)  # fmt: skip
    else:
        ax.legend(frameon=False, fontsize=9)
    ax.set_xlabel("epoch (thin: seeds, thick: their mean)", fontsize=9, color="#444444")
    ax.set_ylabel("loss, nats a supervised token", fontsize=9, color="#444444")
    ax.set_title(fill(title, TITLE), loc="left", fontsize=11, pad=26 if several else 6)
    return Picture(figure, alt=f"{title}: {'; '.join(told)}.")
