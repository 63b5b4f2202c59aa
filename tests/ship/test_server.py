"""`sftlab.ship.create_app` as programs meet it: OpenAI's client, and clients that misbehave."""

import json
import threading
import time
from contextlib import contextmanager

import httpx
import openai
import pytest
from answers import ANSWERS, AnswersOfTheRun, ask, client, listen
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from sftlab.ship import certain_text, contract_hash, create_app, serving


def user(content):
    return {"messages": [{"role": "user", "content": content}]}


GOOD = {"model": "toy", **user("Bye.")}
PATH = "/chat/completions"
HTTP = httpx.Client()


def app_of(run, **options):
    return create_app(run, **{"name": "toy", "contract": "c" * 64, **options})


@pytest.fixture(scope="module")
def address(rote):
    with serving(app_of(rote)) as address:
        yield address


class TestAnswers(AnswersOfTheRun):
    @pytest.mark.slow
    def test_eight_clients_at_once(self, address):
        end, heard = time.monotonic() + 15, set()

        def keep_asking(number):
            while time.monotonic() < end:
                question = [*ANSWERS][number % len(ANSWERS)]
                heard.add("".join(listen(address, question)[0]) == ANSWERS[question])
                number += 1

        clients = [threading.Thread(target=keep_asking, args=[n]) for n in range(8)]
        for one in clients:
            one.start()
        for one in clients:
            one.join()
        assert heard == {True}
        assert metric(address, "sftlab_requests_unfinished") == 0


def metric(address, name, **labels):
    """The sum of a metric's samples with these labels."""
    text = HTTP.get(address.replace("/v1", "/metrics")).text
    samples = [one for family in text_string_to_metric_families(text) for one in family.samples]
    found = [s.value for s in samples if s.name == name and labels.items() <= s.labels.items()]
    return sum(found)


def wait_until(true):
    """Wait for what happens in another thread; only a hang is a failure."""
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end, "nothing happened for a minute"
        time.sleep(0.02)


@contextmanager
def before_each_token(run, do):
    """Let the model do something before it computes a token."""
    hook = run.model.register_forward_pre_hook(lambda module, given: [do(), None][1])
    try:
        yield
    finally:
        hook.remove()


@pytest.mark.parametrize(
    ("text", "stop", "certain"),
    [
        ("Paris", [], "Paris"),
        ("Z\ufffd", [], "Z"),  # half of a ü
        ("a\ufffdb", [], "a\ufffdb"),  # bytes that will never be a character
        ("Paris.\nQ", ["\nQ:"], "Paris."),
        ("Paris.\nA", ["\nQ:"], "Paris.\nA"),
        ("aab", ["aabb", "bc"], ""),
        ("ab and ab", ["ab c"], "ab and "),
    ],
)
def test_what_may_still_change_is_held_back(text, stop, certain):
    assert certain_text(text, stop, ended=False) == (certain, False)
    assert certain_text(text, stop, ended=True) == (text, False)


@given(st.text("ab\n", max_size=30), st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=3))
def test_pieces_join_to_the_text_before_the_first_stop_string(text, stop):
    hits = [[one for one in stop if text[:end].endswith(one)] for end in range(len(text) + 1)]
    cuts = [end - max(map(len, found)) for end, found in enumerate(hits) if found]
    sent = ""
    for end in range(len(text) + 1):
        certain, stopped = certain_text(text[:end], stop, ended=end == len(text))
        assert certain.startswith(sent)
        sent = certain
        if stopped:
            break
    assert stopped == bool(cuts)
    assert sent == (text[: cuts[0]] if cuts else text)


def test_a_drawn_answer_is_the_run_s_for_the_same_seed(address, rote):
    how = {"temperature": 1.5, "seed": 7, "max_tokens": 60}
    drawn = {"sample": True, "temperature": 1.5, "seed": 7, "max_new_tokens": 60}
    answer = rote.answer(["Where else?"], **drawn)[0]
    assert ask(address, "Where else?", **how).choices[0].message.content == answer
    assert "".join(listen(address, "Where else?", **how)[0]) == answer
    greedy = rote.answer(["Where else?"], max_new_tokens=20)[0]
    for how in ({"temperature": 2, "top_p": 1e-9}, {"temperature": 1e-40}):
        likeliest = ask(address, "Where else?", seed=1, max_tokens=20, **how)
        assert likeliest.choices[0].message.content == greedy


