"""Pairs, judges, their biases and their agreement, by hand and against references."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pandas as pd
import pytest
import torch

from sftlab.measure import (
    EndpointJudge,
    KnownTruthJudge,
    Pair,
    PairError,
    judge_pairs,
    judging,
    with_bos,
)
from sftlab.measure.likelihood import log_likelihoods
from sftlab.models import load


def pairs(*answers, question="Q?", references=("Paris",)):
    return [
        Pair(question=question, first=a, second=b, references=references, entity=f"c{n}")
        for n, (a, b) in enumerate(answers)
    ]


class Always:
    """A judge that only looks at one thing."""

    def __init__(self, verdict):
        self.verdict = verdict

    def compare(self, given):
        return [self.verdict(pair) for pair in given]


def test_the_known_truth_wins_and_a_tie_counts_half_in_both_orders():
    given = pairs(("Paris", "Rome"), ("Rome", "It is Paris."), ("Rome", "x"), ("paris", "Paris."))
    assert KnownTruthJudge().compare(given) == [1, 0, 0.5, 0.5]
    judged = judge_pairs(KnownTruthJudge(), pairs(("Paris", "x"), ("x", "y"), ("Paris", "y")))
    rate = judging.win_rate(judged)
    assert len(judged) == 6
    assert rate.value == pytest.approx((1 + 0.5 + 1) / 3)
    assert (rate.unit, rate.entities) == ("share", 3)
    assert 0 <= rate.low < rate.value < rate.high <= 1
    with pytest.raises(PairError, match=r"the pair 'Q\?' has no references"):
        KnownTruthJudge().compare(pairs(("a", "b"), references=()))


@pytest.mark.parametrize(
    ("verdict", "rate", "position", "length"),
    [
        (lambda pair: 1, 0.5, 1, 0),
        (lambda pair: 0.5, 0.5, 0, 0),
        (lambda pair: float(len(pair.first) > len(pair.second)), 1, 0, 1),
        (lambda pair: float(len(pair.first) < len(pair.second)), 0, 0, -1),
    ],
    ids=["first", "tie", "longer", "shorter"],
)
def test_a_judge_of_positions_or_of_lengths_is_found_out(verdict, rate, position, length):
    padded = judging.padded_pairs(pairs(("Paris", "x"), ("Rome", "y")))
    assert (padded[0].first, padded[0].second) == ("Paris, of course", "Paris")
    judged = judge_pairs(Always(verdict), padded)
    measures = judging.win_rate, judging.position_bias, judging.length_bias
    assert [measure(judged).value for measure in measures] == [rate, position, length]


def test_verdicts_are_checked():
    for verdict in (2, -1, 0.3):
        with pytest.raises(PairError, match=r"Always gave .* each is 1, 0\.5 or 0"):
            judge_pairs(Always(lambda pair, verdict=verdict: verdict), pairs(("a", "b")))
    with pytest.raises(PairError, match="no pair"):
        judge_pairs(KnownTruthJudge(), [])


def test_pairs_are_made_by_prompt_and_seed():
    rows = [("p", " a", ["a"], "x"), ("q", "b", ["b"], "y")]
    ours = pd.DataFrame(rows, columns=["prompt", "output", "answers", "country"])
    theirs = ours.iloc[::-1].assign(output=["d", "c"])
    made = judging.make_pairs(ours, theirs)
    texts = [(one.question, one.first, one.second) for one in made]
    assert texts == [("p", "a", "c"), ("q", "b", "d")]
    seeds = pd.concat([ours.assign(seed=seed) for seed in (3, 4)])
    judged = judging.judge_frames(KnownTruthJudge(), seeds, theirs)
    assert judged.groupby("seed")["pair"].agg(list).to_dict() == dict.fromkeys((3, 4), [0, 1] * 2)
    assert (judged["won"] == 1).all()
    with pytest.raises(PairError, match="share 1 prompts"):
        judging.make_pairs(ours, theirs.iloc[:1])


def test_the_likelihood_judge_sees_both_answers_and_goes_by_the_models_own_loss(toy_base):
    model, tokenizer = load(toy_base)
    model.eval()
    (pair,) = pairs(("Paris", "the river of many towns"))
    asked = "Possible answers: Paris, the river of many towns.\n\nQ: Q?\nA:"
    texts = [(asked, f" {answer}") for answer in (pair.first, pair.second)]
    scores = log_likelihoods(model, tokenizer, texts)
    for (before, text), found in zip(texts, scores, strict=True):
        ids, start = with_bos(tokenizer, before + text), len(with_bos(tokenizer, before))
        labels = torch.tensor([[-100] * start + ids[start:]])
        loss = model(torch.tensor([ids]), labels=labels).loss.item()
        assert found.tokens == len(ids) - start
        assert found.mean == pytest.approx(-loss, rel=1e-4)
    judge = judging.LikelihoodJudge(model, tokenizer)
    assert judge.compare([pair]) == [float(scores[0].mean > scores[1].mean)]
    assert judge.compare(pairs(("Paris", "Paris"), ("", "Paris"), ("Paris", ""))) == [0.5, 0, 1]
    with pytest.raises(ValueError, match="empty"):
        log_likelihoods(model, tokenizer, [("a", "")])


def test_kappa_of_the_textbook():
    """Cohen 1960's kind of table: 20 and 15 agreed, 5 and 10 not, of 50: kappa 0.4."""
    one = ["y"] * 25 + ["n"] * 25
    two = ["y"] * 20 + ["n"] * 5 + ["y"] * 10 + ["n"] * 15
    assert judging.cohen_kappa(one, two) == pytest.approx(0.4)
    assert judging.cohen_kappa("aa", "aa") == 1
    with pytest.raises(ValueError, match="shorter"):
        judging.cohen_kappa("ab", "a")


