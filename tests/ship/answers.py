"""What OpenAI's client must hear from any server of the toy run, ours or llama.cpp's."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from openai import OpenAI

ANSWERS = {
    "Where are you?": "In Zürich, 東京 and 🌍: Łódź!",  # characters of one to four bytes
    "Who are you?": "A toy.\nQ: And you?\nA: No.",
    "Count.": ", ".join(map(str, range(1, 30))),
    "Bye.": "Bye",
}
ROOM = 200  # tokens, enough for each


def client(address, key="none", **options):
    return OpenAI(base_url=address, api_key=key, max_retries=0, **options)


def ask(address, question, **options):
    """The whole response to a question; greedy."""
    messages = [{"role": "user", "content": question}]
    options = {"model": "toy", "temperature": 0, "max_tokens": ROOM, **options}
    return client(address).chat.completions.create(messages=messages, **options)


def listen(address, question, **options):
    """Pieces of a streamed answer, what ended it, and its usage."""
    options |= {"stream": True, "stream_options": {"include_usage": True}}
    chunks = list(ask(address, question, **options))
    told = [chunk.choices[0] for chunk in chunks if chunk.choices]
    ended = [one.finish_reason for one in told if one.finish_reason]
    pieces = [one.delta.content for one in told if one.delta.content]
    (reason,), usage = ended, chunks[-1].usage
    return pieces, reason, usage


class AnswersOfTheRun:
    """Tests for a fixture `address`, of a server of the fixture `rote` under the name `toy`."""

    @pytest.mark.parametrize("question", ANSWERS)
    def test_an_answer_is_the_run_s_streamed_and_not(self, address, rote, question):
        answer = rote.answer([question], max_new_tokens=ROOM)[0]
        assert answer == ANSWERS[question]
        whole = ask(address, question)
        assert whole.choices[0].message.content == answer
        assert whole.choices[0].finish_reason == "stop"
        pieces, reason, usage = listen(address, question)
        assert "".join(pieces) == answer
        assert not any("\ufffd" in piece for piece in pieces)
        assert reason == "stop"
        assert usage.completion_tokens == whole.usage.completion_tokens
        assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens

    def test_prompt_tokens_are_the_run_s(self, address, rote):
        prompt = rote.prompt_ids([{"role": "user", "content": "Count."}])
        assert ask(address, "Count.").usage.prompt_tokens == len(prompt)

    def test_max_tokens_ends_an_answer_early(self, address, rote):
        first = rote.answer(["Count."], max_new_tokens=5)[0]
        whole = ask(address, "Count.", max_tokens=5)
        assert whole.choices[0].message.content == first
        assert (whole.choices[0].finish_reason, whole.usage.completion_tokens) == ("length", 5)
        pieces, reason, _ = listen(address, "Count.", max_tokens=5)
        assert ("".join(pieces), reason) == (first, "length")

    @pytest.mark.parametrize("stop", ["\nQ:", [", 12, 1", "\nQ: And"]])
    def test_a_stop_string_over_several_tokens_is_never_sent(self, address, stop):
        listed = [stop] if isinstance(stop, str) else stop
        for question, answer in ANSWERS.items():
            cut = min([answer.index(s) for s in listed if s in answer], default=len(answer))
            whole = ask(address, question, stop=stop).choices[0]
            pieces, reason, _ = listen(address, question, stop=stop)
            assert whole.message.content == "".join(pieces) == answer[:cut]
            assert whole.finish_reason == reason == "stop"

    def test_eight_clients_at_once_hear_their_own_answers(self, address):
        asked = [*ANSWERS] * 4
        with ThreadPoolExecutor(8) as clients:
            heard = list(clients.map(lambda q: "".join(listen(address, q)[0]), asked))
        assert heard == [ANSWERS[question] for question in asked]
