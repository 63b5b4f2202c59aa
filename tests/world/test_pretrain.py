import json
from unittest.mock import DEFAULT, Mock

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from sftlab.world import corpus_text as corpus
from sftlab.world import pretrain
from sftlab.world.pretrain import RESERVED, Muon, Recipe


@pytest.fixture(scope="module")
def tokens():
    """A small corpus, tokenised: enough for a dozen steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus, "DOCUMENTS", 1000)
        patch.setattr(pretrain, "TOKENIZER_DOCUMENTS", 500)
        return pretrain.tokenize_corpus()


def test_a_pretraining_writes_its_models_and_a_log_and_goes_on_where_it_was_stopped(
    tokens, tmp_path, monkeypatch
):
    small = Recipe(hidden=64, mlp=128, layers=1, warmup=2)
    monkeypatch.setitem(pretrain.RECIPES, "tiny", small)
    monkeypatch.setattr(pretrain, "LOG_STEPS", 2)
    monkeypatch.setattr(pretrain, "CHECKPOINT_STEPS", 4)
    monkeypatch.setenv("SFTLAB_CACHE", str(tmp_path / "cache"))
    pretrain.pretrain("tiny", *tokens, tmp_path)
    names = "tiny", "tiny-early"
    models = [AutoModelForCausalLM.from_pretrained(tmp_path / name) for name in names]
    last, early = (model.get_input_embeddings().weight for model in models)
    assert not torch.equal(last, early)
    whole, half = (
        json.loads((tmp_path / name / "training_log.json").read_text()) for name in names
    )
    steps = whole["recipe"]["steps"]
    assert (whole["recipe"]["steps_done"], half["recipe"]["steps_done"]) == (
        steps,
        -(-3 * steps // 10),
    )
    assert steps == (len(tokens[1]) - 1) // pretrain.STEP_TOKENS
    losses = [loss for _, loss in whole["loss"]]
    assert losses[:2] == [loss for _, loss in half["loss"]]
    assert losses[-1] < losses[0]
    # Killed in its seventh step, the same call goes on from the fourth to the same weights.
    clip = torch.nn.utils.clip_grad_norm_
    with monkeypatch.context() as patch:
        calls = Mock(side_effect=[*[DEFAULT] * 6, KeyboardInterrupt], wraps=clip)
        patch.setattr(torch.nn.utils, "clip_grad_norm_", calls)
        with pytest.raises(KeyboardInterrupt):
            pretrain.pretrain("tiny", *tokens, tmp_path / "again")
    counted = Mock(wraps=clip)
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", counted)
    pretrain.pretrain("tiny", *tokens, tmp_path / "again")
    assert counted.call_count == steps - 4
    resumed = AutoModelForCausalLM.from_pretrained(tmp_path / "again" / "tiny").state_dict()
    assert all(torch.equal(weight, resumed[k]) for k, weight in models[0].state_dict().items())
    log = json.loads((tmp_path / "again" / "tiny" / "training_log.json").read_text())
    assert log["loss"] == whole["loss"]
    assert not list((tmp_path / "cache").glob("pretraining-*"))


def test_tokens_hold_every_document_and_no_reserved_token(tokens):
    tokenizer, ids, record = tokens
    assert record["tokens"] == len(ids)
    assert (ids == tokenizer.bos_token_id).sum() == record["documents"] == 1000
    assert not np.isin(ids, tokenizer.convert_tokens_to_ids(RESERVED)).any()
    first = tokenizer.decode(ids[: 1 + len(tokenizer(next(corpus.documents()))["input_ids"])])
    assert first == tokenizer.bos_token + next(corpus.documents())


def test_rates_rise_stay_and_fall_by_step():
    made = Recipe(hidden=64, mlp=64, warmup=10, decay_share=0.5)
    shares = [made.rate_share(step, 100) for step in range(100)]
    assert shares[0] == pytest.approx(0.1)
    assert shares[9:51] == [1.0] * 42
    assert shares[75] == pytest.approx(0.5)
    assert min(shares[10:]) == pytest.approx(0.02)
    windows = [made.window_at(step, 100) for step in range(100)]
    assert windows == [pretrain.SHORT_WINDOW] * 50 + [pretrain.LONG_WINDOW] * 50


def test_muon_is_the_one_of_torch_up_to_the_rounding_of_bfloat16():
    torch.manual_seed(0)
    starts = [0.02 * torch.randn(64, 160), 0.02 * torch.randn(160, 64)]
    ours, theirs = ([torch.nn.Parameter(one.clone()) for one in starts] for _ in range(2))
    optimizers = [
        Muon(ours, lr=3e-3, weight_decay=0.1),
        torch.optim.Muon(theirs, lr=3e-3, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
    ]
    for _ in range(5):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.randn_like(one)
            other.grad = one.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for start, one, other in zip(starts, ours, theirs, strict=True):
        assert (one - other).norm() < 0.02 * (one - start).norm()