def test_agreement_leaves_the_truths_ties_out():
    given = pairs(("Paris", "x"), ("x", "y"), ("x", "Paris"))
    truth = judge_pairs(KnownTruthJudge(), given)
    judged = judge_pairs(Always(lambda pair: 1.0 if pair.first == "Paris" else 0.5), given)
    found = judging.agreement(judged, truth)
    assert set(found["pair"]) == {0, 2}
    assert found["won"].mean() == pytest.approx(0.75)  # agrees when Paris is first, else ties
    with pytest.raises(PairError, match="other pairs"):
        judging.agreement(judged, truth.assign(question="other"))


class Server(BaseHTTPRequestHandler):
    """Speaks as a chat model would, from `said`; keeps what it was asked."""

    said, asked, status = "A", [], 200

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        Server.asked.append((self.path, body, self.headers.get("Authorization")))
        text = Server.said
        if not isinstance(text, bytes):
            text = json.dumps({"choices": [{"message": {"content": text}}]}).encode()
        self.send_response(Server.status)
        if Server.status == 302:
            self.send_header("Location", "http://127.0.0.1:9/elsewhere")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


@pytest.fixture
def address():
    Server.status = 200
    with HTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()


def test_endpoint_judge_reads_verdicts(address, monkeypatch):
    monkeypatch.setenv("SOME_KEY", "secret")
    judge = EndpointJudge(address, model="m", key_variable="SOME_KEY")
    for said, verdict in {"A": 1, "B.": 0, "tie": 0.5, " **A** because ...": 1}.items():
        Server.said = said
        assert judge.compare(pairs(("Paris", "Rome"), question="Capital?")) == [verdict]
    path, body, key = Server.asked[-1]
    assert (path, key, body["model"]) == ("/v1/chat/completions", "Bearer secret", "m")
    text = body["messages"][0]["content"]
    assert "Capital?" in text
    assert text.index("Paris") < text.index("Rome")


@pytest.mark.parametrize(
    ("status", "said", "told"),
    [
        (401, "no", "the key"),
        (302, "no", "302"),
        (200, b"<html>", "OpenAI"),
        (200, b"{}", "choices"),
        (200, "I can't say", "A, B or TIE"),
    ],
)
def test_endpoint_errors_say_what_to_do(address, status, said, told):
    Server.status, Server.said = status, said
    with pytest.raises(PairError, match=told):
        EndpointJudge(address, model="m").compare(pairs(("a", "b")))


@pytest.mark.parametrize(
    ("address", "key", "told"),
    [
        ("127.0.0.1:8000", None, "give one such as"),
        ("http://example.org/v1", "SOME_KEY", "https"),
        ("http://127.0.0.1/v1", "NOT_SET", "is not set"),
        ("http://127.0.0.1:9/v1", None, "Is the server running"),
    ],
)
def test_endpoints_that_cannot_be_used_are_named(monkeypatch, address, key, told):
    monkeypatch.setenv("SOME_KEY", "secret")
    with pytest.raises(PairError, match=told):
        EndpointJudge(address, model="m", key_variable=key).compare(pairs(("a", "b")))


def test_rubric_by_the_truth():
    rated = {
        "Paris": [1, 1, 1, 1],
        "Rome": [0, 1, 0, 1],
        "I don't know.": [0, 1, 1, 1],
        "What is it?": [0, 1, 0, 0],
        "Paris\nRome": [1, 1, 1, 0],
        "Mix A with B.": [0, 0, 0, 1],
    }
    frame = pd.DataFrame({"output": list(rated), "answers": [["Paris"]] * 5 + [[]]})
    found = judging.rate_answers(frame, forbidden=["mix a with b"])[list(judging.CRITERIA)]
    assert found.to_numpy().tolist() == list(rated.values())
