"""The live loss curve: what it draws, how often, and what is left of it in an executed notebook."""

import itertools
import re
from types import SimpleNamespace

import nbformat
import pytest
from nbclient import NotebookClient

from sftlab.show import live
from sftlab.show.live import LossCurve


def rows(count, *, loss=lambda n: 3 / n):
    for n in range(1, count + 1):
        yield {"step": n, "epoch": n / 10, "loss": loss(n), "learning_rate": 1e-3 / n}
        if n % 10 == 0:
            yield {"step": n, "epoch": n / 10, "eval_loss": 1 + 1 / n}


def filled(count, **how):
    curve = LossCurve(title="A <run>")
    for row in rows(count, **how):
        curve(row)
    return curve


def test_the_picture_has_all_steps_and_says_where_it_came_from_and_went():
    picture = filled(20).picture()
    upper, lower = picture.figure.axes
    each, mean, measured = upper.lines
    assert each.get_ydata().tolist() == [3 / n for n in range(1, 21)]
    assert mean.get_ydata()[1] == pytest.approx((3 + 1.5) / 2)
    assert list(zip(*measured.get_data(), strict=True)) == [(10, 1.1), (20, 1.05)]
    assert lower.lines[0].get_ydata()[-1] == pytest.approx(5e-5)
    assert "loss from 3 at the first step to 0.154 at step 20" in picture.alt
    assert "validation loss 1.1 at first, 1.05 at last" in picture.alt


def test_the_drawing_shows_the_same_and_is_small_however_long_the_run():
    drawing = filled(20)._drawing()
    assert "A &lt;run&gt;" in drawing
    assert "step 20: loss 0.150" in drawing
    assert drawing.count("<circle") == 2
    first = re.search(r'points="([^"]*)"', drawing)[1].split()
    assert len(first) == 20
    assert first[0] == "54.0,41.7", "the highest at the left, a twentieth below the top"
    assert first[-1].startswith("708.0,")
    long = filled(5000)._drawing()
    assert len(long) < 40_000
    assert re.search(r'points="([^"]*)"', long)[1].split()[-1].startswith("708.0,")


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_a_diverged_run_is_drawn_too(wrong):
    curve = filled(12, loss=lambda n: wrong if n > 2 else 2.0)
    for line in re.findall(r'points="([^"]*)"', curve._drawing()):
        assert not re.search("nan|inf", line)
    assert curve.picture()._png()
    everywhere = filled(3, loss=lambda n: wrong)
    assert everywhere._drawing().endswith("</svg>")
    assert everywhere.picture()._png()


def test_no_step_is_no_picture():
    with pytest.raises(ValueError, match="no step yet; give this curve to finetune"):
        LossCurve(title="none").picture()
    with LossCurve(title="none"):
        pass


def test_it_is_redrawn_at_most_four_times_a_second(monkeypatch):
    clock, drawn = [0.0], []
    monkeypatch.setattr(live, "time", SimpleNamespace(monotonic=lambda: clock[0]))

    class Widget:
        def __setattr__(self, name, value):
            drawn.append(clock[0])

    curve = LossCurve(title="fast")
    curve._widget = Widget()
    for row in rows(100):
        clock[0] += 0.01
        curve(row)
    assert 4 <= len(drawn) <= 5
    assert all(b - a >= 0.25 for a, b in itertools.pairwise(drawn))


NOTEBOOK = """
from sftlab.show.live import LossCurve
with LossCurve(title="Live") as curve:
    for n in range(1, 4):
        curve({"step": n, "epoch": n, "loss": 1 / n, "learning_rate": 1e-3})
        print(curve._widget.value[:4])
    {end}
"""


@pytest.mark.parametrize("end", ["pass", "raise KeyboardInterrupt"])
def test_an_executed_notebook_holds_the_picture_and_no_widget(end):
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(
        NOTEBOOK.replace("{end}", end))])  # fmt: skip
    NotebookClient(book, allow_errors=True, kernel_name="python3").execute()
    shown = [out for out in book.cells[0].outputs if out.output_type == "display_data"]
    assert len(shown) == 1
    assert shown[0]["data"].keys() == {"image/png", "text/plain"}
    assert shown[0]["data"]["text/plain"].startswith("Live: loss from 1 at")
    printed = "".join(out.get("text", "") for out in book.cells[0].outputs)
    assert "<svg" in printed, "the widget was drawn"
    errors = [out.ename for out in book.cells[0].outputs if out.output_type == "error"]
    assert errors == ([] if end == "pass" else ["KeyboardInterrupt"])
