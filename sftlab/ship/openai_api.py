"""What OpenAI's chat API says: requests, answers and errors as JSON.

    POST /v1/chat/completions
    {"model": "mine", "messages": [{"role": "user", "content": "What is the capital of Peru?"}]}

    {"object": "chat.completion", "usage": {"prompt_tokens": 15, "completion_tokens": 3, ...},
     "choices": [{"message": {"role": "assistant", "content": "Lima"}, "finish_reason": "stop"}]}

With `"stream": true` the answer comes in chunks, as server-sent events: lines `data: {...}`, each
followed by an empty one, and `data: [DONE]` at the end. A field that can't be obeyed is refused by
its name: ignored, it would be a wrong answer that looks like a right one.

Source: https://platform.openai.com/docs/api-reference/chat
"""

import json
import time
import uuid
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

STOPS = 4  # stop strings of a request, as at OpenAI


class ApiError(ValueError):
    """A request that is refused: status, and what stands in OpenAI's error object."""

    def __init__(
        self, status: int, code: str, message: str, *, param: str | None = None, **headers: str
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.param = status, code, param
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    def body(self) -> dict[str, Any]:
        kinds = {401: "authentication_error", 429: "rate_limit_error"}
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        said = {"message": str(self), "type": kinds.get(self.status, kind)}
        return {"error": {**said, "param": self.param, "code": self.code}}


class _Object(BaseModel):
    """JSON whose fields are all known, of the right type, and not NaN; null is left out."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _without_null(cls, value: Any) -> Any:
        given = isinstance(value, dict)
        return {k: v for k, v in value.items() if v is not None} if given else value


class ChatMessage(_Object):
    """One turn; content that comes in parts of text is joined."""

    role: Literal["system", "user", "assistant"]
    content: str

    @field_validator("content", mode="before")
    @classmethod
    def _joined(cls, content: Any) -> Any:
        if not isinstance(content, list):
            return content
        for part in content:
            kind = part.get("type") if isinstance(part, dict) else part
            if kind != "text" or not isinstance(part.get("text"), str):
                raise ValueError(f"a part of type {kind!r} can't be read, only text")
        return "".join(part["text"] for part in content)


class StreamOptions(_Object):
    include_usage: bool = False


class ChatRequest(_Object):
    """The fields of a request that are obeyed, those that may only ask for what happens anyway
    (`n`, penalties, `logprobs`), and two that change no answer (`user`, `metadata`)."""

    model: str
    messages: list[ChatMessage] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)  # its newer name
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: list[str] = Field([], max_length=STOPS)
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    n: int = Field(1, ge=1, le=1)
    presence_penalty: float = Field(0, ge=0, le=0)
    frequency_penalty: float = Field(0, ge=0, le=0)
    logprobs: Literal[False] = False
    user: str = ""
    metadata: dict[str, str] = {}

    @field_validator("stop", mode="before")
    @classmethod
    def _listed(cls, stop: Any) -> Any:
        stop = [stop] if isinstance(stop, str) else stop
        if isinstance(stop, list) and "" in stop:
            raise ValueError("a stop string is empty")
        return stop


def read_request(body: bytes) -> ChatRequest:
    """The request in a body, or an ApiError that names the first field that is wrong."""
    try:
        return ChatRequest.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = "".join(f"[{at}]" if isinstance(at, int) else f".{at}" for at in first["loc"])
    place = place.removeprefix(".")[:200]
    if first["type"] == "extra_forbidden":
        said = f"{place} is not supported by this server; leave it out"
        raise ApiError(400, "unsupported_parameter", said, param=place)
    said = first["msg"].removeprefix("Value error, ")
    raise ApiError(400, "invalid_request", f"{place or 'body'}: {said}", param=place or None)


class Reply:
    """The JSON of one answer, whole or in chunks; all have the same id and time."""

    def __init__(self, model: str, contract: str) -> None:
        self._common = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time())}
        self._common |= {"model": model, "system_fingerprint": f"fp_{contract[:12]}"}

    def whole(self, text: str, finish_reason: str, counts: tuple[int, int]) -> dict[str, Any]:
        """`counts` are the tokens of the prompt, and of the answer with what ended it."""
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason}
        said = {"object": "chat.completion", "choices": [choice], "usage": _usage(*counts)}
        return self._common | said

    def chunk(self, delta: Mapping[str, str], finish_reason: str | None = None) -> str:
        """An event with what has come since the last: its role at first, then text."""
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        said = {"object": "chat.completion.chunk", "choices": [choice]}
        return event(self._common | said)

    def usage(self, counts: tuple[int, int]) -> str:
        """The event of `stream_options.include_usage`, which comes last and holds no text."""
        said = {"object": "chat.completion.chunk", "choices": [], "usage": _usage(*counts)}
        return event(self._common | said)


def event(data: Mapping[str, Any]) -> str:
    """A server-sent event, in ASCII: some clients end a line at U+2028 or U+0085, too."""
    return f"data: {json.dumps(data)}\n\n"


def _usage(prompt: int, completion: int) -> dict[str, int]:
    counts = {"prompt_tokens": prompt, "completion_tokens": completion}
    return counts | {"total_tokens": prompt + completion}
