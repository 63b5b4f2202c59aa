"""What a run noted, as frames."""

from types import SimpleNamespace

import pandas as pd
import pytest

from sftlab.measure.curves import by_epoch, final, losses


def noted(*, kept=None, validation=(0.9, 0.7, 0.8)):
    """Three epochs of two steps."""
    return SimpleNamespace(
        history=[
            {"step": n, "epoch": n / 2, "loss": 3.0 - n / 4, "grad_norm": 1.5,
             "learning_rate": 1e-3, "mean_token_accuracy": 0.5}
            for n in range(1, 7)
        ],
        validation=[
            {"step": 2 * n, "epoch": float(n), "loss": loss}
            for n, loss in enumerate(validation, start=1)
        ],
        kept_epoch=kept,
    )  # fmt: skip


def test_steps_and_epochs_stand_in_one_frame():
    frame = losses(noted())
    assert list(frame["kind"]) == ["training"] * 6 + ["validation"] * 3
    assert list(frame["nats"])[-3:] == [0.9, 0.7, 0.8]
    assert frame["norm"].isna().tolist() == [False] * 6 + [True] * 3


def test_the_final_loss_is_that_of_the_weights_that_the_run_has():
    last = final(losses(noted()).assign(run="a"))
    best = final(losses(noted(kept=2.0)).assign(run="b"))
    assert last["nats"].tolist() == [0.8]
    assert best["nats"].tolist() == [0.7]


def test_a_run_without_validation_has_no_final_loss():
    assert final(losses(noted(validation=()))).empty


def test_an_untrained_run_gives_an_empty_frame():
    run = SimpleNamespace(history=[], validation=[], kept_epoch=None)
    assert losses(run).empty


def test_an_epoch_holds_the_steps_up_to_its_end():
    many = pd.concat(losses(noted()).assign(seed=seed, run=f"r{seed}") for seed in (0, 1))
    frame = by_epoch(many)
    training = frame[(frame["kind"] == "training") & (frame["seed"] == 1)]
    assert training["epoch"].tolist() == [1, 2, 3]
    assert training["loss"].tolist() == pytest.approx([2.625, 2.125, 1.625])
    assert frame[frame["kind"] == "validation"]["loss"].tolist() == [0.9, 0.7, 0.8] * 2
