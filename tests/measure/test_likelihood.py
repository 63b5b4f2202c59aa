"""Losses agree with the model's own, padding changes nothing, and choices are judged by hand."""

import numpy as np
import pandas as pd
import pytest
import torch

from sftlab.chat import setup_chat_template
from sftlab.measure import probe_forced, probe_two_hops, text_features, text_loss, with_bos
from sftlab.models import load
from sftlab.train import finetune
from sftlab.world import countries, two_hop_examples


@pytest.fixture(scope="module")
def toy(toy_base):
    model, tokenizer = load(toy_base)
    setup_chat_template(model, tokenizer, template="chatml")
    return model, tokenizer


@pytest.fixture(scope="module")
def run():
    return finetune("tiny", two_hop_examples(60), per_device_train_batch_size=8, progress=False)


def test_text_loss_is_the_models_own_over_all_tokens(toy):
    model, tokenizer = toy
    documents = ["The capital of France is Paris.", "1 2 3", "Q: Why?\nA: Because."]
    total, count = 0.0, 0
    for document in documents:
        ids = torch.tensor([with_bos(tokenizer, document)])
        with torch.no_grad():
            total += model(ids, labels=ids).loss.item() * (ids.shape[1] - 1)
        count += ids.shape[1] - 1
    assert text_loss(model, tokenizer, documents) == pytest.approx(total / count, rel=1e-5)


def test_an_answer_right_at_every_token_is_what_the_model_writes(run):
    """Greedy generation takes the likeliest token: if each is the true one, so is the answer."""
    among = countries(group="asked", split="held_out")[:12]
    given = probe_forced(run.model, run.tokenizer, among=among)
    assert len(given) == len(among) * 3
    assert given["tokens"].min() > 8
    free = probe_two_hops(lambda questions: run.answer(questions, max_new_tokens=40), among=among)
    free = free[free["wording"] == 0].reset_index(drop=True)
    whole = given["tokens_right"] == 1
    assert whole.any()
    assert free.loc[whole, "right"].all()
    # What shares a batch, and so its padding, changes nothing.
    alone = pd.concat(probe_forced(run.model, run.tokenizer, among=[one]) for one in among)
    assert given["tokens_right"].tolist() == alone["tokens_right"].tolist()


def test_features_are_the_last_hidden_state_whatever_else_is_in_the_batch(toy):
    model, tokenizer = toy
    texts = ["Paris", "The capital of France is Paris", "A"]
    together = text_features(model, tokenizer, texts, batch_size=2)
    for text, found in zip(texts, together, strict=True):
        ids = tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            state = model(**ids, output_hidden_states=True).hidden_states[-1][0, -1]
        assert np.allclose(found, state.float(), atol=1e-5)