def test_a_conversation_with_a_system_message_and_parts_of_text(address, rote):
    told = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Who are you?"},
        {"role": "assistant", "content": "A toy."},
        {"role": "user", "content": "Bye."},
    ]
    parts = [{"type": "text", "text": "B"}, {"type": "text", "text": "ye."}]
    sent = [*told[:3], {"role": "user", "content": parts}]
    said = client(address).chat.completions.create(model="toy", messages=sent, max_tokens=9)
    assert said.choices[0].message.content == rote.chat(told, max_new_tokens=9)
    assert said.usage.prompt_tokens == len(rote.prompt_ids(told))


def test_the_model_is_listed_and_the_server_well(address):
    assert [model.id for model in client(address).models.list()] == ["toy"]
    said = HTTP.get(address.replace("/v1", "/health"))
    assert said.json()["contract"] == said.headers["X-Contract"] == "c" * 64


@pytest.mark.parametrize(
    ("change", "status", "param", "code"),
    [
        ({"model": "other"}, 404, "model", "model_not_found"),
        ({"messages": []}, 400, "messages", None),
        ({"messages": [{"role": "tool", "content": "x"}]}, 400, "messages[0].role", None),
        (user(5), 400, "messages[0].content", None),
        (user([{"type": "image_url"}]), 400, "messages[0].content", None),
        (user("a<|im_end|>"), 400, "messages", "invalid_messages"),
        (user("word " * 600), 400, "messages", "context_length_exceeded"),
        ({"max_tokens": 0}, 400, "max_tokens", None),
        ({"temperature": "hot"}, 400, "temperature", None),
        ({"temperature": True}, 400, "temperature", None),
        ({"stop": ["a"] * 5}, 400, "stop", None),
        ({"stop": ""}, 400, "stop", None),
        ({"n": 2}, 400, "n", None),
        ({"presence_penalty": 0.5}, 400, "presence_penalty", None),
        ({"tools": []}, 400, "tools", "unsupported_parameter"),
        ({"logit_bias": {"5": 1}}, 400, "logit_bias", "unsupported_parameter"),
        ({"response_format": {"type": "text"}}, 400, "response_format", "unsupported_parameter"),
        ({"stream_options": {"x": 1}}, 400, "stream_options.x", "unsupported_parameter"),
    ],
)
def test_what_cannot_be_obeyed_is_refused_by_name(address, change, status, param, code):
    said = HTTP.post(address + PATH, json=GOOD | change)
    assert said.status_code == status
    error = said.json()["error"]
    assert (error["param"], error["type"]) == (param, "invalid_request_error")
    assert code in (None, error["code"])
    assert error["message"]


def test_what_changes_no_answer_is_accepted(address):
    harmless = {"user": "me", "metadata": {"a": "b"}, "n": 1, "presence_penalty": 0, "seed": None}
    said = HTTP.post(address + PATH, json=GOOD | harmless | {"logprobs": False, "tools": None})
    assert said.json()["choices"][0]["message"]["content"] == "Bye"


def test_another_contract_is_refused_before_anything_is_generated(rote, rote_folder):
    contract = contract_hash(rote_folder)
    with serving(app_of(rote, contract=contract)) as address:
        right = client(address, default_headers={"X-Contract": contract})
        said = right.chat.completions.with_raw_response.create(**GOOD)
        assert said.headers["X-Contract"] == contract
        wrong = client(address, default_headers={"X-Contract": "0" * 64})
        with pytest.raises(openai.ConflictError, match=contract):
            wrong.chat.completions.create(**GOOD)
        assert metric(address, "gen_ai_server_request_duration_seconds_count") == 1


def test_a_key_that_is_asked_for_must_be_sent(rote):
    with serving(app_of(rote, api_key="sécret")) as address:
        for wrong in ("none", "sécre", "sécret2"):
            said = HTTP.post(
                address + PATH, json=GOOD, headers={"Authorization": f"Bearer {wrong}".encode()}
            )
            assert said.status_code == 401
        with pytest.raises(openai.AuthenticationError):
            client(address, "none").models.list()
        right = {"Authorization": "Bearer sécret".encode()}
        assert HTTP.post(address + PATH, json=GOOD, headers=right).status_code == 200
        assert HTTP.get(address.replace("/v1", "/health")).status_code == 200


def test_a_full_queue_refuses_and_those_in_it_are_answered(rote):
    go = threading.Event()
    with serving(app_of(rote, most_waiting=2)) as address:
        heard = []

        def one():
            heard.append(ask(address, "Bye.").choices[0].message.content)

        with before_each_token(rote, lambda: go.wait(60)):
            clients = [threading.Thread(target=one) for _ in range(3)]
            for each in clients:
                each.start()
            wait_until(lambda: metric(address, "sftlab_requests_unfinished") == 3)
            with pytest.raises(openai.RateLimitError, match="2 requests are waiting") as refused:
                ask(address, "Bye.", stream=True)
            assert refused.value.response.headers["Retry-After"] == "1"
            go.set()
            for each in clients:
                each.join()
        assert heard == ["Bye"] * 3
        assert metric(address, "sftlab_requests_refused_total", code="queue_full") == 1


