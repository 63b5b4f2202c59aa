"""A saved run behind OpenAI's chat API: what is checked, in which order, and what is measured.

    authorization  401      model        404      length of the prompt  400
    size           413      contract     409      queue                 429
    JSON, fields   400

Only a request that passes all of them reaches the model. Nothing here is needed to try a run:
`sftlab chat` does that. It is for programs, one after another; vLLM or llama.cpp's server answer
many at once.
"""

import hmac
import socket
import threading
from collections.abc import Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftlab.chat import CONTRACT
from sftlab.integrity import file_hash
from sftlab.machine import import_extra
from sftlab.ship.generator import Answer, Generator
from sftlab.ship.metrics import Metrics
from sftlab.ship.openai_api import ApiError, ChatRequest, Reply, event, read_request
from sftlab.train import Run

if TYPE_CHECKING:
    from fastapi import FastAPI
    from uvicorn import Server

HEADER = "X-Contract"
MOST_BYTES = 2**20  # of a request's body


class ServeError(ValueError):
    """A server that can't be started."""


def contract_hash(folder: str | Path) -> str:
    """The SHA-256 that names what a saved run or a release promises: of its contract.json."""
    file = Path(folder) / CONTRACT
    if not file.is_file():
        said = f"{folder} has no {CONTRACT}, which older versions of the lab did not write"
        raise ServeError(f"{said}; open it with load_run and save it to a new folder")
    return file_hash(file)


