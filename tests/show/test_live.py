"""The live loss curve: how often it is redrawn, and what is left of it in an executed notebook."""

from itertools import pairwise
from types import SimpleNamespace

import nbformat
import pytest
from nbclient import NotebookClient

from sftlab.show import LossCurve, live


def rows(count):
    for n in range(1, count + 1):
        yield {"step": n, "epoch": n / 10, "loss": 3 / n, "learning_rate": 1e-3 / n}
        if n % 10 == 0:
            yield {"step": n, "epoch": n / 10, "eval_loss": 1 + 1 / n}


def test_steps_and_measurements_come_together():
    curve = LossCurve(title="A run")
    for row in rows(20):
        curve(row)
    assert curve.picture().alt == (
        "A run: loss from 3 at the first step to 0.154 at step 20; validation loss from 1.1 to "
        "1.05."
    )


def test_no_step_is_no_picture():
    with pytest.raises(ValueError, match="no step yet: pass this curve to finetune"):
        LossCurve(title="none").picture()
    with LossCurve(title="none"):
        pass


@pytest.mark.parametrize(("cost", "pause"), [(0.0, 0.5), (0.2, 2.0)])
def test_it_is_redrawn_at_most_twice_a_second_and_a_tenth_of_the_time(monkeypatch, cost, pause):
    clock, drawn = [0.0], []
    monkeypatch.setattr(live, "time", SimpleNamespace(monotonic=lambda: clock[0]))

    def update(picture):
        drawn.append(clock[0])
        clock[0] += cost

    curve = LossCurve(title="fast")
    monkeypatch.setattr(curve, "_display", SimpleNamespace(update=update))
    monkeypatch.setattr(curve, "picture", lambda: None)
    for row in rows(1000):
        clock[0] += 0.01
        curve(row)
    assert len(drawn) >= 5
    assert all(b - a >= pause for a, b in pairwise(drawn))


NOTEBOOK = """
from sftlab.show import LossCurve
with LossCurve(title="Live") as curve:
    for n in range(1, 4):
        curve({"step": n, "epoch": n, "loss": 1 / n, "learning_rate": 1e-3})
    {end}
"""


@pytest.mark.parametrize("end", ["pass", "raise KeyboardInterrupt"])
def test_an_executed_notebook_holds_the_picture(end):
    cell = nbformat.v4.new_code_cell(NOTEBOOK.replace("{end}", end))
    book = nbformat.v4.new_notebook(cells=[cell])
    NotebookClient(book, allow_errors=True, kernel_name="python3").execute()
    (shown,) = [out for out in book.cells[0].outputs if out.output_type == "display_data"]
    assert shown["data"].keys() == {"image/png", "text/plain"}
    assert "to 0.333 at step 3" in shown["data"]["text/plain"]
    errors = [out.ename for out in book.cells[0].outputs if out.output_type == "error"]
    assert errors == ([] if end == "pass" else ["KeyboardInterrupt"])