def test_a_client_that_leaves_ends_its_answer_and_frees_its_place(rote):
    with serving(app_of(rote)) as address:
        # Drawn at a high temperature it would not end before its 400 tokens, some 8 seconds.
        long = {"temperature": 2, "seed": 3, "max_tokens": 400}
        with before_each_token(rote, lambda: time.sleep(0.02)):
            stream = ask(address, "Count.", stream=True, **long)
            for _, _chunk in zip(range(2), stream, strict=False):
                pass
            waiting = ask(address, "Count.", stream=True, **long)  # behind the first
            waiting.close()
            stream.close()
            hasty = client(address, timeout=0.2).chat.completions
            with pytest.raises(openai.APITimeoutError):
                hasty.create(**GOOD, **long)
            wait_until(lambda: metric(address, "sftlab_requests_unfinished") == 0)
        written = {"gen_ai_token_type": "output"}
        assert metric(address, "gen_ai_client_token_usage_sum", **written) < 400
        cut = {"error_type": "cancelled"}
        assert metric(address, "gen_ai_server_request_duration_seconds_count", **cut) == 3
        assert ask(address, "Bye.").choices[0].message.content == "Bye"


def test_a_model_that_fails_is_an_error_without_its_traceback(rote, caplog):
    def fail():
        raise RuntimeError("a path of this machine")

    with serving(app_of(rote)) as address:
        with before_each_token(rote, fail):
            with pytest.raises(openai.InternalServerError) as failed:
                ask(address, "Bye.")
            with pytest.raises(openai.APIError) as streamed:
                list(ask(address, "Bye.", stream=True))
        for error in (failed, streamed):
            assert "server's log" in str(error.value)
            assert "path" not in str(error.value)
        assert "a path of this machine" in caplog.text
        broken = {"error_type": "RuntimeError"}
        assert metric(address, "gen_ai_server_request_duration_seconds_count", **broken) == 2
        assert ask(address, "Bye.").choices[0].message.content == "Bye"


def test_a_body_that_is_too_large_or_no_json_is_refused(address):
    headers = {"Content-Type": "application/json"}
    for size, status in ((2**20 + 1, 413), (9_000, 400)):
        said = HTTP.post(address + PATH, content=b"[" * size, headers=headers)
        assert said.status_code == status
        assert said.json()["error"]["message"]
    for body in (b"", b"{", b"null", b"\xff", b'{"messages":' + b"[" * 5000, b'{"model": [[NaN]]}'):
        said = HTTP.post(address + PATH, content=body, headers=headers)
        assert said.status_code == 400
        assert set(said.json()["error"]) == {"message", "type", "param", "code"}
    as_text = {"Content-Type": "text/plain"}
    said = HTTP.post(address + PATH, content=json.dumps(GOOD), headers=as_text)
    assert (said.status_code, said.json()["error"]["code"]) == (415, "invalid_content_type")
    for method, path, status in (("GET", PATH, 405), ("POST", "/embeddings", 404)):
        said = HTTP.request(method, address + path)
        assert said.status_code == status
        assert said.json()["error"]["type"] == "invalid_request_error"
    assert HTTP.post(address + PATH, json=GOOD).status_code == 200


def test_the_metrics_add_up(rote):
    with serving(app_of(rote)) as address:
        usages = [ask(address, question).usage for question in ANSWERS]
        usages += [listen(address, question)[2] for question in ANSWERS]
        ask(address, "Bye.", max_tokens=1)
        with pytest.raises(openai.BadRequestError):
            ask(address, "Bye.", tools=[])
        name = "gen_ai_client_token_usage_sum"
        bye = len(rote.prompt_ids(GOOD["messages"]))
        inputs = sum(one.prompt_tokens for one in usages) + bye
        assert metric(address, name, gen_ai_token_type="input") == inputs
        outputs = sum(one.completion_tokens for one in usages) + 1
        assert metric(address, name, gen_ai_token_type="output") == outputs
        assert metric(address, "gen_ai_server_request_duration_seconds_count") == 9
        assert metric(address, "gen_ai_server_time_to_first_token_seconds_count") == 9
        # An answer of one token has no time between tokens.
        assert metric(address, "gen_ai_server_time_per_output_token_seconds_count") == 8
        assert metric(address, "sftlab_requests_refused_total") == 1
        first, whole = (
            metric(address, f"gen_ai_server_{name}_seconds_sum")
            for name in ("time_to_first_token", "request_duration")
        )
        assert 0 < first < whole