def create_app(
    run: Run,
    *,
    name: str,
    contract: str,
    api_key: str | None = None,
    most_waiting: int = 32,
) -> "FastAPI":
    """The server as an ASGI application, for uvicorn or any other.

    Args:
        name: of the model, which each request must give.
        contract: a hash of what is served (`contract_hash`). Each response has it in its header
            X-Contract, and a request that has another there is refused.
        api_key: what clients must send as `Authorization: Bearer KEY`; None asks for nothing.
        most_waiting: requests that wait while one is answered; more are refused with status 429.
    """
    for library in ("fastapi", "uvicorn", "prometheus_client"):
        import_extra(library)  # or an error that says how to get it
    from fastapi import FastAPI, Request
    from fastapi.responses import JSONResponse, Response, StreamingResponse
    from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

    headers = {HEADER: contract}
    reply = partial(JSONResponse, headers=headers)
    metrics = Metrics(name)
    generator = Generator(run, most_waiting=most_waiting, finished=metrics.finished)
    metrics.unfinished.set_function(lambda: len(generator))

    @asynccontextmanager
    async def lifespan(app: FastAPI):
        yield
        generator.close()

    app = FastAPI(lifespan=lifespan, openapi_url=None)  # its pages would load from a CDN

    @app.get("/health")
    async def health() -> Response:
        said = {"status": "ok", "model": name, "contract": contract}
        return reply({**said, "unfinished": len(generator)})

    @app.get("/metrics")
    async def show_metrics() -> Response:
        text = generate_latest(metrics.registry)
        return Response(text, media_type=CONTENT_TYPE_LATEST, headers=headers)

    @app.get("/v1/models")
    async def models(request: Request) -> Response:
        authorize(request)
        model = {"id": name, "object": "model", "created": 0, "owned_by": "sftlab"}
        return reply({"object": "list", "data": [model]})

    @app.post("/v1/chat/completions")
    async def chat_completions(request: Request) -> Response:
        authorize(request)
        asked = read_request(await read_body(request))
        if asked.model != name:
            said = f"the model {asked.model[:200]!r} does not exist; this server has {name!r}"
            raise ApiError(404, "model_not_found", said, param="model")
        expected = request.headers.get(HEADER, contract)
        if expected != contract:  # trying again, as OpenAI's client would, changes nothing
            said = f"{HEADER} is {expected[:64]!r} and this server's contract is {contract!r}"
            raise ApiError(409, "contract_mismatch", said, x_should_retry="false")
        answer = await generator.prepare(asked)
        generator.submit(answer)
        replies = Reply(name, contract)
        if asked.stream:
            quick = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # to proxies
            how = {"media_type": "text/event-stream", "headers": headers | quick}
            return StreamingResponse(events(asked, answer, replies), **how)
        try:
            pieces = []
            async for piece in answer:
                pieces.append(piece)
                if await request.is_disconnected():
                    break
        finally:
            generator.cancel(answer)
        return reply(replies.whole("".join(pieces), answer.finish_reason, answer.counts))

    def authorize(request: Request) -> None:
        sent = request.headers.get("Authorization", "").removeprefix("Bearer ")
        # In constant time: how long a comparison takes must not tell how much was right.
        if api_key and not hmac.compare_digest(sent.encode("latin-1"), api_key.encode()):
            raise ApiError(401, "invalid_api_key", "send the key as `Authorization: Bearer KEY`")

    async def read_body(request: Request) -> bytes:
        # A page in a browser may send any other type to this address without asking first.
        if not request.headers.get("Content-Type", "").startswith("application/json"):
            said = "send the header Content-Type: application/json"
            raise ApiError(415, "invalid_content_type", said)
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > MOST_BYTES:
                said = f"the body has over {MOST_BYTES:,} bytes, the most that are read"
                raise ApiError(413, "request_too_large", said)
        return bytes(body)

    async def events(asked: ChatRequest, answer: Answer, replies: Reply):
        try:
            yield replies.chunk({"role": "assistant", "content": ""})
            async for piece in answer:
                yield replies.chunk({"content": piece})
        except ApiError as error:  # the status, 200, was sent long ago
            yield event(error.body())
            return
        finally:  # also when the client has gone
            generator.cancel(answer)
        yield replies.chunk({}, answer.finish_reason)
        if asked.stream_options.include_usage:
            yield replies.usage(answer.counts)
        yield "data: [DONE]\n\n"

    @app.exception_handler(ApiError)
    async def refuse(request: Request, error: ApiError) -> Response:
        metrics.refused.labels(code=error.code).inc()
        return reply(error.body(), status_code=error.status, headers=headers | error.headers)

    @app.exception_handler(404)
    @app.exception_handler(405)
    async def not_there(request: Request, error: Any) -> Response:
        said = f"{request.method} {request.url.path[:200]}: {error.detail}"
        code = "not_found" if error.status_code == 404 else "method_not_allowed"
        return await refuse(request, ApiError(error.status_code, code, said))

    @app.exception_handler(Exception)  # uvicorn logs the traceback, the client must not see it
    async def unforeseen(request: Request, error: Exception) -> Response:
        return await refuse(request, ApiError(500, "internal_error", "the server failed"))

    return app


def listen(host: str, port: int) -> socket.socket:
    """A socket at that address; port 0 takes a free one. From now on the system accepts
    connections, which wait until the server has begun."""
    try:
        return socket.create_server((host, port))
    except (OSError, OverflowError) as error:
        said = f"can't listen on {host} port {port} ({error}); --port 0 takes a free one"
        raise ServeError(said) from None


def address_of(listening: socket.socket) -> str:
    """Where the API is: `http://127.0.0.1:41234/v1`."""
    host, port = listening.getsockname()
    return f"http://{host}:{port}/v1"


def make_server(app: "FastAPI") -> "Server":
    """uvicorn's server, whose `run(sockets=[listen(host, port)])` ends with Ctrl-C."""
    import uvicorn

    # Answers that are still being written when it is to end have a second for it.
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
    return uvicorn.Server(config)


@contextmanager
def serving(app: "FastAPI") -> Iterator[str]:
    """Serve this machine in a thread for as long as the block runs, at a free port; gives the
    address of the API."""
    server = make_server(app)
    with listen("127.0.0.1", 0) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        try:
            yield address_of(listening)
        finally:
            server.should_exit = True
            thread.join()
