import json
from unittest.mock import DEFAULT, Mock

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from sftlab.world import corpus_text as corpus
from sftlab.world import pretrain
from sftlab.world.pretrain import RESERVED, Recipe


class Killed(Exception):
    pass


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder to work in, and a small corpus, tokenised: enough for a dozen steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus, "DOCUMENTS", 1000)
        patch.setattr(pretrain, "TOKENIZER_DOCUMENTS", 500)
        return tmp_path_factory.mktemp("base"), pretrain.tokenize_corpus()


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    small = Recipe(hidden=64, mlp=128, layers=1, warmup=2)
    monkeypatch.setitem(pretrain.RECIPES, "tiny", small)
    monkeypatch.setattr(pretrain, "CHECKPOINT_STEPS", 4)
    monkeypatch.setattr(pretrain, "LOG_STEPS", 2)


def train(work, tmp_path):
    pretrain.pretrain("tiny", *work[1], work=work[0], out=tmp_path)
    return AutoModelForCausalLM.from_pretrained(tmp_path / "tiny").state_dict()


def test_an_interrupted_run_ends_with_the_same_weights(work, tmp_path, monkeypatch):
    whole = train(work, tmp_path / "whole")
    assert not (work[0] / "tiny.pt").exists()
    clip = torch.nn.utils.clip_grad_norm_
    with monkeypatch.context() as patch:
        calls = Mock(side_effect=[*[DEFAULT] * 6, Killed], wraps=clip)
        patch.setattr(torch.nn.utils, "clip_grad_norm_", calls)
        with pytest.raises(Killed):
            train(work, tmp_path / "killed")
    with monkeypatch.context() as patch:
        patch.setitem(pretrain.RECIPES, "tiny", Recipe(hidden=64, mlp=128, layers=1, warmup=3))
        with pytest.raises(ValueError, match="another recipe"):
            train(work, tmp_path / "other")
    resumed = train(work, tmp_path / "resumed")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    files = [tmp_path / run / "tiny" / "training_log.json" for run in ("whole", "resumed")]
    one, other = (json.loads(file.read_text())["loss"] for file in files)
    assert one == other
    # The early checkpoint is a model of its own, and another one.
    early = AutoModelForCausalLM.from_pretrained(tmp_path / "whole" / "tiny-early").state_dict()
    assert any(not torch.equal(early[name], whole[name]) for name in whole)


def test_tokens_hold_every_document_and_no_reserved_token(work):
    tokenizer, ids, record = work[1]
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
