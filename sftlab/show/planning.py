"""Pictures of plans: the memory of a fine-tune, part by part, and next to what a GPU measured."""

from collections.abc import Mapping, Sequence
from textwrap import fill

from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from sftlab.planner import PARTS, Case, Measured, Memory
from sftlab.show.plots import COLOURS, GREY, TITLE, Picture, _axes

GB = 1e9
_COLOURS = dict(zip(PARTS, (*COLOURS, "#bdbdbd"), strict=True))


def plot_memory(
    plans: Mapping[str, Memory], *, title: str, gpus: Mapping[str, float] | None = None
) -> Picture:
    """Stacked bars of what each plan takes at its peak, in GB, the process included.

    `gpus` maps a name to bytes: a dashed line each, for what would fit.
    """
    gpus = gpus or {}
    stacks = {name: {p: size / GB for p, size in plan.at_peak().items()}
              for name, plan in plans.items()}  # fmt: skip
    for name, plan in plans.items():
        stacks[name]["temporary"] += plan.process / GB
    used = [part for part in PARTS if any(stack[part] for stack in stacks.values())]
    widest = max([*(sum(stack.values()) for stack in stacks.values()),
                  *(size / GB for size in gpus.values())])  # fmt: skip
    figure, (ax,) = _axes(7.2, 1.5 + 0.42 * len(plans))
    told = []
    for y, (name, stack) in enumerate(stacks.items()):
        left = 0.0
        for part in used:
            ax.barh(y, stack[part], left=left, height=0.66, color=_COLOURS[part])
            left += stack[part]
        ax.text(left + widest * 0.012, y, _gb(left), va="center", fontsize=9,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8})  # fmt: skip
        told.append(f"{name} {_gb(left)}")
    for name, size in gpus.items():
        ax.axvline(size / GB, color=GREY, linewidth=1.2, linestyle="--", zorder=0)
        ax.text(size / GB, len(plans) - 0.42, f" {name}", fontsize=8, color="#444444", va="top")
    ax.set_yticks(range(len(plans)), [fill(name, 34) for name in plans], fontsize=10)
    ax.set_ylim(len(plans) - (0.1 if gpus else 0.5), -0.5)
    ax.set_xlim(0, widest * 1.14)
    ax.tick_params(axis="x", labelsize=9)
    ax.set_xlabel("GB at the peak of a training step (temporary: with the process)", fontsize=9,
                  color="#444444")  # fmt: skip
    ax.set_title(fill(title, TITLE), loc="left", fontsize=11, pad=26 + 14 * (len(used) > 5))
    ax.legend(
        [Patch(color=_COLOURS[part]) for part in used], used, loc="lower left",
        bbox_to_anchor=(0, 1), ncols=5, frameon=False, fontsize=9, borderaxespad=0.1,
        handlelength=1, handleheight=1, columnspacing=1.2,
    )  # fmt: skip
    return Picture(figure, alt=f"{title}: {'; '.join(told)}.")


def plot_measured(rows: Sequence[tuple[str, Case, Measured]], *, title: str) -> Picture:
    """A bar for what was planned, a mark on it for what a GPU measured, in GB of tensors.

    Args:
        rows: of one model, as `sftlab.planner.on_gpus` gives them.
        title: above the picture.
    """
    figure, (ax,) = _axes(7.2, 1.2 + 0.27 * len(rows))
    methods = list(dict.fromkeys(case.method for _, case, _ in rows))
    colours = {method: COLOURS[n % len(COLOURS)] for n, method in enumerate(methods)}
    told, names = [], []
    for y, (_, case, found) in enumerate(rows):
        planned, measured = case.plan().total / GB, found.peak_bytes / GB
        ax.barh(y, planned, height=0.62, color=colours[case.method], alpha=0.55)
        ax.plot([measured] * 2, [y - 0.42, y + 0.42], color="#222222", linewidth=2)
        names.append(str(case).removeprefix(f"{case.model} "))
        told.append(f"{names[-1]}: planned {_gb(planned)}, measured {_gb(measured)}")
    ax.set_yticks(range(len(rows)), names, fontsize=9)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.tick_params(axis="x", labelsize=9)
    ax.set_xlabel("GB of tensors at the peak of a training step", fontsize=9, color="#444444")
    figure.suptitle(fill(title, TITLE), x=0.01, ha="left", fontsize=11)
    handles = [Patch(color=colours[method], alpha=0.55) for method in methods]
    handles.append(Line2D([], [], color="#222222", linewidth=2))
    ax.legend(handles, [*(f"{method}, planned" for method in methods), "measured"],
              loc="lower left", bbox_to_anchor=(0, 1), ncols=len(methods) + 1, frameon=False,
              fontsize=9, borderaxespad=0.1, handlelength=1, handleheight=1)  # fmt: skip
    return Picture(figure, alt=f"{title}: {'; '.join(told)}.")


def _gb(size: float) -> str:
    return f"{size:.3g} GB" if size < 100 else f"{size:.0f} GB"
