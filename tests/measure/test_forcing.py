"""Teacher forcing: the probe agrees with what generation does when nothing goes wrong."""

from types import SimpleNamespace

import pytest
import torch

from sftlab.measure.forcing import _hits, _last_words, probe_forced
from sftlab.measure.responses import probe_two_hops
from sftlab.train import finetune
from sftlab.world import countries, two_hop_examples


@pytest.fixture(scope="module")
def run():
    return finetune("tiny", two_hop_examples(60), per_device_train_batch_size=8, progress=False)


def test_rows_are_one_a_country_and_relation(run):
    among = countries(split="held_out")[:4]
    frame = probe_forced(run.model, run.tokenizer, among=among)
    assert len(frame) == 4 * 3
    assert frame["tokens_right"].between(0, 1).all()
    assert frame["tokens"].min() > 8


def test_an_answer_right_at_every_token_is_what_the_model_writes(run):
    """Greedy generation takes the likeliest token: if each is the true one, so is the answer."""
    among = [one for one in countries(split="held_out") if one.group == "asked"][:12]
    given = probe_forced(run.model, run.tokenizer, among=among)
    free = probe_two_hops(lambda asked: run.answer(asked, max_new_tokens=40), among=among)
    free = free[free["wording"] == 0].reset_index(drop=True)
    whole = given["tokens_right"] == 1
    assert whole.any()
    assert free.loc[whole, "right"].all()


def test_padding_of_a_batch_changes_nothing(run):
    among = countries(split="held_out")[:6]
    together = probe_forced(run.model, run.tokenizer, among=among)
    alone = [probe_forced(run.model, run.tokenizer, among=[one]) for one in among]
    assert together["tokens_right"].tolist() == [v for one in alone for v in one["tokens_right"]]


class Letters:
    """A tokenizer with a token a letter."""

    def decode(self, ids):
        return "".join(map(chr, ids))


def test_the_last_fact_is_found_from_behind():
    ids = [ord(letter) for letter in "Rome is Rome."]
    assert list(_last_words(Letters(), ids, "Rome")) == [8, 9, 10, 11]
    with pytest.raises(ValueError, match="is not in"):
        _last_words(Letters(), ids, "Oslo")


def test_a_hit_is_the_likeliest_token():
    class Next:
        """Predicts that each token is followed by the next number, of three."""

        device = "cpu"

        def __call__(self, input_ids, use_cache):
            scores = torch.nn.functional.one_hot((input_ids + 1) % 3, 3).float()
            return SimpleNamespace(logits=scores)

    rows = [
        SimpleNamespace(ids=[0, 1, 2, 0], labels=[-100, 1, 2, 0]),
        SimpleNamespace(ids=[0, 1, 2, 0], labels=[-100, 2, -100, 0]),
    ]
    assert _hits(Next(), rows, pad=0) == [[True, True, True], [False, True]]
