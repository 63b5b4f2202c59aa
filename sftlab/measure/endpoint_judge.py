"""A judge behind an address: any server that speaks OpenAI's chat completions. Never by default.

    EndpointJudge("http://127.0.0.1:8000/v1", model="some-model")

Whatever is judged is sent there, questions and answers, so it is for you to decide which address
may have them. The key is read from a variable of the environment and written nowhere.
"""

import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from sftlab.measure.judge import JudgeError
from sftlab.measure.pairwise import Pair

VERDICTS = {"A": 1.0, "B": 0.0, "TIE": 0.5}
COMPARE = (
    "Which of two answers to a question is better? Judge whether it is right and whether it helps. "
    "Do not go by its length, nor by which is shown first.\n\n"
    "Question: {question}\n\nAnswer A: {first}\n\nAnswer B: {second}\n\n"
    "Reply with one word: A, B or TIE."
)
RATE = (
    "Rate an answer to a question, from 1 (bad) to 5 (good), on each of: {criteria}.\n\n"
    "Question: {question}\n\nAnswer: {answer}\n\n"
    "Reply with one JSON object and nothing else, such as {example}."
)


class EndpointJudge:
    """Compares and rates by asking a chat model at an address that you give.

    Args:
        address: up to and without `/chat/completions`, such as `http://127.0.0.1:8000/v1`.
        model: the name that the server knows it by.
        key_variable: the variable of the environment that holds the key; none is sent without it.
        seconds: for one answer.

    Raises:
        JudgeError: the address is none, or it would send a key without encryption over a network.
    """

    def __init__(
        self, address: str, *, model: str, key_variable: str | None = None, seconds: float = 60
    ) -> None:
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise JudgeError(
                f"address is {address!r}; give one such as http://127.0.0.1:8000/v1, up to and "
                "without /chat/completions"
            )
        self.key = None
        if key_variable is not None:
            self.key = os.environ.get(key_variable)
            if not self.key:
                raise JudgeError(
                    f"the variable {key_variable} is not set: set it to the key, or leave "
                    "key_variable out where the server wants none"
                )
            if parts.scheme == "http" and parts.hostname not in ("127.0.0.1", "localhost", "::1"):
                raise JudgeError(f"{address} is not encrypted: a key goes to an https address only")
        self.address = address.rstrip("/") + "/chat/completions"
        self.model, self.seconds = model, seconds
        self.name = model

    def compare(self, pairs: Sequence[Pair]) -> list[float]:
        """Verdicts, one request a pair; JudgeError when the server fails or says something else."""
        found = []
        for pair in pairs:
            said = self._ask(
                COMPARE.format(question=pair.question, first=pair.first, second=pair.second)
            )
            word = re.sub(r"[^A-Z]", "", said.strip().split()[0].upper()) if said.strip() else ""
            if word not in VERDICTS:
                raise JudgeError(
                    f"the judge {self.model} was to say A, B or TIE and said {said[:80]!r}: take a "
                    "model that follows instructions"
                )
            found.append(VERDICTS[word])
        return found

    def rate(self, question: str, answer: str, *, criteria: Sequence[str]) -> dict[str, float]:
        """Ratings from 0 (bad) to 1 (good) by criterion; JudgeError as `compare`."""
        example = json.dumps(dict.fromkeys(criteria, 3))
        said = self._ask(
            RATE.format(
                criteria=", ".join(criteria), question=question, answer=answer, example=example
            )
        )
        try:
            told = json.loads(said[said.index("{") : said.rindex("}") + 1])
            rated = {name: float(told[name]) for name in criteria}
        except (ValueError, KeyError, TypeError) as error:
            raise JudgeError(
                f"the judge {self.model} was to give {example} and said {said[:80]!r}"
            ) from error
        if not all(1 <= value <= 5 for value in rated.values()):
            raise JudgeError(f"the judge {self.model} rated {rated}: ratings go from 1 to 5")
        return {name: (value - 1) / 4 for name, value in rated.items()}

    def _ask(self, text: str) -> str:
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": text}],
            "temperature": 0,
        }
        headers = {"Content-Type": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        request = urllib.request.Request(
            self.address, data=json.dumps(body).encode(), headers=headers
        )
        try:
            # No redirect is followed: it could carry key and answers to another address.
            with _OPENER.open(request, timeout=self.seconds) as response:
                told = json.load(response)
        except urllib.error.HTTPError as error:
            raise JudgeError(f"{self.address} says {error.code}: {_remedy(error.code)}") from error
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            reason = getattr(error, "reason", error)
            raise JudgeError(
                f"{self.address} does not answer ({reason}): is the server running, and is the "
                f"address right? It has {self.seconds:g} seconds for an answer"
            ) from error
        except ValueError as error:
            raise JudgeError(
                f"{self.address} answers with something that is no JSON: is it an OpenAI-compatible"
                " server? Its address mostly ends in /v1"
            ) from error
        return _content(told, self.address)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *arguments: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirect)


def _remedy(code: int) -> str:
    known = {
        401: "it wants a key; name the variable that holds it with key_variable",
        403: "the key may not use this model",
        404: "there is no such model, or the address is wrong; it mostly ends in /v1",
        429: "too many requests; wait, or judge fewer pairs",
    }
    if 300 <= code < 400:
        return "it sends elsewhere, which is not followed; give the address it sends to"
    return known.get(code, "look into the server's log")


def _content(told: Any, address: str) -> str:
    try:
        content = told["choices"][0]["message"]["content"]
        if isinstance(content, str):
            return content
    except (KeyError, IndexError, TypeError):
        pass
    raise JudgeError(
        f"{address} answers without choices[0].message.content: is it an OpenAI-compatible server?"
    )
