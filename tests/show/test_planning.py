import pytest

from sftlab.planner import Case, Measured, estimate
from sftlab.show.planning import plot_measured, plot_memory


@pytest.fixture(scope="module")
def plans():
    return {
        name: estimate("smollm2-135m", method=name, max_length=512, device="cuda")
        for name in ("full", "qlora")
    }


def test_bars_add_up_to_what_is_needed(plans):
    picture = plot_memory(plans, title="Memory", gpus={"2 GB GPU": 2e9})
    (ax,) = picture.figure.axes
    for y, (name, plan) in enumerate(plans.items()):
        bars = [bar for bar in ax.patches if abs(bar.get_y() + bar.get_height() / 2 - y) < 1e-6]
        assert sum(bar.get_width() for bar in bars) == pytest.approx(plan.needed / 1e9)
        assert f"{name} {plan.needed / 1e9:.3g} GB" in picture.alt
    assert [line.get_xdata()[0] for line in ax.lines] == [2.0]


def test_a_part_that_no_plan_has_is_not_in_the_legend(plans):
    def legend(chosen):
        (ax,) = plot_memory(chosen, title="Memory").figure.axes
        return {text.get_text() for text in ax.get_legend().get_texts()}

    assert legend(plans) - legend({"full": plans["full"]}) == {"adapters"}


def test_a_mark_for_what_a_gpu_measured():
    case = Case("smollm2-135m", "lora", 2, 64, True)
    found = Measured(peak_bytes=3_000_000_000, reserved_bytes=0, outside_bytes=0,
                     tokens_per_second=1.0)  # fmt: skip
    picture = plot_measured([("a GPU", case, found)], title="One")
    planned = case.plan().total / 1e9
    assert picture.alt == (
        f"One: lora 2 x 64 checkpointing: planned {planned:.3g} GB, measured 3 GB."
    )
    (ax,) = picture.figure.axes
    assert ax.patches[0].get_width() == pytest.approx(planned)
    assert list(ax.lines[0].get_xdata()) == [3, 3]
